"""Pictures as they come from a camera, whole numbers in 8 bits: normalising them becomes part of the model.

So it is done on the devices, row by row like everything else, and a quarter of the bytes travels.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from distredge.errors import InputError
from distredge.graph.simplify import declared_inputs, read_proto

LAYOUTS = ("nchw", "nhwc")
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
CHANNELS = (1, 3, 4)
OLDEST_OPSET = 7
"""Before it, a constant per channel is not broadcast."""


@dataclass(frozen=True)
class Preprocess:
    """What is done to a picture of bytes before the model sees it: (pixel - mean) / std.

    Attributes:
        mean, std: of pixels from 0 to 255; one number for all channels, or one for each.
        layout: of the pictures that come, `nchw` or `nhwc`; empty for that of the model.
        input: the model's input; empty if it has one only that takes pictures.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = ""
    input: str = ""

    def __post_init__(self) -> None:
        if not all(map(isfinite, (*self.mean, *self.std))) or 0 in self.std:
            raise InputError("preprocess: mean and std must be finite, and std not 0")
        if self.layout not in ("", *LAYOUTS):
            raise InputError(f"preprocess: layout is {self.layout!r}; it may be nchw or nhwc")


PRESETS = {
    "imagenet": Preprocess((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "unit": Preprocess(std=(255.0,)),
    "centred": Preprocess((127.5,), (127.5,)),
    "raw": Preprocess(),
}


def parse_preprocess(text: str) -> Preprocess:
    """Reads a preset's name, or `mean=123.7,116.3,103.5;std=58.4;layout=nhwc;input=x`, or both.

    Raises:
        InputError: it is neither.
    """
    first, _, rest = text.partition(";")
    values: dict[str, str] = {}
    known = PRESETS.get(first)
    for part in (rest if known else text).split(";"):
        key, equals, value = part.strip().partition("=")
        if not part.strip() and known:
            continue
        if not equals or key not in ("mean", "std", "layout", "input") or key in values:
            names = ", ".join(PRESETS)
            raise InputError(
                f"--preprocess {text}: {part!r} is not understood; give one of {names}, or for instance "
                "'mean=123.7,116.3,103.5;std=58.4,57.1,57.4;layout=nhwc'"
            )
        values[key] = value
    base = known or Preprocess()
    return Preprocess(
        _numbers(values["mean"], text) if "mean" in values else base.mean,
        _numbers(values["std"], text) if "std" in values else base.std,
        values.get("layout", base.layout),
        values.get("input", base.input),
    )


def _numbers(text: str, whole: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"--preprocess {whole}: {text!r} is no list of numbers") from None


def with_preprocessing(source: str | Path | bytes, how: Preprocess) -> bytes:
    """A model that takes bytes, in place of one that takes normalised floats.

    Args:
        source: path of an ONNX file, or its bytes.
        how: what is done to its input of shape (N, C, H, W) or (N, H, W, C), where C is 1, 3 or 4.

    Raises:
        ModelError: as `load_model`.
        InputError: it has no such input.
    """
    model = read_proto(source)
    picture = _picture_input(model, how)
    elem = picture.type.tensor_type
    last = _is_last(picture)
    dims = deepcopy(list(elem.shape.dim))
    channels = dims[3 if last else 1].dim_value
    if {len(how.mean), len(how.std)} - {1, channels}:
        raise InputError(f"preprocess: mean and std must have 1 or {channels} numbers, one for each channel")
    kind, name = elem.elem_type, picture.name
    nodes: list[NodeProto] = []
    top = name
    wanted_last = how.layout == "nhwc" if how.layout else last

    def add(op: str, *more: str, **attributes: Any) -> None:
        nonlocal top
        made = f"{name}/preprocessed/{len(nodes)}"
        nodes.append(helper.make_node(op, [top, *more], [made], made, **attributes))
        top = made

    def constant(values: tuple[float, ...]) -> str:
        shape = [1, 1, 1, -1] if last else [1, -1, 1, 1]
        made = f"{name}/preprocessed/{len(nodes)}"
        array = np.array(values, np.float32).reshape(shape)
        nodes.append(helper.make_node("Constant", [], [made], made, value=numpy_helper.from_array(array)))
        return made

    if wanted_last != last:
        # Of bytes, a change of layout moves the least.
        add("Transpose", perm=[0, 3, 1, 2] if wanted_last else [0, 2, 3, 1])
        order = [0, 2, 3, 1] if wanted_last else [0, 3, 1, 2]
        del elem.shape.dim[:]
        elem.shape.dim.extend(dims[axis] for axis in order)
    add("Cast", to=TensorProto.FLOAT)
    if any(how.mean):
        add("Sub", constant(how.mean))
    if set(how.std) != {1.0}:
        add("Div", constant(how.std))
    if kind != TensorProto.FLOAT:
        add("Cast", to=kind)
    elem.elem_type = TensorProto.UINT8
    _rename(model.graph.node, name, top)
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *kept])
    return bytes(model.SerializeToString())


def _picture_input(model: ModelProto, how: Preprocess) -> ValueInfoProto:
    opset = max((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST_OPSET:
        raise InputError(f"preprocess: the model is of opset {opset}; at least {OLDEST_OPSET} is needed")
    names = [info.name for info in declared_inputs(model)]
    if how.input and how.input not in names:
        raise InputError(f"preprocess: the model has no input {how.input!r}; it has {', '.join(names)}")
    wanted = [how.input] if how.input else names
    found = [value for value in model.graph.input if value.name in wanted and _takes_pictures(value)]
    if len(found) != 1:
        raise InputError(
            f"preprocess: {len(found)} inputs take pictures as floats, of {', '.join(names)}; "
            + ("name one with input=NAME" if found else "that is, four axes, one of them 1, 3 or 4 channels")
        )
    if any(value.name == found[0].name for value in model.graph.output):
        raise InputError(f"preprocess: {found[0].name!r} is an output too")
    picture: ValueInfoProto = found[0]
    return picture


def _takes_pictures(value: ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    return kind.elem_type in FLOATS and len(dims) == 4 and (dims[1] in CHANNELS or dims[3] in CHANNELS)


def _is_last(value: ValueInfoProto) -> bool:
    """Whether the channels are the last axis."""
    return value.type.tensor_type.shape.dim[1].dim_value not in CHANNELS


def _rename(nodes: Iterable[NodeProto], before: str, after: str) -> None:
    """Lets all nodes read another tensor, those in bodies of loops and branches too."""
    for node in nodes:
        for at, name in enumerate(node.input):
            if name == before:
                node.input[at] = after
        for attribute in node.attribute:
            bodies: list[GraphProto] = [attribute.g, *attribute.graphs]
            for body in bodies:
                _rename(body.node, before, after)
