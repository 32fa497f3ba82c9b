"""One model in all the input sizes that come: each is imported, decided and brought to the peers once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from distredge.errors import InputError, StrategyError
from distredge.graph.importer import Model, load_model
from distredge.plan.compile import compile_plan
from distredge.plan.execution import ExecutionPlan
from distredge.plan.strategy import Strategy
from distredge.protocol.events import Members
from distredge.runtime.alone import WholeFrames
from distredge.runtime.blobs import BlobSource, BlobStore
from distredge.runtime.client import Client
from distredge.runtime.decide import Decider
from distredge.runtime.deployment import Deployment, Line
from distredge.runtime.engine import Array
from distredge.runtime.feeds import Shapes, shapes_of
from distredge.runtime.measure import computed_macs
from distredge.runtime.tally import Review

Reviewer = Callable[[Review], Strategy | None]
STANDBY_BUDGET_S = 0.5
"""How long a policy may think about a loss that has not happened yet."""
PLANS_KEPT = 4
"""Decisions for one input size that were used last; the peers keep their sessions."""
IMPORTS_KEPT = 256
"""Input sizes whose imported graph and plan are kept here: some hundred kilobytes each."""


@dataclass
class Size:
    """One input size.

    Attributes:
        model: imported for it.
        first: the plan that it began with.
        line: its plans.
        chosen: plans that were decided otherwise than by the policy, or already, by the peers they are for.
        parked: decisions that `use` was asked for, with their wires, the latest last.
    """

    model: Model
    first: ExecutionPlan
    line: Line = field(init=False)
    chosen: dict[Members, ExecutionPlan] = field(default_factory=dict)
    parked: OrderedDict[tuple[Strategy, str], Deployment] = field(default_factory=OrderedDict)

    def compiled(self, decision: Strategy | ExecutionPlan, names: tuple[str, ...]) -> ExecutionPlan:
        """A decision as a plan for these peers. Raises StrategyError if it does not fit."""
        if isinstance(decision, Strategy):
            model, wire = self.model, self.first.wire
            return compile_plan(model.graph, decision, names, model=model.weights_sha256, wire=wire)
        graph = self.model.graph
        if decision.graph != graph.digest:
            raise StrategyError("the plan is for another model, or for another input shape")
        # Peers take rows that fit the plan, and we send what the model has: they must say the same.
        strategy, devices = decision.strategy, decision.devices
        if decision != compile_plan(graph, strategy, devices, model=decision.model, wire=decision.wire):
            raise StrategyError(
                "the plan is not what its strategy gives for this model: it was changed by hand, or another "
                "version made it; make it anew with `distredge plan`"
            )
        return decision


class Sizes:
    """The input sizes of a session.

    Args:
        client: connected.
        decider: asks the policy.
        source: the model, to import it in a size that comes.
        given: a plan in place of the policy's decision.
        cache_dir: where weights are kept.
        recover: whether plans are made for peers that are left.
        alone_threads: of the inference engine with which whole frames are computed in this process where no
            peer is left; None: they are not.
        kept: of how many sizes the plans stay with the peers.
    """

    def __init__(
        self,
        client: Client,
        decider: Decider,
        source: Path | bytes,
        given: ExecutionPlan | None,
        *,
        cache_dir: Path | None,
        recover: bool,
        alone_threads: int | None,
        kept: int,
    ) -> None:
        self._client, self._decider = client, decider
        self._source, self._given, self._cache_dir = source, given, cache_dir
        self._recover, self._alone_threads, self._kept = recover, alone_threads, max(1, kept)
        self._sizes: OrderedDict[Shapes, Size] = OrderedDict()
        self._imported: dict[Shapes, tuple[Model, ExecutionPlan]] = {}
        self._leaving: list[Line] = []
        self._reviewer: Reviewer | None = None

    @property
    def latest(self) -> Size:
        """The one that came last. Raises InputError if none did."""
        if not self._sizes:
            raise InputError(
                "the model leaves its input shape open, and no frame came yet; give input_shapes"
            )
        return next(reversed(self._sizes.values()))

    @property
    def plan(self) -> ExecutionPlan:
        """Of the latest size: the plan in use, or that it began with. Raises as `latest`."""
        return self._client.lines.current_plan(self.latest.line) or self.latest.first

    def line(self, feed: Mapping[str, Array]) -> Line:
        """The plans for a frame; a new size is imported and decided first.

        Raises:
            ModelError, InputError: the model does not take this size.
            PolicyError: the policy cannot decide.
            PeerError: a peer cannot use the plan, or is lost.
        """
        shapes = shapes_of(feed)
        size = self._sizes.get(shapes)
        if size is None:
            if shapes in self._imported:
                return self.deploy(*self._imported[shapes], shapes)
            model = load_model(self._source, dict(shapes), cache_dir=self._cache_dir)
            return self.deploy(model, self._given, shapes)
        self._sizes.move_to_end(shapes)
        self._retire_idle()
        return size.line

    def deploy(self, model: Model, plan: ExecutionPlan | None, shapes: Shapes) -> Line:
        """Brings a size to the peers; decides if there is no plan. Raises as `line`."""
        blobs = _blobs(model)
        # The importer has just written the file: peers that share the folder need not read it to be sure.
        BlobStore(model.weights.parent).vouch(model.weights_sha256)
        if plan is None:
            plan = self._decider.plan(self._client, model, blobs)
        size = Size(model, plan)
        size.compiled(plan, self._client.names)
        self._decider.expect(self._client.names, computed_macs(model.graph, plan.strategy))
        find = partial(_find, self._decider, size) if self._recover else None
        alone = None if self._alone_threads is None else WholeFrames(model, self._alone_threads)
        size.line = self._client.lines.add(blobs, find, alone)
        self._let_review(size)
        self._use(size, plan)
        self._sizes[shapes] = size
        self._imported[shapes] = model, plan
        while len(self._imported) > IMPORTS_KEPT:
            del self._imported[next(iter(self._imported))]
        while len(self._sizes) > self._kept:
            self._leaving.append(self._sizes.popitem(last=False)[1].line)
        self._retire_idle()
        return size.line

    def use(self, decision: Strategy | ExecutionPlan, *, wait: bool) -> None:
        """Another decision for the latest size; see `InferenceSession.use`."""
        size, lines, names = self.latest, self._client.lines, self._client.names
        checked = None if isinstance(decision, Strategy) else size.compiled(decision, names)
        strategy = decision if isinstance(decision, Strategy) else decision.strategy
        key = strategy, size.first.wire if checked is None else checked.wire
        parked = size.parked.get(key) if wait else None
        if parked is not None and not parked.is_over:
            size.chosen[self._client.members] = parked.plan
            size.parked.move_to_end(key)
            lines.use(parked)
            return
        plan = checked or size.compiled(decision, names)
        if wait:
            self._use(size, plan)
            self._retire_idle()
        else:
            lines.replace(size.line, plan)
            size.chosen[self._client.members] = plan

    def _use(self, size: Size, plan: ExecutionPlan) -> None:
        lines = self._client.lines
        deployment = self._client.deploy(size.line, plan)
        size.chosen[self._client.members] = plan
        lines.use(deployment)
        size.parked[plan.strategy, plan.wire] = deployment
        size.parked.move_to_end((plan.strategy, plan.wire))
        while len(size.parked) > PLANS_KEPT:
            lines.leave(size.parked.popitem(last=False)[1])

    def adapt(self, reviewer: Reviewer) -> None:
        """Who looks at what plans in use take; see `InferenceSession.adapt`."""
        self._reviewer = reviewer
        for size in self._sizes.values():
            self._let_review(size)

    def _let_review(self, size: Size) -> None:
        if self._reviewer is not None:
            size.line.review = partial(_review, size, self._reviewer)

    def look_ahead(self, on: bool) -> None:
        """Whether plans for losses are made ahead of time; those that there are, are given up."""
        for size in self._sizes.values():
            self._client.lines.look_ahead(size.line, on)

    def _retire_idle(self) -> None:
        """Retires the plans of sizes that no frame has any more, once the last ones are answered."""
        for line in [each for each in self._leaving if not each.state.frames]:
            self._leaving.remove(line)
            self._client.lines.end(line)


def _find(decider: Decider, size: Size, members: Members) -> ExecutionPlan:
    """In a thread of its own: the plan for peers that are left."""
    chosen = size.chosen.get(members)
    if chosen is None:
        return decider.plan_for(size.model, members, STANDBY_BUDGET_S)
    return chosen


def _review(size: Size, reviewer: Reviewer, review: Review) -> ExecutionPlan | None:
    """In a thread of its own: another plan for all peers, if there is a better one."""
    names = review.plan.devices
    if len(review.members) < len(names):
        return None
    strategy = reviewer(review)
    if strategy is None or strategy == review.strategy:
        return None
    plan = size.compiled(strategy, names)
    size.chosen[review.members] = plan
    return plan


def _blobs(model: Model) -> list[BlobSource]:
    return [
        BlobSource(model.weights_sha256, model.weights),
        BlobSource(model.graph.digest, model.onnx),
    ]
