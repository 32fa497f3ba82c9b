"""InstanceNormalization and its kin as means and products, so that their statistics split as reductions."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from onnx import NodeProto, helper

from distredge.graph.axes import BROADCASTING_OPSET
from distredge.graph.draft import Draft, attributes_of
from distredge.graph.model import Shape
from distredge.graph.rewrite import reduce_node


def expand_normalisations(draft: Draft, axes: Mapping[str, int]) -> bool:
    """Expand every normalisation that takes statistics over rows; whether there was any.

    Args:
        axes: the row axis of each rowed tensor.
    """
    if draft.opset < BROADCASTING_OPSET:
        return False
    grouped = _grouped_instances(draft, axes)
    nodes: list[NodeProto] = []
    changed = False
    for node in draft.nodes:
        if node.output[0] in grouped:
            made: list[NodeProto] | None = grouped[node.output[0]]
        elif node.domain not in ("", "ai.onnx") or not node.input or node.input[0] not in axes:
            made = None
        else:
            made = _expanded(draft, node, axes[node.input[0]])
        changed = changed or made is not None
        nodes.extend([node] if made is None else made)
    draft.nodes = nodes
    return changed


def _expanded(draft: Draft, node: NodeProto, row: int) -> list[NodeProto] | None:
    """The nodes that stand for one normalisation, or None where it is none or leaves rows alone."""
    x, shape = node.input[0], draft.shapes[node.input[0]]
    attributes, rank = attributes_of(node), len(shape)
    if draft.dtypes[x] not in ("float32", "float64") or any(name for name in node.output[1:]):
        return None
    work = _Work(draft, node.name)
    if node.op_type == "InstanceNormalization" and row >= 2:
        epsilon = attributes.get("epsilon", 1e-5)
        scale, bias = (work.as_columns(name, rank - 2) for name in node.input[1:3])
        work.normalise(x, tuple(range(2, rank)), epsilon, scale, bias, node.output[0])
        return work.nodes
    if node.op_type == "LayerNormalization":
        first = int(attributes.get("axis", -1)) % rank
        if first > row:
            return None
        bias = node.input[2] if len(node.input) > 2 else ""
        epsilon = attributes.get("epsilon", 1e-5)
        work.normalise(x, tuple(range(first, rank)), epsilon, node.input[1], bias, node.output[0])
        return work.nodes
    if node.op_type == "MeanVarianceNormalization":
        over = tuple(int(axis) % rank for axis in attributes.get("axes") or (0, 2, 3))
        if row not in over:
            return None
        work.normalise(x, over, 0.0, "", "", node.output[0], added=1e-9)
        return work.nodes
    return None


def _grouped_instances(draft: Draft, axes: Mapping[str, int]) -> dict[str, list[NodeProto]]:
    """GroupNorm as exporters write it: Reshape to [N, G, -1], InstanceNormalization, Reshape back.

    The first Reshape mixes channels and rows. One to [N, G, C/G, H, W] keeps the rows apart.
    """
    producers, consumers = draft.producers(), draft.consumers()
    replaced: dict[str, list[NodeProto]] = {}
    for node in draft.nodes:
        if node.op_type != "InstanceNormalization" or len(draft.shapes[node.input[0]]) != 3:
            continue
        before, behind = producers.get(node.input[0]), consumers.get(node.output[0], [])
        if (
            before is None
            or before.op_type != "Reshape"
            or len(behind) != 1
            or behind[0].op_type != "Reshape"
        ):
            continue
        x = before.input[0]
        shape, flat = draft.shapes[x], draft.shapes[node.input[0]]
        if axes.get(x, 0) < 2 or draft.shapes[behind[0].output[0]] != shape or draft.dtypes[x] != "float32":
            continue
        if len(consumers[node.input[0]]) != 1 or flat[0] != shape[0] or shape[1] % flat[1]:
            continue
        work = _Work(draft, node.name)
        inside = (shape[0], flat[1], shape[1] // flat[1], *shape[2:])
        if prod(inside) != prod(flat):
            continue
        split = work.emit("Reshape", [x, work.shape(inside)])
        draft.shapes[split] = inside
        scale, bias = (work.as_columns(name, len(inside) - 2) for name in node.input[1:3])
        over = tuple(range(2, len(inside)))
        normed = work.normalise(split, over, attributes_of(node).get("epsilon", 1e-5), scale, bias, "")
        work.emit("Reshape", [normed, work.shape(shape)], behind[0].output[0])
        replaced |= {before.output[0]: [], node.output[0]: [], behind[0].output[0]: work.nodes}
    return replaced


class _Work:
    """Nodes that take the place of one node."""

    def __init__(self, draft: Draft, name: str) -> None:
        self.draft, self.name = draft, name
        self.nodes: list[NodeProto] = []

    def emit(self, op_type: str, inputs: list[str], output: str = "") -> str:
        output = output or self.draft.fresh(self.name)
        self.nodes.append(
            helper.make_node(op_type, inputs, [output], self.draft.fresh(f"{self.name}/{op_type}"))
        )
        return output

    def shape(self, shape: Shape) -> str:
        return self.draft.add_constant(np.array(shape, dtype=np.int64), f"{self.name}/shape")

    def as_columns(self, name: str, behind: int) -> str:
        """A vector of one value per channel, with axes of size one behind."""
        size = self.draft.shapes[name][0]
        value = self.draft.constant(name)
        if value is not None:
            return self.draft.add_constant(value.reshape(size, *(1,) * behind), name)
        made = self.emit("Reshape", [name, self.shape((size, *(1,) * behind))])
        self.draft.shapes[made] = (size, *(1,) * behind)
        return made

    def normalise(
        self,
        x: str,
        over: tuple[int, ...],
        epsilon: float,
        scale: str,
        bias: str,
        output: str,
        added: float = 0.0,
    ) -> str:
        """(x - mean) / sqrt(variance + epsilon) * scale + bias; what is not given is left out.

        The variance is that of the differences: the shorter E[x²] - E[x]² loses digits.
        """
        dtype = self.draft.dtypes.get(x) or "float32"
        mean = self._mean(x, over)
        difference = self.emit("Sub", [x, mean])
        variance = self._mean(self.emit("Mul", [difference, difference]), over)
        if epsilon:
            small = self.draft.add_constant(np.array(epsilon, dtype=dtype), f"{self.name}/epsilon")
            variance = self.emit("Add", [variance, small])
        deviation = self.emit("Sqrt", [variance])
        if added:
            tiny = self.draft.add_constant(np.array(added, dtype=dtype), f"{self.name}/epsilon")
            deviation = self.emit("Add", [deviation, tiny])
        factor = self.emit("Reciprocal", [deviation])
        if scale and self.draft.shapes[scale][1:] == (1,) * (len(self.draft.shapes[scale]) - 1):
            # One value per channel: multiplied into the factor, that is one pass less over the map.
            factor, scale = self.emit("Mul", [factor, scale]), ""
        result = self.emit("Mul", [difference, factor], "" if scale or bias else output)
        if scale:
            result = self.emit("Mul", [result, scale], "" if bias else output)
        return self.emit("Add", [result, bias], output) if bias else result

    def _mean(self, x: str, over: tuple[int, ...]) -> str:
        output = self.draft.fresh(f"{self.name}/mean")
        node = reduce_node(
            self.draft, "ReduceMean", x, output, over, self.draft.fresh(f"{self.name}/ReduceMean")
        )
        self.nodes.append(node)
        return output
