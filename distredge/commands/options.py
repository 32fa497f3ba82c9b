"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING

from distredge.errors import InputError

if TYPE_CHECKING:
    from distredge.graph.importer import Model

Shape = tuple[int, ...]


def add_input_shape(parser: argparse.ArgumentParser) -> None:
    """`--input-shape`; see `parse_input_shapes`."""
    parser.add_argument(
        "--input-shape",
        action="append",
        default=[],
        metavar="[NAME=]1x3x640x640",
        help="fix the shape of an input; repeat it for several inputs, leave NAME out if there is one",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """`--input-shape` and `--preprocess`, for commands that import a model; see `load`."""
    add_input_shape(parser)
    parser.add_argument(
        "--preprocess",
        metavar="HOW",
        help="the model is given pictures of bytes, which are normalised where they are computed: imagenet, "
        "unit (divided by 255), centred (-1 to 1), raw, or 'mean=123.7,116.3,103.5;std=58.4;layout=nhwc'",
    )


def add_wire(parser: argparse.ArgumentParser, default: str | None = "exact") -> None:
    """`--wire`: how rows may be coded; see `distredge.plan.wire`. It imports nothing heavy."""
    from distredge.plan.wire import WIRES

    parser.add_argument(
        "--wire",
        choices=WIRES,
        default=default,
        help="how rows may be coded on their way: exact (packed where that pays), raw (never packed), or "
        "rounded to fp16 or int8 (default: exact)",
    )


def model_source(args: argparse.Namespace, path: str) -> str | bytes:
    """A model as the options want it: its path, or its bytes with what `--preprocess` adds.

    Raises:
        ModelError, InputError: see `distredge.graph.preprocess`.
    """
    if args.preprocess is None:
        return path
    from distredge.graph.preprocess import parse_preprocess, with_preprocessing

    return with_preprocessing(path, parse_preprocess(args.preprocess))


def parse_input_shapes(values: Iterable[str]) -> dict[str, Shape]:
    """Reads the values of `--input-shape`.

    Returns:
        Shapes by input name. The name is "" for a bare `1x3x640x640`, which stands for the only
        input of a model.

    Raises:
        InputError: a value is malformed, or two are for the same input.
    """
    shapes: dict[str, Shape] = {}
    for value in values:
        name, equals, text = value.rpartition("=")
        if equals and not name:
            raise InputError(f"--input-shape {value}: the name in front of '=' is missing", value=value)
        if name in shapes:
            which = f"input {name}" if name else "the only input"
            raise InputError(f"--input-shape {value}: the shape of {which} is given twice", value=value)
        shapes[name] = _parse_shape(text, value)
    if "" in shapes and len(shapes) > 1:
        raise InputError("--input-shape: with several inputs, each value needs a name (NAME=1x3x640x640)")
    return shapes


def named_input_shapes(shapes: Mapping[str, Shape], inputs: Iterable[str]) -> dict[str, Shape]:
    """Puts the model's input name in place of "", and checks the others.

    Args:
        shapes: from `parse_input_shapes`.
        inputs: names of the model's inputs.

    Raises:
        InputError: a name that the model does not have, or a bare shape for a model with several inputs.
    """
    names = list(inputs)
    named = {}
    for name, shape in shapes.items():
        if name and name not in names:
            raise InputError(
                f"--input-shape: the model has no input {name!r}; it has {', '.join(names)}", name=name
            )
        if not name and len(names) != 1:
            raise InputError(
                f"--input-shape: the model has {len(names)} inputs, so name one of {', '.join(names)}"
            )
        named[name or names[0]] = shape
    return named


def _parse_shape(text: str, value: str) -> Shape:
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(
            f"--input-shape {value}: {text!r} is no shape; write whole numbers of at least 1, as 1x3x640x640",
            value=value,
        )
    return shape


def non_negative(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def peer_count(text: str) -> int:
    """An argparse type: how many peers on this machine."""
    from distredge.cluster.hosts_values import MOST_SLOTS

    count = positive(text)
    if count > MOST_SLOTS:
        raise argparse.ArgumentTypeError(f"{text} peers are too many for one machine; at most {MOST_SLOTS}")
    return count


def file_name(text: str) -> str:
    """An argparse type: a file's name, which is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name is no file")
    return text


def seconds(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def add_objective(parser: argparse.ArgumentParser) -> None:
    """`--objective`; see `Objective.parse`."""
    parser.add_argument(
        "--objective",
        default="latency",
        metavar="O",
        help="latency of one frame, throughput, or latency-at-rate=FPS: the lowest latency that sustains "
        "so many images a second (default: latency)",
    )


def load(args: argparse.Namespace, path: str) -> Model:
    """Imports a model as the options of `add_model_options` say.

    Raises:
        ModelError, InputError: see `distredge.graph.importer.load_model`.
    """
    from distredge.graph.importer import load_model, model_inputs

    source = model_source(args, path)
    shapes = parse_input_shapes(args.input_shape)
    names = [info.name for info in model_inputs(source)] if shapes else []
    return load_model(source, named_input_shapes(shapes, names))
