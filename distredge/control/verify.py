"""Proves exactness: random strategies, executed as peers would, against the whole model in onnxruntime."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import cycle, repeat
from math import isfinite
from typing import Any

import numpy as np

from distredge.errors import InputError, VerifyError
from distredge.graph.exact import with_exact_sums
from distredge.graph.importer import Model
from distredge.graph.model import Graph
from distredge.graph.operators import RANDOM
from distredge.plan.compile import compile_plan
from distredge.plan.draw import random_strategy
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.strategy import Strategy
from distredge.plan.wire import EXACT
from distredge.runtime.engine import Array, PartSessions, whole_session
from distredge.runtime.inprocess import InProcessCluster
from distredge.runtime.reference import (
    WIRE_TOLERANCE,
    Difference,
    WholeModel,
    difference,
    random_feed,
    top_classes,
)

TOLERANCE = 5e-6
"""Of each output's largest magnitude: cutting the depth changes which operators onnxruntime fuses."""
REDUCTION_TOLERANCE = 3e-5
"""Where a sum over rows is added up in another order."""
HALF_TOLERANCE = {"float16": 2**-9, "bfloat16": 2**-6}
"""Two rounding steps, where a model computes in such floats: kernels round each in their own order."""
STEP_TOLERANCE = 2**-13
"""Where values are rounded to 16 bits: the last bit of a float decides now and then which step is nearest.
With 8 bits that would be seen, but is too rare to be met."""
SIGMOID_STEP = 2**-22
"""onnxruntime computes Sigmoid as a half plus something: it is off by bits of a half, however small it is."""
FAINT = SIGMOID_STEP / REDUCTION_TOLERANCE
REFERENCE_LIMIT = 1e-3
"""How far exact sums may move the whole model's answer; more is no rounding, but a fault of the import."""
SUM_ERROR = 5e-7
"""Of a sum: so far may the parts' be off, which tests hold them to."""
MOVED_LIMIT = 3e-3
"""How far an answer may be off because such errors move it: where they move it further, a fault would look
like rounding."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome over all strategies.

    Attributes:
        split_share: multiply-accumulates in nodes whose rows can be cut, over all.
        volumes: layer-volumes of all strategies together.
        transfers: messages of rows, likewise.
        zero_row_parts: parts without rows, likewise.
        reductions: reductions over rows in the model that are split.
        reduction_bytes: the most bytes of partial results that one device sent for one frame.
        reduction_bytes_total: the same over all devices.
        deepest: most volumes that one strategy had.
        max_abs_error, max_rel_error: against the whole model in onnxruntime.
        reference_rel_error: how far onnxruntime's own answer moves when it adds up the reductions over
            rows in double precision. Only looked at, and only then above zero, where max_rel_error
            is over the tolerance: parts add up more exactly than the whole does.
        ok: every output of every strategy is within tolerance of the whole model; where the whole's own
            sums are off by more than that, of the whole model with exact sums.
        wrong: the first strategy and output that are not; empty if all is well.
        wire: how rows were coded; what was packed losslessly was unpacked again and held against it.
        top1: of outputs that are class vectors, how many name the whole model's class first; None without.
    """

    model: str
    strategies: int
    peers: int
    split_share: float
    volumes: int
    transfers: int
    zero_row_parts: int
    reductions: int
    reduction_bytes: int
    reduction_bytes_total: int
    deepest: int
    max_abs_error: float
    max_rel_error: float
    reference_rel_error: float
    tolerance: float
    ok: bool
    wrong: str
    wire: str = EXACT
    top1: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for an error that is no number (shapes, types or NaNs disagree)."""
        return {
            key: None if isinstance(value, float) and not isfinite(value) else value
            for key, value in asdict(self).items()
        }


def verify(
    model: Model,
    *,
    peers: int = 3,
    strategies: int = 20,
    seed: int = 0,
    wire: str = EXACT,
    feeds: Sequence[Mapping[str, Array]] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> Verification:
    """Executes random strategies in-process and compares every output with the whole model.

    Args:
        model: the imported model.
        peers: devices that each strategy is for.
        strategies: how many; at least half have three or more volumes where the model has two cuts.
        seed: of inputs, strategies and the order of events.
        wire: how rows may be coded. Rounded ones are held to `WIRE_TOLERANCE`.
        feeds: inputs of one's own; none: two random ones.
        progress: called with the number of strategies done.

    Raises:
        ModelError: the whole model does not run on random input.
        InputError: the model draws at random, so that it never answers twice alike.
        VerifyError: a strategy cannot be executed to its end.
    """
    rng = random.Random(seed)
    graph = model.graph
    if drawn := next((node for node in graph.nodes if node.op_type in RANDOM), None):
        raise InputError(f"{drawn.name} ({drawn.op_type}) draws at random: there is nothing to compare with")
    tensors = {name: graph.tensors[name] for name in graph.inputs}
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    own = list(feeds)
    feeds = own or [random_feed(shapes, seed + at) for at in range(2)]
    whole = WholeModel(model.source)
    expected = [whole.run(feed) for feed in feeds]
    for at, outputs in enumerate(expected):
        if not own and any(_is_faint(output) for output in outputs):
            feeds[at] = random_feed(shapes, seed + at, strokes=True)
            expected[at] = whole.run(feeds[at])
    del whole
    exact = ExactReference(model, feeds)
    sessions = PartSessions(model.onnx, model.weights.parent)
    partials = {name for name, tensor in graph.tensors.items() if tensor.partial_of is not None}
    names = [f"peer{at}" for at in range(peers)]
    counts: Counter[str] = Counter()
    worst, most, most_total, wrong = Difference(0.0, 0.0), 0, 0, ""
    answers: list[list[Array]]
    least = widest = max(tolerance_of(graph), WIRE_TOLERANCE.get(wire, 0.0))
    agree = classes = 0
    for done in range(strategies):
        lanes = 1 + done % 3
        strategy = random_strategy(graph, peers, _cuts(graph, done, rng), rng, most_lanes=lanes)
        frames = len(feeds) if own or done % 4 == 0 else 1
        try:
            plan = compile_plan(graph, strategy, names, model=model.weights_sha256, wire=wire)
            plan.validate()
            answers = InProcessCluster(plan, sessions, rng).run(feeds[:frames])
        except Exception as error:  # onnxruntime's own errors share no public base
            raise VerifyError(
                f"strategy {done + 1} of seed {seed} fails: {error}", strategy=strategy, seed=seed
            ) from error
        sent = reduction_bytes(plan, partials)
        # Parts add up line by line, also where one device has all the rows.
        reduces = any(node.form == "partial" for part in plan.parts.values() for node in part.nodes)
        tolerance = max(least, REDUCTION_TOLERANCE) if reduces else least
        widest = max(widest, tolerance)
        for at, (got, want) in enumerate(zip(answers, expected, strict=False)):
            worst = worst.worse(difference(got, want))
            agree, classes = (a + b for a, b in zip((agree, classes), top_classes(got, want), strict=True))
            allowed = _allowed(graph, want, tolerance)
            excused = _is_within(got, want, allowed) or (reduces and exact.excuses(at, got, want, allowed))
            if not (excused or wrong):
                wrong = f"strategy {done + 1} of seed {seed}, output {_worst_output(graph, got, want)}"
        sessions.keep_only(set(plan.parts))
        _count(counts, plan, strategy)
        most, most_total = max(most, *sent.values(), 0), max(most_total, sum(sent.values()))
        progress(done + 1)
    return Verification(
        model=graph.name,
        strategies=strategies,
        peers=peers,
        split_share=round(graph.split_share, 6),
        volumes=counts["volumes"],
        transfers=counts["transfers"],
        zero_row_parts=counts["zero_row_parts"],
        reductions=sum(node.form == "partial" for node in graph.nodes),
        reduction_bytes=most,
        reduction_bytes_total=most_total,
        deepest=counts["deepest"],
        max_abs_error=worst.absolute,
        max_rel_error=worst.relative,
        reference_rel_error=exact.error(expected),
        tolerance=widest,
        ok=not wrong,
        wrong=wrong,
        wire=wire,
        top1=agree / classes if classes else None,
    )


def tolerance_of(graph: Graph) -> float:
    """What a split answer may differ by, relatively, where no reduction is split."""
    halves = [HALF_TOLERANCE.get(tensor.dtype, TOLERANCE) for tensor in graph.tensors.values()]
    rounded = (graph.tensors[n.outputs[0]].dtype for n in graph.nodes if n.op_type.endswith("QuantizeLinear"))
    return max(*halves, STEP_TOLERANCE if {"int16", "uint16"}.intersection(rounded) else 0.0)


def _allowed(graph: Graph, want: Sequence[Array], tolerance: float) -> list[float]:
    """What each output may differ by, relatively: more where a Sigmoid answers with almost nothing."""
    return [
        max(tolerance, SIGMOID_STEP / float(np.abs(array).max()))
        if _is_faint_sigmoid(graph, name, array)
        else tolerance
        for name, array in zip(graph.outputs, want, strict=True)
    ]


def _is_faint_sigmoid(graph: Graph, name: str, output: Array) -> bool:
    producer = graph.producer.get(name)
    return producer is not None and graph.nodes[producer].op_type == "Sigmoid" and _is_faint(output)


def _is_within(got: Sequence[Array], want: Sequence[Array], allowed: Sequence[float]) -> bool:
    pairs = zip(got, want, allowed, strict=True)
    return all(difference([one], [other]).relative <= tolerance for one, other, tolerance in pairs)


class ExactReference:
    """The whole model with its reductions over rows added up in double precision; run when asked for."""

    def __init__(self, model: Model, feeds: Sequence[Mapping[str, Array]]) -> None:
        self._model = model
        self._feeds = feeds

    def _run(self, errors: Iterable[float]) -> list[list[Array]]:
        """The outputs for each feed, with each sum off by so much of itself."""
        model = self._model
        sums = dict.fromkeys(node.source for node in model.graph.nodes if node.form == "partial")
        factors = {name: 1 + error for name, error in zip(sums, errors, strict=False)}
        session = whole_session(with_exact_sums(model.onnx, factors), model.weights.parent)
        return [session.run(None, dict(feed)) for feed in self._feeds]

    @cached_property
    def outputs(self) -> list[list[Array]]:
        """The outputs for each feed."""
        return self._run(repeat(0.0))

    @cached_property
    def moved(self) -> list[list[float]]:
        """How far each output for each feed moves, relatively, when every sum is off by SUM_ERROR: all to
        one side, and by turns to both."""
        aside, apart = self._run(repeat(SUM_ERROR)), self._run(cycle((SUM_ERROR, -SUM_ERROR)))
        return [
            [difference([a, b], [exact, exact]).relative for exact, a, b in zip(*outputs, strict=True)]
            for outputs in zip(self.outputs, aside, apart, strict=True)
        ]

    def excuses(self, at: int, got: Sequence[Array], want: Sequence[Array], allowed: Sequence[float]) -> bool:
        """Whether an answer to feed `at` is right though it is not what plain onnxruntime answers."""
        exact = self.outputs[at]

        def is_right(allowed: Sequence[float], limits: Sequence[float]) -> bool:
            return _is_within(exact, want, limits) and _is_within(got, exact, allowed)

        limits = [max(REFERENCE_LIMIT, each) for each in allowed]
        if is_right(allowed, limits):
            return True
        moved = [min(each, MOVED_LIMIT) for each in self.moved[at]]
        times = REFERENCE_LIMIT / REDUCTION_TOLERANCE
        return is_right(
            [a + b for a, b in zip(allowed, moved, strict=True)],
            [max(a, times * b) for a, b in zip(limits, moved, strict=True)],
        )

    def error(self, expected: Sequence[Sequence[Array]]) -> float:
        """How far plain onnxruntime is from it; 0 if nobody had to ask."""
        if "outputs" not in self.__dict__:
            return 0.0
        return max(difference(e, o).relative for e, o in zip(expected, self.outputs, strict=True))


def _worst_output(graph: Graph, got: Sequence[Array], want: Sequence[Array]) -> str:
    return max(
        zip(graph.outputs, got, want, strict=True), key=lambda row: difference(row[1:2], row[2:]).relative
    )[0]


def _is_faint(output: Array) -> bool:
    """Whether an output is so small throughout that the tolerance is below the last bit of a number near
    one, where functions like Sigmoid round. Detectors answer so when they see nothing."""
    if not isinstance(output, np.ndarray) or output.dtype.kind != "f" or not output.size:
        return False
    return 0 < float(np.abs(output).max()) < FAINT


def reduction_bytes(plan: ExecutionPlan, partials: Collection[str]) -> dict[int, int]:
    """Bytes of partial results, which are in these tensors, that each device sends for one frame."""
    sent = dict.fromkeys(range(len(plan.devices)), 0)
    for transfer in plan.transfers:
        if transfer.source != REQUESTER and transfer.tensor in partials:
            sent[transfer.source] += plan.transfer_bytes(transfer)
    return sent


def _cuts(graph: Graph, at: int, rng: random.Random) -> int:
    """Every other strategy has few cuts; the rest at least two, up to a quarter of all places."""
    if at % 2:
        return rng.randint(0, 1)
    return rng.randint(2, max(2, min(12, len(graph.cut_points) // 4)))


def _count(counts: Counter[str], plan: ExecutionPlan, strategy: Strategy) -> None:
    counts["volumes"] += strategy.scheme.volumes
    counts["deepest"] = max(counts["deepest"], strategy.scheme.volumes)
    counts["transfers"] += len(plan.transfers)
    for split in strategy.splits:
        counts["zero_row_parts"] += sum(not split.part(at) for at in range(split.parts))
