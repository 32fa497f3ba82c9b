"""Row rules: for each family of operators, which input rows give which output rows. Pure arithmetic.

An *edit* should depend on the position of a part (top, interior, bottom) and not on its number of
rows, because parts with equal edits share one onnxruntime session. Where that cannot be had (taps,
sizes) the class says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from distredge.graph.rows import Crop, Edit, Rows, Taps

_T = TypeVar("_T")

LAST = 2**63 - 1
"""What ONNX's Slice takes for "to the end"."""

Axes = tuple[int | None, ...]


def read_rows(axes: Axes, rows: Rows) -> tuple[Rows | None, ...]:
    """The same rows of every input that is read by rows."""
    return tuple(None if axis is None else rows for axis in axes)


def with_crop(fixed: Edit | None, axis: int, top: int, bottom: int) -> Edit | None:
    """`fixed` and, where there is something to drop, a crop of the output."""
    if not top and not bottom:
        return fixed
    return replace(fixed or Edit(), crop=Crop(axis, top, bottom))


@dataclass(frozen=True)
class WholeRule:
    """Reads everything whole and gives something whole."""

    axes: Axes
    kind: str = "barrier"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        return (None,) * len(self.axes)

    def edit(self, out: Rows) -> Edit | None:
        return None


@dataclass(frozen=True)
class PointwiseRule:
    """Output rows are made of the same rows of the inputs.

    Attributes:
        fixed: what has to change in the node whatever the rows are, such as the row dimension in the
            target of a Reshape.
    """

    axes: Axes
    fixed: Edit | None = None
    kind: str = "pointwise"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        return read_rows(self.axes, out)

    def edit(self, out: Rows) -> Edit | None:
        return self.fixed


@dataclass(frozen=True)
class PartialRule:
    """One device's contribution to a reduction: it takes exactly the rows that the device owns."""

    axes: Axes
    kind: str = "partial"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        return read_rows(self.axes, out)

    def edit(self, out: Rows) -> Edit | None:
        return None


@dataclass(frozen=True)
class FeatureRule:
    """A fully connected layer whose rows are its output features: the input is needed whole, of weights and
    bias the same features."""

    axes: Axes
    kind: str = "features"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        return read_rows(self.axes, out)

    def edit(self, out: Rows) -> Edit | None:
        return None


@dataclass(frozen=True)
class WindowRule:
    """Convolutions and pools: the Vertical-Splitting Law of docs/design.

    Padding stays only where the window leaves the true top or bottom edge. `ceil_mode` can stay as it
    is: rows of an interior part match its windows exactly, and the last window of the bottom part
    hangs over by as much as it does in the whole.

    Attributes:
        axes: axis 2 for the map, and for what is added to the result (the sum input of FusedConv).
        height: rows of input 0.
        extent: rows under one window, dilation included.
        pads: the node's pads as ONNX lists them, all begins and then all ends.
        spatial: which of the spatial axes is split; 0 but for volumes.
    """

    axes: Axes
    height: int
    extent: int
    stride: int
    pads: tuple[int, ...]
    spatial: int = 0
    kind: str = "window"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        start, stop = self._window(out)
        window = Rows(max(0, start), min(self.height, stop))
        return (window, *read_rows(self.axes[1:], out))

    def edit(self, out: Rows) -> Edit | None:
        start, stop = self._window(out)
        end = self.spatial + len(self.pads) // 2
        pads = list(self.pads)
        pads[self.spatial] = max(0, -start)
        pads[end] = min(pads[end], max(0, stop - self.height))
        if tuple(pads) == self.pads:
            return None
        return Edit(attributes=(("pads", tuple(pads)),))

    def _window(self, out: Rows) -> tuple[int, int]:
        top = self.pads[self.spatial]
        return out.start * self.stride - top, (out.stop - 1) * self.stride - top + self.extent


