"""`InferenceSession`: a model on several peers, used as onnxruntime's class of that name."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any

from distredge.cluster.hosts import Cluster, load_hosts
from distredge.cluster.network import Network
from distredge.errors import HostsError, InputError
from distredge.graph.importer import InputInfo, Model, load_model, model_inputs, model_source
from distredge.graph.outputs import described_outputs
from distredge.graph.simplify import declared_outputs, read_proto
from distredge.plan.execution import ExecutionPlan
from distredge.plan.objective import Objective
from distredge.plan.options import PlanningOptions
from distredge.plan.policy import Policy, check_objective, get_policy
from distredge.plan.strategy import Strategy
from distredge.plan.wire import EXACT, check_wire
from distredge.runtime.arguments import check_arguments
from distredge.runtime.client import Client
from distredge.runtime.decide import Decider
from distredge.runtime.deployment import PeerAddress
from distredge.runtime.engine import Array
from distredge.runtime.feeds import NodeArg, check_feed, shapes_of_model
from distredge.runtime.keys import requester_keys
from distredge.runtime.launcher import LocalPeers
from distredge.runtime.metadata import ModelMetadata
from distredge.runtime.resources import Resources
from distredge.runtime.sizes import Reviewer, Sizes
from distredge.runtime.streaming import Stream
from distredge.runtime.trace import Activity, FrameTimes, merge
from distredge.runtime.viewing import Observer
from distredge.view.server import ViewServer
from distredge.view.snapshot import Snapshot
from distredge.view.watch import Watch

DEFAULT_PEERS = 2


class InferenceSession:
    """One model, split over peers.

    Local peers are processes that this object starts and ends. Several threads may call it at once: their
    frames are under way together. Use it as a context manager, or `close` it.

    Args:
        model: an ONNX file, its bytes, or an imported model.
        sess_options, providers, provider_options: taken as onnxruntime's class takes them, so that its
            callers need no change, and not used: the hosts file says what each peer computes with.
        local_peers: how many peers to start on this machine; or a list with the share of one core that
            each may use.
        hosts: a hosts file, or a cluster, whose peers are running.
        policy: who decides which rows each peer computes, by name or itself; None: `proportional`, or `auto`
            where the objective is of a stream.
        objective: what the plan shall be good at: `latency` of one frame, `throughput` of a stream, or
            `latency-at-rate=FPS`, the lowest latency that sustains so many images a second. For the last two
            whole frames may be dealt out to peers, or to groups of them; the policy must be `auto`,
            `replicate`, or another one that plans streams.
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
        wire: how rows may be coded on their way: `exact`, packed where that pays, bit for bit; `raw`, never
            packed; or, for fewer bytes, rounded to `fp16` or `int8`. See docs/wire.md. None: as the plan
            says; exact without one.
        sizes_kept: of how many input sizes the plans stay with the peers, those that came last. Going back to
            another size costs the making of its sessions, but it is neither imported nor decided again.
        progress: told what the peers prepare (the model's way to them, plans), how much is done, and how much
            there is.
        view: where to serve a page that shows what the session does, as `host:port`; port 0 for any. Whoever
            reaches that address may look. `distredge top` shows the same in a terminal.

    Attributes:
        dropped: images of live sources that there was no room for.
        wire: how rows may be coded.

    Raises:
        ModelError, InputError: the model, or what is said here, cannot be used.
        CacheError: weights cannot be kept.
        HostsError: the hosts file is wrong.
        KeysError: keys for encrypted connections are missing or unusable.
        PeerTimeoutError: a peer does not answer.
        PeerRefusedError: a peer does not accept our key, or is not the one whose key we know.
        PeerError: a peer cannot use the model.
        PolicyError: the policy is unknown, cannot decide here, or does not plan for the objective.
        PortInUseError: the view's address cannot be had.
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
        policy: str | Policy | None = None,
        objective: str = "latency",
        plan: str | Path | ExecutionPlan | None = None,
        threads: int = 1,
        input_shapes: Mapping[str, tuple[int, ...]] | None = None,
        timeout_s: float = 10.0,
        cache_dir: str | Path | None = None,
        seed: int = 0,
        budget_s: float = 2.0,
        recover: bool = True,
        alone: bool = False,
        wire: str | None = None,
        sizes_kept: int = 8,
        progress: Callable[[str, int, int], None] | None = None,
        view: str | None = None,
    ) -> None:
        del sess_options, providers, provider_options
        wanted = Objective.parse(objective)
        if policy is None:
            policy = wanted.policy
        check_arguments(model, local_peers, policy, plan, seed, budget_s)
        if local_peers is not None and hosts is not None:
            raise InputError("give local_peers or hosts, not both")
        self._cluster = load_hosts(hosts) if isinstance(hosts, str | Path) else hosts
        self._given = ExecutionPlan.load(plan) if isinstance(plan, str | Path) else plan
        self.wire = _wire_of(wire, self._given)
        options = PlanningOptions(seed, budget_s, wire=self.wire, objective=wanted)
        self._cache_dir = None if cache_dir is None else Path(cache_dir)
        self._resources = Resources()
        self._traced_s = 0.0
        self._looks_ahead = True
        self.dropped = 0
        # Also at the end of the interpreter, and when nobody holds this object any more.
        self._finalizer = weakref.finalize(self, self._resources.release)
        try:
            if self._cluster is None:
                # They start while everything else is imported.
                self._resources.processes = self._start_peers(local_peers, threads)
            chosen = get_policy(policy) if isinstance(policy, str) else policy
            check_objective(chosen, wanted)
            known = self._import(model, input_shapes)
            self._watch = Watch(
                self._model_name, None if self._cluster is None else Network.of(self._cluster)
            )
            if view is not None:
                self._resources.view = ViewServer(view, self._watch.look)
            client = self._client = self._resources.client = self._connect(timeout_s)
            client.observer = Observer(self._watch)
            client.connect(progress)
            self._sizes = Sizes(
                client,
                Decider(chosen, self._cluster, options),
                self._source,
                self._given,
                cache_dir=self._cache_dir,
                recover=recover,
                alone_threads=threads if alone else None,
                kept=sizes_kept,
            )
            if known is not None:
                self._sizes.deploy(known, self._given, shapes_of_model(known))
            client.recovers = recover
            self._resources.keep_alive()
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------ what onnxruntime's class has

    def get_inputs(self) -> list[NodeArg]:
        """The model's inputs: objects with `name`, `type` and `shape`."""
        return [NodeArg.of(info) for info in self._inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The model's outputs, likewise; shapes that the file leaves out are inferred."""
        return [NodeArg.of(info) for info in self._described_outputs]

    @cached_property
    def _described_outputs(self) -> tuple[InputInfo, ...]:
        return described_outputs(self._source)

    def get_modelmeta(self) -> ModelMetadata:
        """What the model's file says of itself."""
        return ModelMetadata.of(self._source)

    def get_providers(self) -> list[str]:
        """One name, which stands for all that the peers compute with."""
        return ["DistrEdgeExecutionProvider"]

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[Array]:
        """Computes one frame.

        Args:
            output_names: which outputs, in which order; None or an empty list for all.
            input_feed: an array, or a list of numbers, for each input.
            run_options: taken as onnxruntime's class takes them, and not used.

        Raises:
            InputError: a name, shape or dtype is wrong.
            PeerLostError: no peer is left, and none comes back for a while. Without `recover`: one is lost,
                and the session is over.
            PeerError: a peer cannot compute this frame, and other frames go on; or it failed altogether,
                and the session is over.
        """
        del run_options
        wanted = self._wanted(output_names)
        feed = check_feed(self._inputs, input_feed)
        with self._resources.working() as client:
            frame = client.lines.submit(self._sizes.line(feed), feed)
        try:
            self._resources.wait_any([frame])
        except BaseException:
            self._resources.drop([frame])
            raise
        return _chosen(client.take(frame), wanted)

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
        check = partial(check_feed, self._inputs)
        stream = Stream(self._resources, self._sizes, check, in_flight, ordered)
        answers = stream.every(iter(images)) if drop is None else stream.newest(images, self._count_dropped())
        return (_chosen(outputs, wanted) for outputs in answers)

    def _count_dropped(self) -> Callable[[int], None]:
        before = self.dropped

        def tell(dropped: int) -> None:
            self.dropped = before + dropped

        return tell

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
        with self._resources.working():
            self._sizes.use(decision, wait=wait)

    def adapt(self, reviewer: Reviewer) -> None:
        """Lets somebody look at what the plan in use takes, once a second, and change it.

        Args:
            reviewer: called in a thread that no frame waits for; returns another strategy for all peers of
                the session, or None. The strategy comes into use between frames, when all peers have
                prepared it. While peers are missing nobody is asked.
        """
        with self._resources.working():
            self._sizes.adapt(reviewer)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """No plans for losses are made ahead of time meanwhile, so that what is measured is the plan in use.
        Those that there are, are given up; afterwards they are made anew."""
        before = self._looks_ahead
        self._look_ahead(False)
        try:
            yield
        finally:
            if before and not self._resources.is_closed:
                self._look_ahead(True)

    def _look_ahead(self, on: bool) -> None:
        with self._resources.working():
            self._looks_ahead = on
            self._sizes.look_ahead(on)

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
        return self._sizes.plan

    @property
    def model(self) -> Model:
        """The imported model, for the input shape that came last. Raises as `plan`."""
        return self._sizes.latest.model

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the peers that live."""
        return tuple(self._client.names[at] for at in sorted(self._client.members))

    @property
    def snapshot(self) -> Snapshot | None:
        """What the session does at the moment, as a live view shows it; None before it has looked."""
        return self._watch.latest

    @property
    def view_url(self) -> str:
        """Of the page that `view` asked for; empty without."""
        return "" if self._resources.view is None else self._resources.view.url

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
        with self._resources.working() as client:
            collected = client.collect_traces()
            frames = [times for times in client.times if times.delivered_s > self._traced_s]
            self._traced_s = frames[-1].delivered_s if frames else self._traced_s
            plans = client.plans
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
            self._source = model_source(model)
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

    @property
    def _model_name(self) -> str:
        return "model" if isinstance(self._source, bytes) else self._source.stem

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

    def _wanted(self, output_names: Sequence[str] | None) -> list[int] | None:
        if not output_names:
            return None
        names = [info.name for info in self._outputs]
        for name in output_names:
            if name not in names:
                raise InputError(f"the model has no output {name!r}; its outputs are {', '.join(names)}")
        return [names.index(name) for name in output_names]


def _wire_of(wire: str | None, plan: ExecutionPlan | None) -> str:
    """What is asked for, unless a plan says it. Raises InputError where the two do not agree."""
    if plan is None:
        return EXACT if wire is None else check_wire(wire)
    if wire is not None and check_wire(wire) != plan.wire:
        raise InputError(
            f"the plan was made for the wire {plan.wire}, not {wire}; leave it out, or make the plan anew"
        )
    return plan.wire


def _chosen(outputs: list[Array], wanted: list[int] | None) -> list[Array]:
    return outputs if wanted is None else [outputs[at] for at in wanted]
