"""Rows and row rules: what a device needs to compute some rows of a node's output.

Everything here is pure arithmetic on half-open ranges. A *row* is one index along a
tensor's row axis (2 in NCHW, 1 in NHWC, 0 in a merged `[H*W, C]`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Rows(NamedTuple):
    """A half-open range of rows, `start` included, `stop` not."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many rows; never negative."""
        return max(0, self.stop - self.start)

    def __bool__(self) -> bool:
        return self.stop > self.start

    def hull(self, other: Rows) -> Rows:
        """The smallest range that holds both; an empty range adds nothing."""
        if not other:
            return self
        if not self:
            return other
        return Rows(min(self.start, other.start), max(self.stop, other.stop))

    def intersect(self, other: Rows) -> Rows:
        """The rows in both; empty (0, 0) when there are none."""
        start, stop = max(self.start, other.start), min(self.stop, other.stop)
        return Rows(start, stop) if stop > start else Rows(0, 0)

    def covers(self, other: Rows) -> bool:
        """Whether every row of `other` is in this range."""
        return not other or (self.start <= other.start and other.stop <= self.stop)

    def minus(self, other: Rows) -> tuple[Rows, ...]:
        """The (at most two) ranges of this one that are not in `other`."""
        common = self.intersect(other)
        if not common:
            return (self,) if self else ()
        pieces = (Rows(self.start, common.start), Rows(common.stop, self.stop))
        return tuple(piece for piece in pieces if piece)


@dataclass(frozen=True, slots=True)
class Crop:
    """Rows dropped at the top and the bottom of a tensor along `axis`."""

    axis: int
    top: int
    bottom: int


@dataclass(frozen=True, slots=True)
class Taps:
    """A row-wise linear map, run in front of a node: `out[r] = sum_k weights[k][r] * x[rows[k][r]]`.

    One tap with `weights == ()` is a plain gather of rows. Row numbers count from the first row
    of the part's own input. Interpolating Resizes that no shift can express become this.
    """

    axis: int
    rows: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Edit:
    """How a node is changed so that it computes exactly the wanted rows from exactly the needed ones.

    Attributes:
        attributes: ONNX attributes to set, as (name, value); a value of None removes one.
        constants: constant inputs to replace, as (input index, dtype name, nested tuples or scalar);
            None for a value takes the input away.
        taps: a row-wise map of input 0 that runs in front of the node.
        bypass: the node itself has nothing left to do after `taps`; leave it out.
        crop: rows of the output to drop afterwards.
    """

    attributes: tuple[tuple[str, object], ...] = ()
    constants: tuple[tuple[int, str, object], ...] = ()
    taps: Taps | None = None
    bypass: bool = False
    crop: Crop | None = None


class RowRule(Protocol):
    """How the output rows of one node depend on its inputs' rows.

    `kind` is one of `window`, `pointwise`, `scaling`, `features`, `partial`, `combine`, `barrier` (see
    docs/design/row-rules.md). `axes[i]` is the row axis along which input i is read, or None where
    the input is read whole. It may be set on an input whose tensor is not rowed (a constant with
    rows, or a map that every device holds whole): the part then cuts it like any rowed tensor.
    """

    @property
    def kind(self) -> str:
        """See the class."""
        ...

    @property
    def axes(self) -> tuple[int | None, ...]:
        """See the class."""
        ...

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        """Rows of each input for output rows `out` (not empty); None for an input read whole."""
        ...

    def edit(self, out: Rows) -> Edit | None:
        """What changes in the node when it computes `out` from `needs(out)`; None for nothing."""
        ...
