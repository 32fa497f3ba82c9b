"""Shapes of every tensor: ONNX's inference first, and one run of onnxruntime for what it leaves open."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime

from distredge.graph.draft import Draft, attributes_of, set_attribute

_FUSED = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})
"""Operators that onnxruntime makes in ONNX's domain also for opsets that do not have them."""
_POOLS = ("AveragePool", "MaxPool", "LpPool")


def complete_shapes(draft: Draft) -> None:
    """Fill `draft.shapes`; what only a run can tell is marked in `draft.dynamic`.

    Raises:
        onnx.shape_inference.InferenceError: the shapes contradict one another.
    """
    _infer(draft)
    draft.dynamic = {value.name for value in draft.inputs if value.name in draft.kinds}
    wanted = _unknown(draft)
    if not wanted:
        return
    seen = _run_once(draft, wanted)
    # onnxruntime's own operators are unknown to ONNX's inference, but their shapes are as fixed as any.
    for node in draft.nodes:
        own = node.domain == "com.microsoft" or node.op_type in _FUSED
        own = own and any(name and name not in draft.shapes for name in node.output)
        if own and all(not n or n in draft.shapes for n in node.input):
            for name in node.output:
                if isinstance(seen.get(name), np.ndarray):
                    draft.known[name] = (seen[name].shape, seen[name].dtype.name)
        if own:
            _infer(draft)
    draft.dynamic.update(_unknown(draft))
    for name in draft.dynamic:
        value = seen.get(name)
        if isinstance(value, np.ndarray):
            draft.shapes[name], draft.dtypes[name] = value.shape, value.dtype.name
        else:
            draft.shapes[name] = ()
            draft.dtypes.setdefault(name, "object")


def _unknown(draft: Draft) -> list[str]:
    return [name for node in draft.nodes for name in node.output if name and name not in draft.shapes]


def _infer(draft: Draft) -> None:
    draft.infer()
    while _correct_dilated_pools(draft) or _correct_ceil_pools(draft):
        draft.infer()


def _correct_dilated_pools(draft: Draft) -> bool:
    """onnxruntime's auto_pad pads a dilated pool as if it were not dilated; ONNX's inference does not.

    Such pads are written down, so that both agree; negative ones cannot be, and the pool stays as it is.

    Returns:
        Whether a pool was corrected, so that its shape and what lies behind has to be inferred again.
    """
    for node in draft.nodes:
        attributes = attributes_of(node)
        auto, dilations = attributes.get("auto_pad"), attributes.get("dilations") or [1]
        if node.op_type not in _POOLS or auto not in ("SAME_UPPER", "SAME_LOWER") or set(dilations) == {1}:
            continue
        shape = draft.shapes.get(node.input[0])
        if shape is None or node.output[0] in draft.known:
            continue
        kernel = attributes["kernel_shape"]
        strides = attributes.get("strides") or [1] * len(kernel)
        totals = [
            (-(-size // stride) - 1) * stride + k - size
            for size, k, stride in zip(shape[2:], kernel, strides, strict=True)
        ]
        begins = [int((total + (auto == "SAME_LOWER")) / 2) for total in totals]  # rounds towards zero
        if min(totals) >= 0:
            set_attribute(node, "auto_pad", None)
            ends = [total - begin for total, begin in zip(totals, begins, strict=True)]
            set_attribute(node, "pads", [*begins, *ends])
            return True
        sizes = [
            (size + total - (k - 1) * dilation - 1) // stride + 1
            for size, total, k, dilation, stride in zip(
                shape[2:], totals, kernel, dilations, strides, strict=True
            )
        ]
        for name in filter(None, node.output):
            draft.known[name] = ((*shape[:2], *sizes), draft.dtypes[name])
        return True
    return False


def _correct_ceil_pools(draft: Draft) -> bool:
    """onnxruntime leaves out a last window that starts in the padding; ONNX's inference counts it.

    Returns:
        Whether a pool's shape was corrected, so that what lies behind has to be inferred again.
    """
    for node in draft.nodes:
        if node.op_type not in _POOLS or node.output[0] in draft.known:
            continue
        shape, out = draft.shapes.get(node.input[0]), draft.shapes.get(node.output[0])
        attributes = attributes_of(node)
        if not attributes.get("ceil_mode") or attributes.get("auto_pad", "NOTSET") not in ("", "NOTSET"):
            continue
        if shape is None or out is None:
            continue
        rank = len(shape) - 2
        strides = attributes.get("strides") or [1] * rank
        pads = attributes.get("pads") or [0] * (2 * rank)
        sizes = tuple(
            n - 1 if (n - 1) * stride >= size + begin else n
            for n, stride, size, begin in zip(out[2:], strides, shape[2:], pads[:rank], strict=True)
        )
        if sizes != out[2:]:
            draft.known[node.output[0]] = ((*out[:2], *sizes), draft.dtypes[node.output[0]])
            return True
    return False


def _run_once(draft: Draft, wanted: list[str]) -> dict[str, Any]:
    """What these tensors are for a random input; nothing where the model does not run on one, as one does
    not that takes sizes or axes as inputs."""
    if draft.kinds.keys() & {value.name for value in draft.inputs}:
        return {}
    model = draft.to_model(values=False)
    for tensor in model.graph.initializer:
        if tensor.name in draft.contents:
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = draft.contents[tensor.name]
    listed = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in listed)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        generator = np.random.default_rng(0)
        feeds = {}
        for value in draft.inputs:
            dtype, shape = draft.dtypes[value.name], draft.shapes[value.name]
            sample = generator.random(shape)
            feeds[value.name] = (
                sample.astype(dtype) if dtype != "object" else np.full(shape, "", dtype=object)
            )
        return dict(zip(wanted, session.run(wanted, feeds), strict=True))
    except Exception:  # onnxruntime's own errors share no public base
        return {}
