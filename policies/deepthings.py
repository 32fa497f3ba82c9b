"""`deepthings`: early layers fused and split evenly, the rest on a gateway (Zhao et al., TCAD 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from distredge.errors import PolicyError
from distredge.graph.model import Graph
from distredge.plan.crossing import crossing
from distredge.plan.policy import PlanningProblem
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from policies.cuts import layer_cuts, with_head_cut
from policies.memory import fitted
from policies.parts import all_on, best_of


@dataclass(frozen=True)
class DeepThings:
    """Fused tile partitioning, restricted to rows.

    Equal parts, `ceil`, and the last takes the remainder, as in its public code. Where the definition leaves
    room: the depth of the fused volume is a parameter, in layers [O: by default to where pooling has
    reduced the height 8-fold, at the first place there that fewest tensors cross]; the gateway is the
    device that answers soonest, not a fixed one. Its work stealing answers to load from elsewhere, which
    the simulator does not have.

    Attributes:
        depth: layers in the fused volume; None for the default.
    """

    name: str = "deepthings"
    depth: int | None = None

    def find_strategy(self, problem: PlanningProblem) -> Strategy:
        """Two volumes; the second, and the tail, on the gateway.

        Raises:
            PolicyError: the model does not fit into memory.
        """
        graph, devices = problem.graph, len(problem.devices)
        cut = _fused_end(graph, self.depth)
        scheme = PartitionScheme(with_head_cut(graph, (cut,) if cut else ()))
        first, *rest = find_volumes(graph, scheme)
        even = even_split(first.rows, devices)
        candidates, problems = [], []
        for gateway in range(devices):
            splits = [even, *(all_on(volume.rows, gateway, devices) for volume in rest)]
            try:
                candidates.append(fitted(problem, Strategy(scheme, tuple(splits), gateway)))
            except PolicyError as error:
                problems.append(error)
        if not candidates:
            raise problems[0]
        return best_of(problem, candidates)


def even_split(rows: int, devices: int) -> SplitDecision:
    """Equal parts, rounded up; the last ones take what is left."""
    part = -(-rows // devices)
    return SplitDecision((0, *(min(rows, end) for end in accumulate([part] * devices))))


def _fused_end(graph: Graph, depth: int | None) -> str | None:
    cuts = layer_cuts(graph)
    if not cuts:
        return None
    if depth is not None:
        return cuts[min(max(depth, 1), len(cuts)) - 1]
    height = max(graph.tensors[name].rows for name in graph.inputs)
    low = [cut for cut in cuts if graph.tensors[cut].rows * 8 <= height + 7]
    if not low:
        return cuts[-1]
    across = crossing(graph)
    level = [cut for cut in low if graph.tensors[cut].rows == graph.tensors[low[0]].rows]
    return min(level, key=lambda cut: across[cut][0])
