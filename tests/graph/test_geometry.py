"""The row rules' arithmetic against naive counting, and that parts share sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distredge.graph.importer import load_model
from distredge.graph.layouts import regrouped_axis
from distredge.graph.rows import Rows
from distredge.graph.rules import GrowRule, PadRule, TransposedWindowRule, WindowRule
from tests.graph.cases import CASES, Case, resizes

sizes = st.integers(1, 30)


@st.composite
def windows(draw: st.DrawFn) -> tuple[WindowRule, int]:
    kernel, dilation, stride = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    extent = (kernel - 1) * dilation + 1
    top, bottom = draw(st.integers(0, extent - 1)), draw(st.integers(0, extent - 1))
    height = draw(st.integers(max(1, extent - top - bottom), 30))
    rule = WindowRule((2, None), height, extent, stride, (top, 0, bottom, 0))
    return rule, (height + top + bottom - extent) // stride + 1


@given(windows(), st.data())
def test_window_needs_the_rows_under_the_window(window: tuple[WindowRule, int], data: st.DataObject) -> None:
    rule, rows = window
    start = data.draw(st.integers(0, rows - 1))
    out = Rows(start, data.draw(st.integers(start + 1, rows)))
    under = {
        row
        for r in range(out.start, out.stop)
        for row in range(r * rule.stride - rule.pads[0], r * rule.stride - rule.pads[0] + rule.extent)
    }
    inside = sorted(row for row in under if 0 <= row < rule.height)
    need = rule.needs(out)[0]
    assert need == Rows(inside[0], inside[-1] + 1)
    edit = rule.edit(out)
    pads = dict(edit.attributes)["pads"] if edit else rule.pads
    assert isinstance(pads, tuple)
    made = (need.size + pads[0] + pads[2] - rule.extent) // rule.stride + 1
    assert made == out.size
    assert pads[0] == sum(row < 0 for row in under)


@given(windows(), st.data())
def test_parts_that_touch_no_edge_have_no_padding(
    window: tuple[WindowRule, int], data: st.DataObject
) -> None:
    rule, rows = window
    start = data.draw(st.integers(0, rows - 1))
    out = Rows(start, data.draw(st.integers(start + 1, rows)))
    need = rule.needs(out)[0]
    assert need is not None
    edit = rule.edit(out)
    if need.start > 0 and need.stop < rule.height:
        pads = dict(edit.attributes)["pads"] if edit else rule.pads
        assert pads == (0, 0, 0, 0)


@given(
    st.integers(1, 6), st.integers(1, 5), st.integers(0, 4), st.integers(0, 4), st.integers(2, 12), st.data()
)
def test_transposed_window_makes_exactly_the_rows(
    extent: int, stride: int, top: int, bottom: int, height: int, data: st.DataObject
) -> None:
    more = data.draw(st.integers(0, stride - 1))
    rows = (height - 1) * stride + extent + more - top - bottom
    if rows < 2:
        return
    rule = TransposedWindowRule((2, None), height, extent, stride, (top, bottom), (more,))
    start = data.draw(st.integers(0, rows - 1))
    out = Rows(start, data.draw(st.integers(start + 1, rows)))
    need = rule.needs(out)[0]
    assert need is not None
    edit = rule.edit(out)
    changes = dict(edit.attributes) if edit else {"pads": rule.pads, "output_padding": rule.output_padding}
    pads, extra = changes["pads"], changes["output_padding"]
    assert isinstance(pads, tuple)
    assert isinstance(extra, tuple)
    assert min(*pads, *extra) >= 0
    assert (need.size - 1) * stride + extent + extra[0] - pads[0] - pads[1] == out.size
    fed = {
        i
        for i in range(height)
        for r in range(out.start, out.stop)
        if 0 <= r + top - i * stride < extent
    }  # fmt: skip
    assert not fed or need.covers(Rows(min(fed), max(fed) + 1))
    # Row r of the part is row r of the whole: contributions fall on the same kernel rows.
    assert out.start + top - need.start * stride == pads[0]


@given(st.integers(1, 7), st.integers(1, 9), st.data())
def test_grown_rows(factor: int, height: int, data: st.DataObject) -> None:
    rule = GrowRule((2,), factor, 2)
    start = data.draw(st.integers(0, height * factor - 1))
    out = Rows(start, data.draw(st.integers(start + 1, height * factor)))
    need, edit = rule.needs(out)[0], rule.edit(out)
    assert need is not None
    assert need == Rows(out.start // factor, (out.stop - 1) // factor + 1)
    crop = edit.crop if edit else None
    top, bottom = (crop.top, crop.bottom) if crop else (0, 0)
    assert need.start * factor + top == out.start
    assert need.stop * factor - bottom == out.stop


@given(
    st.integers(1, 9), st.integers(0, 4), st.integers(0, 4), st.sampled_from(["edge", "reflect"]), st.data()
)
def test_padded_rows(height: int, top: int, bottom: int, mode: str, data: st.DataObject) -> None:
    if mode == "reflect" and max(top, bottom) >= height:
        return
    rows = height + top + bottom
    rule = PadRule((0,), height, top, bottom, mode == "reflect", (top, bottom), (0, 1), 1)
    start = data.draw(st.integers(0, rows - 1))
    out = Rows(start, data.draw(st.integers(start + 1, rows)))
    whole = np.pad(np.arange(height), (top, bottom), mode="edge" if mode == "edge" else "reflect")
    need, edit = rule.needs(out)[0], rule.edit(out)
    assert need is not None
    pads = edit.constants[0][2] if edit and edit.constants else (top, bottom)
    part = np.pad(np.arange(need.start, need.stop), pads, mode="edge" if mode == "edge" else "reflect")
    if edit and edit.crop:
        part = part[edit.crop.top : len(part) - edit.crop.bottom]
    np.testing.assert_array_equal(part, whole[out.start : out.stop])


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(shapes, shapes, st.data())
def test_regrouped_rows_are_contiguous_blocks(
    before: list[int], after: list[int], data: st.DataObject
) -> None:
    count = int(np.prod(before))
    if count != int(np.prod(after)):
        after = [count]
    row = data.draw(st.integers(0, len(before) - 1))
    found = regrouped_axis(tuple(before), row, tuple(after))
    if found is None:
        return
    axis, grow, shrink = found
    numbers = np.broadcast_to(
        np.arange(before[row]).reshape([-1 if i == row else 1 for i in range(len(before))]), before
    )
    moved = np.moveaxis(np.ascontiguousarray(numbers).reshape(after), axis, 0).reshape(after[axis], -1)
    for r, values in enumerate(moved):
        assert set(values.tolist()) == set(range(r // grow * shrink, r // grow * shrink + shrink))


@pytest.mark.parametrize("case", CASES + resizes()[::7], ids=lambda case: f"{case.op}-{case.name}")
def test_interior_parts_share_a_session(case: Case, tmp_path: Path) -> None:
    """One session per position, not per number of rows; only taps name rows."""
    model = load_model(case.model(), cache_dir=tmp_path)
    node = model.graph.nodes[0]
    rows = model.graph.tensors[node.outputs[0]].rows
    quantum = model.graph.tensors[node.outputs[0]].quantum
    cuts = [*range(0, rows, quantum), rows]
    edits = [node.rule.edit(Rows(a, b)) for i, a in enumerate(cuts) for b in cuts[i + 1 :]]
    if any(edit is not None and edit.taps is not None for edit in edits):
        assert case.op in ("Resize", "Upsample")
        return
    # Both edges, either, or none; ConvTranspose and Pad also meet each phase of their stride or padding.
    limit = 40 if case.op in ("ConvTranspose", "Pad", "Resize", "Upsample") else 20
    assert len(set(edits)) <= min(limit, max(1, len(edits) - 1))


@settings(max_examples=60, deadline=None)
@given(windows(), st.sampled_from(["Conv", "MaxPool", "AveragePool"]))
def test_random_windows_in_onnxruntime(
    tmp_path_factory: pytest.TempPathFactory, window: tuple[WindowRule, int], op: str
) -> None:
    from tests.graph.test_rules import check

    rule, rows = window
    if rows < 2 or rule.height < 2:
        return
    top, bottom = rule.pads[0], rule.pads[2]
    kernel = rule.extent
    if op == "Conv":
        w = np.random.default_rng(0).standard_normal((2, 2, kernel, 1)).astype(np.float32)
        case = Case(
            "random",
            op,
            "window",
            (1, 2, rule.height, 3),
            {"strides": [rule.stride, 1], "pads": [top, 0, bottom, 0]},
            (w,),
            exact=False,
        )
    else:
        attributes = {"kernel_shape": [kernel, 1], "strides": [rule.stride, 1], "pads": [top, 0, bottom, 0]}
        case = Case("random", op, "window", (1, 2, rule.height, 3), attributes)
    if kernel - top >= rule.height and rows == 1:
        return
    check(case, tmp_path_factory.getbasetemp(), ranges=6)
