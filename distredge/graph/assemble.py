"""A rewritten draft and its rowing become a Graph: nodes, tensors, cut points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx import NodeProto

from distredge.graph.axes import Rowing
from distredge.graph.draft import Draft, attributes_of, node_inputs
from distredge.graph.model import Graph, Node, Shape, Tensor
from distredge.graph.names import names_of, partials_mark
from distredge.graph.operation import Operation
from distredge.graph.rules import WholeRule
from distredge.graph.windows import macs


def operations_of(draft: Draft) -> tuple[list[Operation], list[int]]:
    """Every node as the row rules see it, and its multiply-accumulates."""
    producers, consumers = draft.producers(), draft.consumers()
    operations, work = [], []
    for node in draft.nodes:
        op = _operation(draft, node, producers, consumers)
        operations.append(op)
        transposed = bool(op.attributes.get("transA", 0))
        kind = "Conv" if op.op_type.endswith("FusedConv") else op.op_type
        work.append(macs(kind, op.shapes, op.out_shapes, transposed))
    return operations, work


def _operation(
    draft: Draft,
    node: NodeProto,
    producers: Mapping[str, NodeProto],
    consumers: Mapping[str, Sequence[NodeProto]],
) -> Operation:
    inputs = node_inputs(node)
    domain = "" if node.domain in ("", "ai.onnx") else node.domain
    before = producers.get(node.input[0]) if node.input else None
    behind = consumers.get(node.output[0], ()) if node.output else ()
    return Operation(
        op_type=f"{domain}::{node.op_type}" if domain else node.op_type,
        opset=draft.opset,
        attributes=attributes_of(node),
        inputs=inputs,
        outputs=tuple(node.output),
        shapes=tuple(draft.shapes.get(name) if name else None for name in inputs),
        out_shapes=tuple(draft.shapes.get(name, ()) for name in node.output),
        dtypes=tuple(draft.dtypes.get(name, "") for name in inputs),
        constants=tuple(draft.small_constant(name) for name in inputs),
        constant=tuple(name in draft.initializers for name in inputs),
        requantised=before is not None
        and before.op_type == "DequantizeLinear"
        and any(n.op_type == "QuantizeLinear" for n in behind),
    )


def assemble(draft: Draft, rowing: Rowing, name: str, digest: str) -> Graph:
    """Build the Graph. A ruling that reduces becomes a partial and a combine."""
    operations, work = operations_of(draft)
    mark = partials_mark(names_of(draft.nodes, draft.inputs))
    nodes: list[Node] = []
    tensors: dict[str, Tensor] = {}
    for value in draft.inputs:
        tensors[value.name] = _tensor(draft, rowing, value.name)
    for node, op, ruling, reason, cost in zip(
        draft.nodes, operations, rowing.rulings, rowing.reasons, work, strict=True
    ):
        for read in op.inputs:
            if read and read not in tensors:
                tensors[read] = _tensor(draft, rowing, read)
        made = op.outputs[0]
        if not ruling.reduces:
            nodes.append(
                Node(
                    node.name, node.name, op.op_type, op.inputs, op.outputs, ruling.rule, "node", cost, reason
                )
            )
            for out in op.outputs:
                if out:
                    tensors[out] = _tensor(draft, rowing, out)
            continue
        partials = f"{made}{mark}"
        kind = partials_dtype(draft.dtypes[made])
        tensors[partials] = Tensor(partials, (0, *draft.shapes[made]), kind, 0, partial_of=op.inputs[0])
        tensors[made] = _tensor(draft, rowing, made)
        nodes.append(
            Node(
                f"{node.name}.partial",
                node.name,
                op.op_type,
                op.inputs,
                (partials,),
                ruling.rule,
                "partial",
                cost,
            )
        )
        combine = WholeRule((None,), "combine")
        nodes.append(
            Node(f"{node.name}.combine", node.name, op.op_type, (partials,), (made,), combine, "combine")
        )
    graph = Graph(
        name=name,
        nodes=tuple(nodes),
        tensors=tensors,
        inputs=tuple(value.name for value in draft.inputs),
        outputs=tuple(value.name for value in draft.outputs),
        cut_points=(),
        digest=digest,
    )
    return replace(graph, cut_points=cut_points(graph))


def partials_dtype(dtype: str) -> str:
    """Sums of half floats are exchanged as single floats: they overflow and round too soon."""
    return "float32" if dtype == "float16" else dtype


def _tensor(draft: Draft, rowing: Rowing, name: str) -> Tensor:
    shape: Shape = draft.shapes.get(name, ())
    axis = rowing.axes.get(name)
    if axis is not None and shape[axis] <= 1:
        axis = None
    quantum = rowing.quanta.get(name, 1) if axis is not None else 1
    constant = name in draft.initializers
    dtype = draft.dtypes.get(name, "object")
    return Tensor(name, shape, dtype, axis, constant, quantum, dynamic=name in draft.dynamic)


def cut_points(graph: Graph) -> tuple[str, ...]:
    """Where the depth may be cut: behind every node that is not in the tail, unless a cut there would part
    a DequantizeLinear from its reader, a QuantizeLinear from what it rounds, or partials from their sum."""
    body = [i for i in range(len(graph.nodes)) if i not in graph.tail]
    place = {index: at for at, index in enumerate(body)}
    closed = [False] * max(0, len(body) - 1)
    for at, index in enumerate(body):
        node = graph.nodes[index]
        for out in node.outputs:
            readers = graph.consumers.get(out, ())
            tied = _is(node, "DequantizeLinear") or node.form == "partial"
            bound = readers if tied else [r for r in readers if _rounds(graph, r)]
            last = max((place.get(r, len(body)) for r in bound), default=at)
            for gap in range(at, min(last, len(closed))):
                closed[gap] = True
    named = (next(out for out in graph.nodes[i].outputs if out) for i in body[:-1])
    return tuple(name for name, shut in zip(named, closed, strict=True) if not shut)


def _rounds(graph: Graph, index: int) -> bool:
    """Whether a node is a QuantizeLinear, or an activation that is folded into one."""
    node = graph.nodes[index]
    if node.op_type in ("Relu", "Clip"):
        readers = graph.consumers.get(node.outputs[0], ())
        return any(_is(graph.nodes[r], "QuantizeLinear") for r in readers)
    return _is(node, "QuantizeLinear")


def _is(node: Node, op_type: str) -> bool:
    """Of ONNX's own operators or onnxruntime's, which has some of the same names for more types."""
    return node.op_type in (op_type, f"com.microsoft::{op_type}")
