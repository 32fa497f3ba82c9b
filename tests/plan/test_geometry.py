"""Geometry against brute force: change one input row, see which output rows notice, ask who got that row."""

from __future__ import annotations

import random

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distredge.graph.importer import load_model
from distredge.graph.model import Graph
from distredge.graph.rows import Rows
from distredge.plan.compile import compile_plan
from distredge.plan.execution import REQUESTER
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from tests.models import ModelBuilder
from tests.plan.support import names
from tests.verify.blocks import BLOCKS

MIXING = {
    "excitation",
    "reduced",
    "reduced_without_axes",
    "max_of_map",
    "average_of_map",
    "instance_norm",
    "group_norm",
    "group_norm_operator",
    "attention",
    "mixed_rows",
    "upside_down",
    "stacked",
    "shuffled_rows",
}
"""Blocks in which rows reach further than windows do: by partial results, or through a barrier."""


def influence(data: bytes, seed: int) -> dict[str, np.ndarray]:
    """Per output, a matrix of booleans: does output row i change with input row j?"""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (info,) = session.get_inputs()
    outputs = [out.name for out in session.get_outputs()]
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(info.shape).astype(np.float32)
    base = session.run(None, {info.name: x})
    seen = {name: np.zeros((b.shape[2], info.shape[2]), bool) for name, b in zip(outputs, base, strict=True)}
    for row in range(info.shape[2]):
        for size in (3, -3):
            changed = x.copy()
            changed[:, :, row] += size * (1 + rng.random(changed[:, :, row].shape))
            for name, before, after in zip(
                outputs, base, session.run(None, {info.name: changed}), strict=True
            ):
                seen[name][:, row] |= (before != after).any(axis=(0, 1, 3))
    return seen


def check(data: bytes, bounds_seed: int, *, minimal: bool) -> None:
    """Each device was sent every input row that its output rows depend on, and, if `minimal`, no other."""
    graph = load_model(data).graph
    seen = influence(data, 1)
    (volume,) = find_volumes(graph, PartitionScheme())
    rng = random.Random(bounds_seed)
    devices = rng.randint(1, 5)
    cuts = sorted(rng.randint(0, volume.rows) for _ in range(devices - 1))
    decision = SplitDecision((0, *cuts, volume.rows))
    plan = compile_plan(graph, Strategy(PartitionScheme(), (decision,)), names(devices))
    plan.validate()
    for device in range(devices):
        used: set[int] = set()
        for name, matrix in seen.items():
            owned = decision.scaled(graph.tensors[name].rows, graph.tensors[name].quantum).part(device)
            used.update(np.flatnonzero(matrix[owned.start : owned.stop].any(axis=0)).tolist())
        got = sent_rows(plan.transfers, graph.inputs[0], device)
        if used:
            assert got.start <= min(used), (device, got, used)
            assert max(used) < got.stop, (device, got, used)
            if minimal:
                assert got == (min(used), max(used) + 1), (device, got, used)
        elif minimal:
            assert not got


def sent_rows(transfers, tensor: str, device: int) -> Rows:  # type: ignore[no-untyped-def]
    rows = [t.rows for t in transfers if (t.source, t.target, t.tensor) == (REQUESTER, device, tensor)]
    assert len(rows) <= 1
    return rows[0] if rows else Rows(0, 0)