@dataclass(frozen=True)
class TransposedWindowRule:
    """ConvTranspose: one input row is spread over `extent` output rows; its pads crop the result."""

    axes: Axes
    height: int
    extent: int
    stride: int
    pads: tuple[int, ...]
    output_padding: tuple[int, ...]
    spatial: int = 0
    kind: str = "window"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        top = self.pads[self.spatial]
        first, last = out.start + top, out.stop - 1 + top
        # Where the stride is longer than the kernel some rows get nothing: then any row before will do.
        start = min(-((self.extent - 1 - first) // self.stride), first // self.stride)
        start = min(max(0, start), self.height - 1)
        stop = max(min(self.height, last // self.stride + 1), start + 1)
        return (Rows(start, stop), *read_rows(self.axes[1:], out))

    def edit(self, out: Rows) -> Edit | None:
        source = self.needs(out)[0]
        assert source is not None
        origin = source.start * self.stride - self.pads[self.spatial]
        full = (source.size - 1) * self.stride + self.extent
        end = full - (out.stop - origin)
        pads, more = list(self.pads), list(self.output_padding)
        pads[self.spatial] = out.start - origin
        pads[self.spatial + len(pads) // 2] = max(0, end)
        more[self.spatial] = max(0, -end)
        if tuple(pads) == self.pads and tuple(more) == self.output_padding:
            return None
        return Edit(attributes=(("pads", tuple(pads)), ("output_padding", tuple(more))))


@dataclass(frozen=True)
class GrowRule:
    """Each input row becomes `factor` output rows: DepthToSpace, a Reshape that merges rows with what
    lies behind them. Inputs after the first are read by the output's rows where they are read by rows."""

    axes: Axes
    factor: int
    out_axis: int
    fixed: Edit | None = None
    kind: str = "scaling"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        rows = Rows(out.start // self.factor, -(-out.stop // self.factor))
        return read_rows(self.axes, rows)

    def edit(self, out: Rows) -> Edit | None:
        top, bottom = out.start % self.factor, -out.stop % self.factor
        return with_crop(self.fixed, self.out_axis, top, bottom)


@dataclass(frozen=True)
class ShrinkRule:
    """`factor` input rows become one output row: SpaceToDepth, a Reshape that splits the row axis."""

    axes: Axes
    factor: int
    fixed: Edit | None = None
    kind: str = "scaling"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        return read_rows(self.axes, Rows(out.start * self.factor, out.stop * self.factor))

    def edit(self, out: Rows) -> Edit | None:
        return self.fixed


@dataclass(frozen=True)
class SliceRule:
    """Slice along rows, forwards: output row r is input row `start + r * step`.

    Attributes:
        fixed: the node with its row range opened (0 to the end), since the needed rows are all it gets.
    """

    axes: Axes
    start: int
    step: int
    fixed: Edit | None
    kind: str = "scaling"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        first = self.start + out.start * self.step
        return read_rows(self.axes, Rows(first, self.start + (out.stop - 1) * self.step + 1))

    def edit(self, out: Rows) -> Edit | None:
        return self.fixed


@dataclass(frozen=True)
class PadRule:
    """Pad along rows, with a constant, the edge row, or rows mirrored at the edge.

    Attributes:
        top, bottom: rows added, not negative.
        reach: whether row r of the padding reads row r beyond the edge row ("reflect").
        pads: the node's pads as it lists them.
        at: where in `pads` the row axis has its begin and its end.
        as_input: the index of the input that holds the pads; None where they are an attribute.
    """

    axes: Axes
    height: int
    top: int
    bottom: int
    reach: bool
    pads: tuple[int, ...]
    at: tuple[int, int]
    as_input: int | None
    kind: str = "scaling"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        above, below = self._added(out)
        start = min(max(out.start - self.top, 0), self.height - 1)
        stop = max(min(out.stop - self.top, self.height), start + 1)
        if above:
            start, stop = 0, max(stop, above + 1 if self.reach else 1)
        if below:
            stop, start = self.height, min(start, self.height - (below + 1 if self.reach else 1))
        return read_rows(self.axes, Rows(start, stop))

    def edit(self, out: Rows) -> Edit | None:
        above, below = self._added(out)
        source = self.needs(out)[0]
        assert source is not None
        pads = list(self.pads)
        pads[self.at[0]], pads[self.at[1]] = above, below
        first = source.start + self.top - above
        last = source.stop + self.top + below
        if tuple(pads) == self.pads:
            fixed = None
        elif self.as_input is None:
            fixed = Edit(attributes=(("pads", tuple(pads)),))
        else:
            fixed = Edit(constants=((self.as_input, "int64", tuple(pads)),))
        axis = self.axes[0]
        assert axis is not None
        return with_crop(fixed, axis, out.start - first, last - out.stop)

    def _added(self, out: Rows) -> tuple[int, int]:
        return max(0, self.top - out.start), max(0, out.stop - self.top - self.height)


@dataclass(frozen=True)
class ShiftedResizeRule:
    """A Resize whose weights repeat: `grow` output rows for every `step` input rows.

    The node keeps working, on the needed rows and with `scales`; what its own edge handling spoils, or
    nobody asked for, is cropped.

    Attributes:
        above, below: first and last input row read by output row r of a period, from the period's start.
        periods: the fewest periods for which the node works as it does on the whole.
    """

    axes: Axes
    height: int
    grow: int
    step: int
    above: tuple[int, ...]
    below: tuple[int, ...]
    out_axis: int
    fixed: Edit | None
    periods: int = 1
    kind: str = "scaling"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        first = range(out.start, min(out.stop, out.start + self.grow))
        last = range(max(out.start, out.stop - self.grow), out.stop)
        # The node makes whole periods: the part has every period that the wanted rows lie in.
        start = min(r // self.grow * self.step + min(0, self.above[r % self.grow]) for r in first)
        stop = max(r // self.grow * self.step + max(self.step, self.below[r % self.grow] + 1) for r in last)
        start = max(0, start) // self.step * self.step
        stop = min(self.height, -(-stop // self.step) * self.step)
        missing = self.periods * self.step - (stop - start)
        if missing > 0:
            stop = min(self.height, stop + missing)
            start = max(0, min(start, stop - self.periods * self.step))
        return read_rows(self.axes, Rows(start, stop))

    def edit(self, out: Rows) -> Edit | None:
        source = self.needs(out)[0]
        assert source is not None
        top = out.start - source.start // self.step * self.grow
        made = source.size * self.grow // self.step
        return with_crop(self.fixed, self.out_axis, top, made - top - out.size)


@dataclass(frozen=True)
class TappedResizeRule:
    """A Resize that no shift expresses: row weights come from the probe, one set per output row.

    Its edits name rows, so that each range of rows is a session of its own. This is also how one whole
    row becomes many equal ones (a pooled map resized back to a map): then `axes[0]` is None.

    Attributes:
        axis: the row axis of input 0.
        rows, weights: per output row, the input rows it reads and how much of each.
        keeps: whether only the rows change, so that nothing is left for the node to do.
        sizes: input index and values of `sizes` with which the node does its other axes.
        row_at: where in `sizes` the row count stands.
    """

    axes: Axes
    axis: int
    rows: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    keeps: bool
    fixed: Edit | None = None
    sizes: tuple[int, tuple[int, ...]] | None = None
    row_at: int | None = None
    kind: str = "scaling"

    def needs(self, out: Rows) -> tuple[Rows | None, ...]:
        read = [row for r in range(out.start, out.stop) for row in self.rows[r]]
        return read_rows(self.axes, Rows(min(read), max(read) + 1))

    def edit(self, out: Rows) -> Edit | None:
        source = self.needs(out)[0] or Rows(0, 1)
        wanted = range(out.start, out.stop)
        depth = max(len(self.rows[r]) for r in wanted)
        taps_rows: list[tuple[int, ...]] = []
        taps_weights: list[tuple[float, ...]] = []
        for k in range(depth):
            # A row with fewer taps reads its first row again, with weight zero.
            taps_rows.append(tuple(_get(self.rows[r], k, self.rows[r][0]) - source.start for r in wanted))
            taps_weights.append(tuple(_get(self.weights[r], k, 0.0) for r in wanted))
        plain = depth == 1 and set(taps_weights[0]) == {1.0}
        taps = Taps(self.axis, tuple(taps_rows), () if plain else tuple(taps_weights))
        if self.keeps:
            return Edit(taps=taps, bypass=True)
        edit = replace(self.fixed or Edit(), taps=taps)
        if self.sizes is not None:
            index, sizes = self.sizes
            values = tuple(out.size if i == self.row_at else d for i, d in enumerate(sizes))
            edit = replace(edit, constants=(*edit.constants, (index, "int64", values)))
        return edit


def _get(items: Sequence[_T], index: int, default: _T) -> _T:
    return items[index] if index < len(items) else default
