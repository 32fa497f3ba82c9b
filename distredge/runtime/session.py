"""`InferenceSession`: a model on several peers, used as onnxruntime's class of that name."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from distredge.cluster.hosts import Cluster, load_hosts
from distredge.errors import DistrEdgeError, HostsError, InputError, StrategyError
from distredge.graph.importer import Model, load_model, model_inputs
from distredge.graph.simplify import declared_outputs, read_proto
from distredge.plan.compile import compile_plan
from distredge.plan.execution import ExecutionPlan
from distredge.plan.policy import Policy, get_policy
from distredge.plan.strategy import Strategy
from distredge.protocol.events import Members
from distredge.runtime.alone import WholeFrames
from distredge.runtime.blobs import BlobSource, BlobStore
from distredge.runtime.client import Client
from distredge.runtime.decide import Decider
from distredge.runtime.deployment import Deployment, Line, PeerAddress
from distredge.runtime.engine import Array
from distredge.runtime.feeds import NodeArg, Shapes, check_feed, shapes_of, shapes_of_model
from distredge.runtime.keys import requester_keys
from distredge.runtime.launcher import LocalPeers
from distredge.runtime.live import LiveImages
from distredge.runtime.measure import computed_macs
from distredge.runtime.metadata import ModelMetadata
from distredge.runtime.resources import Resources
from distredge.runtime.tally import Review
from distredge.runtime.trace import Activity, FrameTimes, merge

HOSTS_VARIABLE, PEERS_VARIABLE = "DISTREDGE_HOSTS", "DISTREDGE_PEERS"
DEFAULT_PEERS = 2
LOOK_S = 0.005
"""How long to wait for an answer before looking for a live source's next image."""
STANDBY_BUDGET_S = 0.5
"""How long a policy may think about a loss that has not happened yet."""
PLANS_KEPT = 4
"""Decisions for one input size that were used last; the peers keep their sessions."""
IMPORTS_KEPT = 256
"""Input sizes whose imported graph and plan are kept here: some hundred kilobytes each."""


