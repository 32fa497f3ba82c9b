"""One operation as the row rules see it: attributes, shapes and small constants, without any ONNX type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distredge.graph.model import Shape
from distredge.graph.rows import RowRule
from distredge.graph.rules import Axes


class NotByRows(Exception):
    """Raised by a rule builder: this operation cannot be split by rows. The message is for the user."""


@dataclass(frozen=True)
class Ruling:
    """What a rule builder decides.

    Attributes:
        rule: how output rows depend on input rows.
        out_axes: the row axis of each output.
        quantum: multiple of rows at which the outputs are best cut.
        reduces: the rule is that of a partial; the node becomes a partial and a combine.
    """

    rule: RowRule
    out_axes: tuple[int | None, ...]
    quantum: int = 1
    reduces: bool = False


@dataclass(frozen=True, eq=False)
class Operation:
    """A node with everything that its row rule may depend on.

    Attributes:
        op_type: as in ONNX, with "domain::" in front unless the domain is ONNX's own.
        shapes, out_shapes: per input and output; None for an absent input.
        dtypes: numpy names, per input.
        constants: values of those inputs that are small constants.
        constant: per input, whether it is part of the model.
        requantised: input 0 comes from DequantizeLinear and the result goes to QuantizeLinear.
    """

    op_type: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[Shape | None, ...]
    out_shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    constants: tuple[np.ndarray[Any, Any] | None, ...]
    constant: tuple[bool, ...]
    requantised: bool = False

    def shape(self, index: int = 0) -> Shape:
        """Shape of input `index`, which must be there."""
        shape = self.shapes[index]
        assert shape is not None
        return shape

    def has(self, index: int) -> bool:
        """Whether an input at this position is given."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def values(self, index: int, attribute: str = "") -> tuple[Any, ...] | None:
        """A list that is an attribute in some opsets and a constant input in others; None if not given.

        Raises:
            NotByRows: it is an input that is only known when the model runs.
        """
        if attribute and attribute in self.attributes:
            value = self.attributes[attribute]
            return tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if not self.has(index):
            return None
        constant = self.constants[index]
        if constant is None:
            raise NotByRows(f"{self.op_type} takes its {attribute or 'sizes'} from computed values")
        return tuple(constant.reshape(-1).tolist())

    def rowed_axis(self, axes: Axes, index: int = 0) -> int:
        """The row axis of input `index`.

        Raises:
            NotByRows: that input is whole, so the rows are in another one.
        """
        axis = axes[index] if index < len(axes) else None
        if axis is None:
            raise NotByRows(f"{self.op_type} reads rows in an input that it needs whole")
        return axis

    def only(self, axes: Axes, *rowed: int) -> None:
        """Check that no input but these has rows.

        Raises:
            NotByRows: another one has.
        """
        if any(axis is not None for i, axis in enumerate(axes) if i not in rowed):
            raise NotByRows(f"{self.op_type} reads rows in an input that it needs whole")
