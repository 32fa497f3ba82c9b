"""What one session computes: some nodes of the graph, cut to some rows."""

from __future__ import annotations

from dataclasses import dataclass

from distredge.graph.rows import Crop, Edit


@dataclass(frozen=True, slots=True)
class NodePart:
    """One node of a part: what is cropped from its inputs and what is edited in it."""

    source: str
    form: str
    crops: tuple[Crop | None, ...]
    edit: Edit | None


@dataclass(frozen=True, slots=True)
class PartSpec:
    """What one session computes, free of row counts: many split decisions share one part.

    Attributes:
        nodes: in topological order.
        inputs: tensors fed, each holding exactly the rows that the task names.
        outputs: tensors fetched, each holding exactly the rows that the task names.
    """

    nodes: tuple[NodePart, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
