"""Bit equality: the parts of a volume against the same volume unsplit, volume by volume.

Cutting the depth changes which operators onnxruntime fuses; cutting rows must change nothing at all,
except in sums over rows, in matrix products and in interpolation, whose order of addition, or use of
fused multiply-adds, follows from the shapes.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from distredge.graph.importer import Model, load_model
from distredge.plan.compile import compile_plan
from distredge.plan.draw import random_scheme, random_split
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.engine import Array, Engine, FrameStore, PartSessions, from_payload, to_payload
from distredge.runtime.reference import random_feed
from tests import models
from tests.verify.blocks import BLOCKS
from tests.verify.networks import NETWORKS
from tests.verify.random_networks import network


def run_in_order(plan: ExecutionPlan, sessions: PartSessions, feed: dict[str, Array]) -> dict[str, Array]:
    """Runs the tasks one after another; gives every tensor that left a task, put together from owned rows."""
    stores = {device: FrameStore(plan) for device in range(-1, len(plan.devices))}
    engines = {device: Engine(plan, device, sessions, stores[device]) for device in range(len(plan.devices))}
    stores[REQUESTER].put_inputs(0, feed)

    def send(task: int) -> None:
        for transfer in plan.transfers:
            if transfer.task == task:
                payload = to_payload(stores[transfer.source].rows_to_send(0, transfer.id))
                rows = from_payload(payload, plan.tensors[transfer.tensor], transfer.rows)
                stores[transfer.target].put_transfer(0, transfer.id, rows)

    whole: dict[str, Array] = {}
    send(-1)
    for task in plan.tasks:
        engines[task.device].run(0, task.id)
        send(task.id)
        for out in task.outputs:
            info = plan.tensors[out.tensor]
            made = stores[task.device]._frames[0]["task", (task.id, out.tensor)]
            if not info.dynamic:
                assert made.shape == info.part_shape(out.rows), "a part of another height than the plan says"
            if info.row_axis is None:
                whole.setdefault(out.tensor, made)
                np.testing.assert_array_equal(whole[out.tensor], made)
                continue
            target = whole.setdefault(out.tensor, np.empty(info.part_shape(info.all_rows), made.dtype))
            ahead = (slice(None),) * info.row_axis
            first = out.owned.start - out.rows.start
            rows = made[(*ahead, slice(first, first + out.owned.size))]
            target[(*ahead, slice(out.owned.start, out.owned.stop))] = rows
    for name, value in zip(plan.outputs, stores[REQUESTER].result(0), strict=True):
        whole[name] = value
    return whole


def check_bit_equality(model: Model, seed: int, devices: int = 3) -> int:
    """Splits one volume at a time, then all; returns how many volumes there were."""
    graph, rng = model.graph, random.Random(seed)
    scheme = random_scheme(graph, rng.randint(2, 4), rng)
    volumes = find_volumes(graph, scheme)
    alone = tuple(SplitDecision((0, *(v.rows for _ in range(devices)))) for v in volumes)
    split = tuple(random_split(v.rows, devices, rng, zero_share=0.1) for v in volumes)
    feed = random_feed({n: (graph.tensors[n].shape, graph.tensors[n].dtype) for n in graph.inputs}, seed)
    sessions = PartSessions(model.onnx, model.weights.parent)

    def run(splits: tuple[SplitDecision, ...]) -> tuple[ExecutionPlan, dict[str, Array]]:
        plan = compile_plan(graph, Strategy(scheme, splits, 0), [f"peer{i}" for i in range(devices)])
        plan.validate()
        return plan, run_in_order(plan, sessions, feed)

    _, expected = run(alone)
    trials = [(*alone[:at], split[at], *alone[at + 1 :]) for at in range(len(volumes))]
    for at, splits in enumerate([*trials, split]):
        _plan, got = run(splits)
        for name, value in got.items():
            if name in expected and graph.tensors[name].partial_of is None:
                np.testing.assert_array_equal(
                    value, expected[name], f"{name} with volume {at} of {len(volumes)} split"
                )
    return len(volumes)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", [block.name for block in BLOCKS.values() if block.exact])
def test_blocks(name: str, seed: int) -> None:
    opset = random.Random(f"{name}{seed}").randint(*BLOCKS[name].opsets)
    model = load_model(network([name], opset=opset, seed=seed, tail=False).build())
    assert check_bit_equality(model, seed) >= 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "name", ["unet", "fpn", "yolo", "siamese", "shallow", "qdq_resnet", "boxes_by_score"]
)
def test_networks(name: str, seed: int) -> None:
    check_bit_equality(load_model(NETWORKS[name]().build()), seed)


@pytest.mark.parametrize("devices", [2, 5, 9])
def test_numbers_of_devices(devices: int) -> None:
    check_bit_equality(load_model(models.branches(24)), devices, devices)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "ReduceSum", "ReduceL2", "ReduceL1"])
def test_sums_over_large_maps_are_close_to_exact(op: str) -> None:
    """Whoever adds up hundreds of thousands of floats in one go is off by many times as much."""
    net = models.ModelBuilder(13)
    x = net.input(1, 5, 320, 400)
    positive = net.add("Abs", x)
    made = net.add(op, positive) if op.startswith("Global") else net.reduce(op, positive, 2, 3)
    net.output(made, net.add("Mul", positive, net.scalar(2)))
    model = load_model(net.build())
    decision = SplitDecision((0, 100, 100, 320))
    plan = compile_plan(model.graph, Strategy(PartitionScheme(), (decision,), 0), ["a", "b", "c"])
    feed = random_feed({"x0": ((1, 5, 320, 400), "float32")}, 0)
    got = run_in_order(plan, PartSessions(model.onnx, model.weights.parent), feed)[made].astype(np.float64)
    wide = np.abs(feed["x0"].astype(np.float64))
    exact = {
        "GlobalAveragePool": wide.mean((2, 3)),
        "ReduceSum": wide.sum((2, 3)),
        "ReduceL1": wide.sum((2, 3)),
        "ReduceL2": np.sqrt((wide**2).sum((2, 3))),
    }[op]
    np.testing.assert_allclose(got[:, :, 0, 0], exact, rtol=5e-7)


@pytest.mark.parametrize("strokes", [False, True])
def test_pictures_are_the_same_for_the_same_seed(strokes: bool) -> None:
    inputs = {
        "x": ((2, 3, 40, 30), "float32"),
        "y": ((1, 24, 16, 3), "float64"),
        "low": ((1, 1, 1, 2), "float32"),
    }
    first, again = (random_feed(inputs, 3, strokes=strokes) for _ in range(2))
    for name, (shape, dtype) in inputs.items():
        assert (first[name].shape, first[name].dtype) == (shape, np.dtype(dtype))
        np.testing.assert_array_equal(first[name], again[name])
        assert np.ptp(first[name]) > 0 or name == "low"
    assert (random_feed(inputs, 4, strokes=strokes)["x"] != first["x"]).any()


def test_faint_answers_get_another_picture() -> None:
    """A net that answers next to nothing on one kind of picture is shown another."""
    from distredge.control import verify as control

    assert control._is_faint(np.full(3, 1e-3, np.float32))
    assert not control._is_faint(np.full(3, 0.1, np.float32))
    assert not control._is_faint(np.zeros(3, np.float32))
    assert not control._is_faint(np.array([1], np.int64))
    assert not control._is_faint(np.zeros((0, 3), np.float32))
    net = models.ModelBuilder(13)
    net.output(net.add("Mul", net.conv(net.input(1, 3, 20, 8), 4), net.scalar(1e-4)))
    outcome = control.verify(load_model(net.build()), strategies=4)
    assert outcome.ok


def mean_taken_off(shift: float) -> Model:
    """Values around `shift`, less their mean."""
    net = models.ModelBuilder(13)
    values = net.add("Add", net.conv(net.input(1, 3, 16, 16), 4), net.scalar(shift))
    net.output(net.add("Sub", values, net.add("GlobalAveragePool", values)))
    return load_model(net.build())


def test_an_answer_may_be_off_as_far_as_rounding_of_sums_moves_it() -> None:
    from distredge.control import verify as control

    model = mean_taken_off(1e4)
    outcome = control.verify(model, strategies=6)
    assert outcome.ok
    assert outcome.max_rel_error > control.REDUCTION_TOLERANCE, "harmless: it shows nothing"
    reference = control.ExactReference(model, [random_feed({"x0": ((1, 3, 16, 16), "float32")}, 0)])
    (exact,) = reference.outputs[0]
    allowed = [control.REDUCTION_TOLERANCE]
    faults = {"rows of one lower": np.roll(exact, 1, axis=2), "a mean of others": exact + 0.01 * exact.max()}
    for what, got in faults.items():
        assert not reference.excuses(0, [got], [exact], allowed), what
    assert reference.excuses(0, [exact], [exact], allowed)


def test_where_rounding_moves_little_nothing_more_is_allowed() -> None:
    from distredge.control import verify as control

    model = mean_taken_off(0.0)
    reference = control.ExactReference(model, [random_feed({"x0": ((1, 3, 16, 16), "float32")}, 0)])
    assert reference.moved[0][0] < 1e-6