class InferenceSession:
    """One model, split over peers.

    Local peers are processes that this object starts and ends. Calls from several threads are served one
    after another. Use it as a context manager, or `close` it.

    Args:
        model: an ONNX file, its bytes, or an imported model.
        sess_options, providers, provider_options: taken as onnxruntime's class takes them, so that its
            callers need no change, and not used: the hosts file says what each peer computes with.
        local_peers: how many peers to start on this machine; or a list with the share of one core that
            each may use.
        hosts: a hosts file, or a cluster, whose peers are running.
        policy: who decides which rows each peer computes, by name or itself.
        plan: a plan, or its file, in place of the policy's decision.
        threads: of the inference engine in each local peer.
        input_shapes: of inputs whose shapes the model leaves open, to prepare for them now rather than
            when they first come.
        timeout_s: how long a peer may take to answer when it is first spoken to.
        cache_dir: where weights are kept.
        seed: of everything random in the policy.
        budget_s: how long the policy may think.
        recover: go on without a peer that is lost, and use it again when it comes back: every frame is
            answered once. Local peers that end are started again. False: a loss ends the session.
        alone: compute whole frames in this process while no peer is left.
        sizes_kept: of how many input sizes the plans stay with the peers, those that came last. Going back to
            another size costs the making of its sessions, but it is neither imported nor decided again.
        progress: told what the peers prepare (the model's way to them, plans), how much is done, and how much
            there is.

    Attributes:
        dropped: images of live sources that there was no room for.

    Raises:
        ModelError, InputError: the model cannot be used.
        HostsError: the hosts file is wrong.
        KeysError: keys for encrypted connections are missing or unusable.
        PeerTimeoutError: a peer does not answer.
        PeerRefusedError: a peer does not accept our key, or is not the one whose key we know.
        PeerError: a peer cannot use the model.
        PolicyError: the policy is unknown, or cannot decide here.
        StrategyError: the plan is for another model, input shape or number of peers.
    """

    def __init__(
        self,
        model: str | Path | bytes | Model,
        sess_options: Any = None,
        providers: Any = None,
        provider_options: Any = None,
        *,
        local_peers: int | Sequence[float] | None = None,
        hosts: str | Path | Cluster | None = None,
        policy: str | Policy = "proportional",
        plan: str | Path | ExecutionPlan | None = None,
        threads: int = 1,
        input_shapes: Mapping[str, tuple[int, ...]] | None = None,
        timeout_s: float = 10.0,
        cache_dir: str | Path | None = None,
        seed: int = 0,
        budget_s: float = 2.0,
        recover: bool = True,
        alone: bool = False,
        sizes_kept: int = 8,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        del sess_options, providers, provider_options
        if local_peers is not None and hosts is not None:
            raise InputError("give local_peers or hosts, not both")
        self._cluster = load_hosts(hosts) if isinstance(hosts, str | Path) else hosts
        self._given = ExecutionPlan.load(plan) if isinstance(plan, str | Path) else plan
        self._cache_dir = None if cache_dir is None else Path(cache_dir)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._resources = Resources(self._lock, self._stopping)
        self._recover, self._alone, self._threads = recover, alone, threads
        self._lines: OrderedDict[Shapes, _Running] = OrderedDict()
        self._sizes_kept = max(1, sizes_kept)
        self._imported: dict[Shapes, tuple[Model, ExecutionPlan]] = {}
        self._leaving: list[Line] = []
        self._reviewer: Callable[[Review], Strategy | None] | None = None
        self._traced_s = 0.0
        self.dropped = 0
        # Also at the end of the interpreter, and when nobody holds this object any more.
        self._finalizer = weakref.finalize(self, self._resources.release)
        try:
            if self._cluster is None:
                # They start while everything else is imported.
                self._resources.processes = self._start_peers(local_peers, threads)
            chosen = get_policy(policy) if isinstance(policy, str) else policy
            self._decider = Decider(chosen, self._cluster, seed, budget_s)
            known = self._import(model, input_shapes)
            self._client = self._resources.client = self._connect(timeout_s)
            if progress is not None:
                self._client.progress = progress
            self._client.connect()
            if known is not None:
                self._deploy(known, self._given, shapes_of_model(known))
            self._client.recovers = recover
            self._resources.keep_alive(self._client)
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------ what onnxruntime's class has

    def get_inputs(self) -> list[NodeArg]:
        """The model's inputs: objects with `name`, `type` and `shape`."""
        return [NodeArg.of(info) for info in self._inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The model's outputs, likewise."""
        return [NodeArg.of(info) for info in self._outputs]

    def get_modelmeta(self) -> ModelMetadata:
        """What the model's file says of itself."""
        return ModelMetadata.of(self._source)

    def get_providers(self) -> list[str]:
        """One name, which stands for all that the peers compute with."""
        return ["DistrEdgeExecutionProvider"]

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Array]:
        """Computes one frame.

        Args:
            output_names: which outputs, in which order; None for all.
            input_feed: an array for each input.

        Raises:
            InputError: a name, shape or dtype is wrong.
            PeerLostError: no peer is left, and none comes back for a while. Without `recover`: one is lost,
                and the session is over.
            PeerError: a peer failed; the session is over.
        """
        wanted = self._wanted(output_names)
        feed = check_feed(self._inputs, input_feed)
        with self._working():
            frame = self._client.submit(self._line(feed), feed)
            try:
                outputs = self._client.wait(frame)
            except BaseException:
                self._client.drop(frame)
                raise
        return outputs if wanted is None else [outputs[at] for at in wanted]

    # ------------------------------------------------------------------ beyond it

    def stream(
        self,
        images: Iterable[Any],
        in_flight: int = 4,
        *,
        ordered: bool = True,
        output_names: Sequence[str] | None = None,
        drop: str | None = None,
    ) -> Iterator[list[Array]]:
        """Computes many frames, several at a time.

        Args:
            images: feeds as for `run`; for a model with one input, arrays alone will do. An image is
                taken only when there is room for it, and may change as soon as the next one is taken.
            in_flight: how many frames are under way at once.
            ordered: in the order of the images; otherwise as they are done.
            output_names: as for `run`.
            drop: "oldest" for a live source, whose images come when they come: they are taken at once, in
                another thread, and when there is no room for them, only the newest is kept. Those dropped
                are counted in `dropped`; those taken are all answered. None: every image is answered.

        Raises:
            InputError, PeerError: as `run`. What `images` raises goes through.
        """
        if drop not in (None, "oldest"):
            raise InputError(f"drop is {drop!r}; it may be 'oldest', or None for no frame")
        if in_flight < 1:
            raise InputError(f"in_flight is {in_flight}; at least one frame must be under way")
        wanted = self._wanted(output_names)
        if drop is None:
            return self._stream(iter(images), in_flight, ordered, wanted)
        return self._live(images, in_flight, ordered, wanted)

    def _stream(
        self, images: Iterator[Any], in_flight: int, ordered: bool, wanted: list[int] | None
    ) -> Iterator[list[Array]]:
        pending: dict[int, None] = {}
        more = True
        try:
            while True:
                while more and len(pending) < in_flight and not self._is_done(pending, ordered):
                    try:
                        image = next(images)
                    except StopIteration:
                        more = False
                        break
                    feed = check_feed(self._inputs, image)
                    with self._working():
                        pending[self._client.submit(self._line(feed), feed)] = None
                if not pending:
                    return
                with self._working():
                    outputs = self._next_done(pending, ordered)
                yield outputs if wanted is None else [outputs[at] for at in wanted]
        finally:
            if pending and not self._stopping.is_set():
                with self._lock:
                    for frame in pending:
                        self._client.drop(frame)

    def _live(
        self, images: Iterable[Any], in_flight: int, ordered: bool, wanted: list[int] | None
    ) -> Iterator[list[Array]]:
        pending: dict[int, None] = {}
        source = LiveImages(images)
        before = self.dropped
        try:
            while pending or not source.is_over:
                for image in source.take() if len(pending) < in_flight else ():
                    feed = check_feed(self._inputs, image)
                    with self._working():
                        pending[self._client.submit(self._line(feed), feed)] = None
                self.dropped = before + source.dropped
                with self._working():
                    done = self._is_done(pending, ordered)
                    if not done:
                        self._client.pump_for(pending, LOOK_S)
                        continue
                    outputs = self._next_done(pending, ordered)
                yield outputs if wanted is None else [outputs[at] for at in wanted]
            source.take()  # raises what the source did
        finally:
            source.close()
            self.dropped = before + source.dropped
            if pending and not self._stopping.is_set():
                with self._lock:
                    for frame in pending:
                        self._client.drop(frame)

    def _is_done(self, pending: dict[int, None], ordered: bool) -> bool:
        finished = self._client.finished
        if ordered:
            return bool(pending) and next(iter(pending)) in finished
        return any(frame in finished for frame in pending)

    def _next_done(self, pending: dict[int, None], ordered: bool) -> list[Array]:
        if ordered:
            frame = next(iter(pending))
        else:
            frame = self._client.wait_any(pending)
        outputs = self._client.wait(frame)
        del pending[frame]
        return outputs

    def use(self, decision: Strategy | ExecutionPlan, *, wait: bool = True) -> None:
        """Runs frames from now on by another decision, for the input shape that came last.

        Frames under way end under the plan that they began with. Peers keep what the latest few decisions
        need, so that going back to one costs nothing. After a loss, the policy decides for the peers that
        are left; when all are back, the decision is in use again.

        Args:
            decision: for all peers of the session.
            wait: until the peers are ready. Without, frames go on under the present plan until they are; the
                plan is not kept when another follows.

        Raises:
            StrategyError: it does not fit the model or the peers.
            PeerError: a peer cannot use it, or is lost.
        """
        with self._working():
            running = self._latest()
            line, model = running.line, running.model
            strategy = decision if isinstance(decision, Strategy) else decision.strategy
            deployment = None if not wait else running.parked.pop(strategy, None)
            if deployment is None or deployment.is_over:
                plan = decision
                if isinstance(plan, Strategy):
                    plan = compile_plan(model.graph, plan, self._client.names, model=model.weights_sha256)
                _check_graph(plan, model)
                if not wait:
                    self._client.replace(line, plan)
                    running.chosen[self._client.members] = plan
                    return
                deployment = self._client.deploy(line, plan)
            running.chosen[self._client.members] = deployment.plan
            self._client.use(deployment)
            running.parked[strategy] = deployment
            while len(running.parked) > PLANS_KEPT:
                self._client.leave(running.parked.popitem(last=False)[1])
            self._retire_idle()

    def adapt(self, reviewer: Callable[[Review], Strategy | None]) -> None:
        """Lets somebody look at what the plan in use takes, once a second, and change it.

        Args:
            reviewer: called in a thread that no frame waits for; returns another strategy for all peers of
                the session, or None. The strategy comes into use between frames, when all peers have
                prepared it. While peers are missing nobody is asked.
        """
        with self._working():
            self._reviewer = reviewer
            for running in self._lines.values():
                running.line.review = partial(_review, running, reviewer)

    @property
    def frame_times(self) -> list[FrameTimes]:
        """When each of the latest frames was submitted and delivered."""
        return list(self._client.times)

    @property
    def plan(self) -> ExecutionPlan:
        """The plan of the frame that came last, or of the one that is expected.

        Raises:
            InputError: no input shape is known yet.
        """
        running = self._latest()
        current = self._client.current(running.line)
        return running.latest if current is None else current.plan

    @property
    def model(self) -> Model:
        """The imported model, for the input shape that came last. Raises as `plan`."""
        return self._latest().model

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the peers that live."""
        return tuple(self._client.names[at] for at in sorted(self._client.members))

    @property
    def local_pids(self) -> tuple[int, ...]:
        """Process ids of the local peers, in order; none for those of a hosts file."""
        return () if self._resources.processes is None else self._resources.processes.pids

    @property
    def limited_by(self) -> str:
        """What makes local peers slower where shares of a core were asked for: `cpu quota`, or
        `duty cycle` where this process may set no quota."""
        return "" if self._resources.processes is None else self._resources.processes.limited_by

    def trace(self) -> list[Activity]:
        """What all peers and this process measured since the last call: parts, transfers and frames on one
        clock, in order of their beginning."""
        with self._working():
            collected = self._client.collect_traces()
            frames = [times for times in self._client.times if times.delivered_s > self._traced_s]
            self._traced_s = frames[-1].delivered_s if frames else self._traced_s
            plans = self._client.plans
        return merge(collected, frames, plans)

    def close(self) -> None:
        """Ends the session, and the local peers. May be called twice."""
        self._finalizer()

    def __enter__(self) -> InferenceSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ inside

    def _start_peers(self, local_peers: int | Sequence[float] | None, threads: int) -> LocalPeers:
        wanted = DEFAULT_PEERS if local_peers is None else local_peers
        count = wanted if isinstance(wanted, int) else len(wanted)
        if count < 1:
            raise InputError(f"local_peers is {wanted!r}; at least one peer is needed")
        shares = None if isinstance(wanted, int) else list(wanted)
        return LocalPeers(count, threads=threads, cpu_shares=shares, cache_dir=self._cache_dir)

    def _import(
        self, model: str | Path | bytes | Model, input_shapes: Mapping[str, tuple[int, ...]] | None
    ) -> Model | None:
        """Reads the model; returns it imported if all of its input shapes are known."""
        if isinstance(model, Model):
            known: Model | None = model
            self._source = model.source
        else:
            self._source = model if isinstance(model, bytes) else Path(model)
            infos = model_inputs(self._source)
            is_open = any(not isinstance(dim, int) for info in infos for dim in info.shape)
            try:
                known = load_model(self._source, input_shapes, cache_dir=self._cache_dir)
            except InputError:
                if input_shapes or not is_open:
                    raise
                known = None
            self._inputs = infos
        if known is None:
            # A shape will come with the first feed. Names and types are in the file already.
            self._outputs = declared_outputs(read_proto(self._source))
        else:
            self._inputs, self._outputs = known.input_infos, known.output_infos
        return known

    def _connect(self, timeout_s: float) -> Client:
        processes = self._resources.processes
        if processes is not None:
            return Client(processes.wait_ready(), timeout_s=timeout_s, processes=processes)
        assert self._cluster is not None
        for device in self._cluster.devices:
            if device.endpoint is None:
                where = self._cluster.path or self._cluster.name
                raise HostsError(f"{where}: {device.name} is simulated; add the address of a real device")
        own, keys = requester_keys(self._cluster)
        peers = [
            PeerAddress(device.name, str(device.endpoint), key)
            for device, key in zip(self._cluster.devices, keys, strict=True)
        ]
        return Client(peers, timeout_s=timeout_s, own=own)

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._lock:
            if self._stopping.is_set():
                raise DistrEdgeError("the session is closed")
            yield

    def _wanted(self, output_names: Sequence[str] | None) -> list[int] | None:
        if output_names is None:
            return None
        names = [info.name for info in self._outputs]
        for name in output_names:
            if name not in names:
                raise InputError(f"the model has no output {name!r}; its outputs are {', '.join(names)}")
        return [names.index(name) for name in output_names]

    def _latest(self) -> _Running:
        if not self._lines:
            raise InputError(
                "the model leaves its input shape open, and no frame came yet; give input_shapes"
            )
        return next(reversed(self._lines.values()))

    def _line(self, feed: Mapping[str, Array]) -> Line:
        shapes = shapes_of(feed)
        running = self._lines.get(shapes)
        if running is None:
            if shapes in self._imported:
                return self._deploy(*self._imported[shapes], shapes)
            model = load_model(self._source, dict(shapes), cache_dir=self._cache_dir)
            return self._deploy(model, self._given, shapes)
        self._lines.move_to_end(shapes)
        if self._leaving:
            self._retire_idle()
        return running.line

    def _deploy(self, model: Model, plan: ExecutionPlan | None, shapes: Shapes) -> Line:
        blobs = _blobs(model)
        # The importer has just written the file: peers that share the folder need not read it to be sure.
        BlobStore(model.weights.parent).vouch(model.weights_sha256)
        if plan is None:
            plan = self._decider.plan(self._client, model, blobs)
        else:
            _check_graph(plan, model)
            self._decider.expect(self._client.names, computed_macs(model.graph, plan.strategy))
        running = _Running(model, plan)
        find = partial(_find, self._decider, running) if self._recover else None
        whole = WholeFrames(model, self._threads) if self._alone else None
        running.line = self._client.line(blobs, find, whole)
        if self._reviewer is not None:
            running.line.review = partial(_review, running, self._reviewer)
        deployment = self._client.deploy(running.line, plan)
        running.chosen[self._client.members] = plan
        running.parked[plan.strategy] = deployment
        self._client.use(deployment)
        self._lines[shapes] = running
        self._imported[shapes] = model, plan
        while len(self._imported) > IMPORTS_KEPT:
            del self._imported[next(iter(self._imported))]
        while len(self._lines) > self._sizes_kept:
            self._leaving.append(self._lines.popitem(last=False)[1].line)
        self._retire_idle()
        return running.line

    def _retire_idle(self) -> None:
        """Retires the plans of sizes that no frame has any more, once the last ones are answered."""
        for line in [each for each in self._leaving if not each.state.frames]:
            self._leaving.remove(line)
            self._client.end(line)


@dataclass
class _Running:
    """One input size.

    Attributes:
        model: imported for it.
        latest: the plan that it began with.
        line: its plans.
        chosen: plans that were decided otherwise than by the policy, or already, by the peers they are for.
        parked: decisions that `use` was asked for, the latest last.
    """

    model: Model
    latest: ExecutionPlan
    line: Line = field(init=False)
    chosen: dict[Members, ExecutionPlan] = field(default_factory=dict)
    parked: OrderedDict[Strategy, Deployment] = field(default_factory=OrderedDict)


def _find(decider: Decider, running: _Running, members: Members) -> ExecutionPlan:
    """In a thread of its own: the plan for peers that are left."""
    chosen = running.chosen.get(members)
    if chosen is None:
        return decider.plan_for(running.model, members, STANDBY_BUDGET_S)
    return chosen


def _review(
    running: _Running, reviewer: Callable[[Review], Strategy | None], review: Review
) -> ExecutionPlan | None:
    """In a thread of its own: another plan for all peers, if there is a better one."""
    names = review.plan.devices
    if len(review.members) < len(names):
        return None
    strategy = reviewer(review)
    if strategy is None or strategy == review.plan.strategy:
        return None
    plan = compile_plan(running.model.graph, strategy, names, model=running.model.weights_sha256)
    running.chosen[review.members] = plan
    return plan


def _check_graph(plan: ExecutionPlan, model: Model) -> None:
    if plan.graph != model.graph.digest:
        raise StrategyError("the plan is for another model, or for another input shape")


def _blobs(model: Model) -> list[BlobSource]:
    return [
        BlobSource(model.weights_sha256, model.weights),
        BlobSource(model.graph.digest, model.onnx),
    ]


def connect(model: str | Path | bytes | Model, **settings: Any) -> InferenceSession:
    """A session on the peers that the environment names: the hosts file DISTREDGE_HOSTS, or as many local
    peers as DISTREDGE_PEERS says. The launcher sets them for the application that it starts.

    Args:
        model: as for InferenceSession.
        settings: of InferenceSession; `hosts` or `local_peers` go before the environment.

    Raises:
        HostsError: neither is set.
    """
    if "hosts" not in settings and "local_peers" not in settings:
        hosts, peers = os.environ.get(HOSTS_VARIABLE), os.environ.get(PEERS_VARIABLE)
        if hosts:
            settings["hosts"] = hosts
        elif peers and peers.isdecimal() and int(peers):
            settings["local_peers"] = int(peers)
        else:
            raise HostsError(
                f"set {HOSTS_VARIABLE} to a hosts file, or {PEERS_VARIABLE} to a number of peers"
            )
    return InferenceSession(model, **settings)
