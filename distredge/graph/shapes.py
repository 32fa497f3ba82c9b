"""Shapes of every tensor: ONNX's inference first, and one run of onnxruntime for what it leaves open."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime

from distredge.errors import ModelError
from distredge.graph.draft import Draft
from distredge.graph.simplify import first_line

_DATA_DEPENDENT = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress", "StringSplit"})


def complete_shapes(draft: Draft) -> None:
    """Fill `draft.shapes`; what only a run can tell is marked in `draft.dynamic`.

    Raises:
        ModelError: the model does not run.
    """
    draft.infer()
    wanted = [n for node in draft.nodes for n in node.output if n and n not in draft.shapes]
    draft.dynamic = set()
    if not wanted:
        return
    draft.dynamic.update(wanted)
    for name, value in _run_once(draft, wanted).items():
        if isinstance(value, np.ndarray):
            draft.shapes[name] = value.shape
            draft.dtypes[name] = value.dtype.name
        else:
            draft.shapes[name] = ()
            draft.dtypes[name] = "object"


def _run_once(draft: Draft, wanted: list[str]) -> dict[str, Any]:
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
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        generator = np.random.default_rng(0)
        feeds = {}
        for value in draft.inputs:
            dtype, shape = draft.dtypes[value.name], draft.shapes[value.name]
            sample = generator.random(shape)
            feeds[value.name] = sample.astype(dtype) if dtype != "object" else np.full(shape, "", dtype=object)
        return dict(zip(wanted, session.run(wanted, feeds), strict=True))
    except Exception as error:
        raise ModelError(f"the model does not run: {first_line(error)}") from error
