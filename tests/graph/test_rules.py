"""Every row rule against onnxruntime: parts equal the rows of the whole, and needs() is what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distredge.graph.importer import load_model
from distredge.graph.rows import Rows
from tests.graph.cases import CASES, Case, resizes
from tests.graph.support import Array, NodeRunner, Values, feeds_for, reference, rows_of, session

RESIZES = resizes()


def ident(case: Case) -> str:
    return f"{case.op}-{case.name}"


@pytest.mark.parametrize("case", CASES, ids=ident)
def test_parts_equal_the_whole(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path, ranges=12)


@pytest.mark.parametrize("case", RESIZES, ids=ident)
def test_resized_parts_equal_the_whole(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path, ranges=6)


def check(case: Case, folder: Path, ranges: int) -> None:
    model = load_model(case.model(), cache_dir=folder)
    graph = model.graph
    split = [node for i, node in enumerate(graph.nodes) if graph.is_split(i)]
    assert len(split) == len(graph.nodes) == 1, [(n.op_type, n.reason) for n in graph.nodes]
    node = split[0]
    assert node.rule.kind == case.kind
    feeds = feeds_for(model, seed=3)
    expected = dict(zip(graph.outputs, reference(model, feeds), strict=True))
    runner = NodeRunner(model)
    rows = graph.tensors[node.outputs[0]].rows
    generator = np.random.default_rng(5)
    chosen = {(0, rows), (0, 1), (rows - 1, rows)}
    while len(chosen) < min(ranges, rows * (rows + 1) // 2):
        a, b = sorted(generator.integers(0, rows + 1, 2).tolist())
        if a < b:
            chosen.add((a, b))
    for a, b in sorted(chosen):
        made = runner.run(node, Rows(a, b), feeds)
        for name, value in zip(node.outputs, made, strict=True):
            wanted = rows_of(expected[name], graph.tensors[name].row_axis, Rows(a, b))
            assert value.shape == wanted.shape, (a, b, value.shape, wanted.shape)
            if case.exact:
                np.testing.assert_array_equal(value, wanted, err_msg=f"rows {a}:{b}")
            else:
                np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=3e-6, err_msg=f"rows {a}:{b}")
    check_needs(case, model.source, node, feeds, graph)


def check_needs(case, source, node, feeds: Values, graph) -> None:  # type: ignore[no-untyped-def]
    """Change one input row at a time and see which output rows notice."""
    run = session(source)
    tensor = graph.tensors["x"]
    axis = tensor.row_axis
    assert axis is not None
    out_axis = graph.tensors[node.outputs[0]].row_axis
    base = run.run(None, feeds)[0]
    changed = np.zeros((base.shape[out_axis], tensor.rows), dtype=bool)
    for row in range(tensor.rows):
        value = run.run(None, feeds | {"x": with_row_changed(feeds["x"], axis, row)})[0]
        others = tuple(i for i in range(base.ndim) if i != out_axis)
        same = (base == value) | ((base != base) & (value != value))
        changed[:, row] = ~same.all(axis=others)
    for a in range(len(changed)):
        for b in range(a + 1, len(changed) + 1):
            need = node.rule.needs(Rows(a, b))[0]
            assert need is not None
            assert need
            used = np.flatnonzero(changed[a:b].any(axis=0))
            if used.size:
                assert need.covers(Rows(int(used[0]), int(used[-1]) + 1)), (a, b, need, used)
                if case.minimal and case.op not in ("ArgMax", "Cast", "Hardmax"):
                    assert need == (used[0], used[-1] + 1), (a, b, need, used)


def with_row_changed(x: Array, axis: int, row: int) -> Array:
    changed = x.copy()
    at = (slice(None),) * axis + (row,)
    if x.dtype == np.uint8:
        changed[at] = 255 - changed[at]
    elif x.dtype == np.int8:
        changed[at] = 127
    else:
        shift = np.random.default_rng(row).standard_normal(changed[at].shape).astype(x.dtype)
        changed[at] = 50 + shift
    return changed