def window_network(choose: random.Random) -> ModelBuilder:
    """Windows without holes and pointwise operators, branches included: here demand has to be exact."""
    net = ModelBuilder(13, choose.randrange(1000))
    x = net.conv(net.input(1, 2, choose.randint(10, 24), 4), 3)
    for _ in range(choose.randint(1, 4)):
        kernel = choose.randint(1, 5)
        stride = choose.randint(1, min(kernel, 2)) if net.shape(x)[2] > 12 else 1
        pads = [choose.randrange(kernel), 0, choose.randrange(kernel), 0]
        kind = choose.choice(["conv", "pool", "residual", "two"])
        if kind == "conv":
            x = net.conv(x, 3, (kernel, 1), strides=[stride, 1], pads=pads)
        elif kind == "pool":
            x = net.add("AveragePool", x, kernel_shape=[kernel, 1], strides=[stride, 1], pads=pads)
        elif kind == "residual":
            x = net.add("LeakyRelu", net.add("Add", x, net.conv(x, 3, (2 * (kernel // 2) + 1, 1))))
        else:
            net.output(net.conv(x, 2, 1))
            x = net.add("MaxPool", x, kernel_shape=[2, 1], strides=[1, 1], pads=[1, 0, 0, 0])
    net.output(net.conv(x, 2, (3, 1)))
    return net


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_windows_are_sent_exactly_what_they_read(seed: int) -> None:
    choose = random.Random(seed)
    check(window_network(choose).build(), seed, minimal=True)


@settings(max_examples=4, deadline=None)
@pytest.mark.parametrize("name", sorted(set(BLOCKS) - MIXING))
@given(seed=st.integers(0, 10**6))
def test_every_block_is_sent_what_it_reads(name: str, seed: int) -> None:
    choose = random.Random(seed)
    first, last = BLOCKS[name].opsets
    net = ModelBuilder(choose.randint(first, last), seed)
    x = net.conv(net.input(1, 3, choose.randint(16, 24), 6), 4)
    x = BLOCKS[name].make(net, x, choose)
    net.output(net.conv(x, 3, 1))
    check(net.build(), seed, minimal=False)


def test_brute_force_sees_a_halo_that_is_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """This test can fail."""
    from distredge.graph.rules import WindowRule

    whole = WindowRule.needs

    def short(self: WindowRule, out: Rows) -> tuple[Rows | None, ...]:
        first, *rest = whole(self, out)
        assert first
        return (Rows(first.start + (first.size > 1), first.stop), *rest)

    net = ModelBuilder(13, 0)
    net.output(net.conv(net.conv(net.input(1, 2, 20, 4), 3), 2))
    check(net.build(), 3, minimal=True)
    monkeypatch.setattr(WindowRule, "needs", short)
    with pytest.raises(AssertionError):
        check(net.build(), 3, minimal=True)


@pytest.mark.parametrize(("rows", "devices"), [(12, 4), (9, 5), (7, 1), (5, 5)])
def test_the_vertical_splitting_law(rows: int, devices: int) -> None:
    """One window of every kernel, stride, dilation and padding against the formula in docs/design."""
    for kernel in (1, 2, 3, 5):
        for stride in (1, 2, 3):
            for dilation in (1, 2):
                for top, bottom in ((0, 0), (1, 1), (0, 2), (2, 0)):
                    extent = dilation * (kernel - 1) + 1
                    if max(top, bottom) < extent <= rows + top + bottom:
                        graph, made = one_window(rows, kernel, stride, dilation, top, bottom)
                        if made > 1:
                            check_law(graph, rows, made, devices, extent, stride, top)


def one_window(
    rows: int, kernel: int, stride: int, dilation: int, top: int, bottom: int
) -> tuple[Graph, int]:
    net = ModelBuilder(13)
    y = net.conv(
        net.input(1, 1, rows, 3),
        1,
        (kernel, 1),
        strides=[stride, 1],
        dilations=[dilation, 1],
        pads=[top, 0, bottom, 0],
    )
    net.output(y)
    return load_model(net.build()).graph, net.shape(y)[2]


def check_law(graph: Graph, rows: int, made: int, devices: int, extent: int, stride: int, top: int) -> None:
    decision = SplitDecision.from_shares(made, [1.0] * devices)
    plan = compile_plan(graph, Strategy(PartitionScheme(), (decision,)), names(devices))
    plan.validate()
    for device in range(devices):
        a, b = decision.part(device)
        wanted = (
            Rows(max(0, a * stride - top), min(rows, (b - 1) * stride - top + extent))
            if b > a
            else Rows(0, 0)
        )
        assert sent_rows(plan.transfers, "x0", device) == wanted
