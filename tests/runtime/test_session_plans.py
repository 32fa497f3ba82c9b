"""Sessions: new input sizes, given plans, changes of plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distredge.errors import InputError, StrategyError
from distredge.graph.importer import load_model
from distredge.plan.compile import compile_plan
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.session import InferenceSession
from tests.models import ModelBuilder, chain, excited
from tests.runtime.support import RNG, agree, image, open_model, whole


def test_new_sizes_get_new_plans(cache: Path) -> None:
    model = open_model()
    with InferenceSession(model, local_peers=2, cache_dir=cache, sizes_kept=4) as session:
        assert session.get_inputs()[0].shape == ["batch", 3, "rows", "columns"]
        with pytest.raises(InputError, match="input shape"):
            _ = session.plan
        sizes = [(1, 20, 6), (2, 13, 6), (1, 20, 9), (1, 31, 7), (1, 8, 6), (1, 20, 6)]
        for batch, rows, columns in sizes:
            x = RNG.standard_normal((batch, 3, rows, columns)).astype("float32")
            agree(session.run(None, {"x0": x}), whole(model, {"x0": x}))
        assert len(session._sizes._sizes) <= 4
        mixed = [RNG.standard_normal((1, 3, rows, 6)).astype("float32") for rows in (8, 20, 8, 20, 11)]
        for x, outputs in zip(mixed, session.stream(mixed, in_flight=4), strict=True):
            agree(outputs, whole(model, {"x0": x}))


def test_reductions_tails_and_more_peers_than_rows(cache: Path) -> None:
    model = excited(rows=3)
    with InferenceSession(model, local_peers=4, policy="equal", cache_dir=cache) as session:
        x = image(3)
        agree(session.run(None, {"x0": x}), whole(model, {"x0": x}))


def test_two_inputs_one_of_them_an_output_and_a_scalar(cache: Path) -> None:
    net = ModelBuilder()
    x, y = net.input(1, 3, 12, 6), net.input(1, 3, 12, 6, dtype="uint8")
    joined = net.add("Add", net.conv(x, 3), net.add("Cast", y, to=1))
    net.output(net.conv(joined, 2))
    feed = {"x0": image(12), "x1": RNG.integers(0, 255, (1, 3, 12, 6)).astype("uint8")}
    with InferenceSession(net.build(), local_peers=2, policy="equal", cache_dir=cache) as session:
        assert [i.type for i in session.get_inputs()] == ["tensor(float)", "tensor(uint8)"]
        agree(session.run(None, feed), whole(net.build(), feed))
        with pytest.raises(InputError, match="2 inputs; give a dict with x0, x1"):
            list(session.stream([image(12)]))


def test_a_given_plan_and_a_change_of_plan(cache: Path, tmp_path: Path) -> None:
    model = load_model(chain(), cache_dir=cache)
    names = ["peer0", "peer1"]
    plan = compile_plan(model.graph, _uneven(model.graph, 0.25), names, model=model.weights_sha256)
    plan.save(tmp_path / "plan.json")
    with InferenceSession(model, local_peers=2, plan=tmp_path / "plan.json", cache_dir=cache) as session:
        assert session.plan == plan
        x = image(16)
        expected = session.run(None, {"x0": x})
        agree(expected, whole(chain(), {"x0": x}))
        stream = session.stream((x for _ in range(30)), in_flight=4)
        answers = [next(stream)]
        session.use(_uneven(model.graph, 0.75))
        answers += list(stream)
        assert len(answers) == 30
        for outputs in answers:
            agree(outputs, expected)
        assert session.plan.strategy == _uneven(model.graph, 0.75)
        assert len(session._client.plans) <= 4
    other = load_model(chain(rows=18), cache_dir=cache)
    with pytest.raises(StrategyError, match="another model"):
        InferenceSession(other, local_peers=2, plan=plan, cache_dir=cache)
    with pytest.raises(StrategyError, match="2 devices, there are 1 peers"):
        InferenceSession(model, local_peers=1, plan=plan, cache_dir=cache)


def _uneven(graph, share: float) -> Strategy:
    scheme = PartitionScheme((graph.cut_points[1],))
    splits = [SplitDecision.from_shares(v.rows, [share, 1 - share]) for v in find_volumes(graph, scheme)]
    return Strategy(scheme, tuple(splits))


def test_peers_of_unequal_speed_get_unequal_rows(cache: Path) -> None:
    net = ModelBuilder()
    x = net.input(1, 3, 96, 96)
    for _ in range(4):
        x = net.relu(net.conv(x, 32))
    net.output(x)
    with InferenceSession(net.build(), local_peers=[1.0, 0.25], cache_dir=cache) as session:
        assert session.limited_by in ("cpu quota", "duty cycle")
        first, second = (session.plan.strategy.splits[0].part(device).size for device in range(2))
        assert first > 1.5 * second
        feed = {"x0": RNG.standard_normal((1, 3, 96, 96)).astype("float32")}
        agree(session.run(None, feed), whole(net.build(), feed))


def test_a_size_that_comes_again_is_not_imported_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distredge.runtime import sizes as module

    imported = []
    monkeypatch.setattr(
        module, "load_model", lambda *args, **named: imported.append(args) or load_model(*args, **named)
    )
    with InferenceSession(
        open_model(), local_peers=2, policy="equal", cache_dir=cache, sizes_kept=1
    ) as session:
        for rows in (20, 24, 20, 24, 24):
            feed = {"x0": image(rows)}
            agree(session.run(None, feed), whole(open_model(), feed))
    assert len(imported) == 2


@pytest.mark.parametrize("change", [{"shape": (1, 3, 16, 5)}, {"dtype": "float64"}, {"shape": (1, 3, 16)}])
def test_a_plan_that_was_changed_by_hand_is_refused(cache: Path, change: dict[str, Any]) -> None:
    with InferenceSession(chain(), local_peers=2, policy="equal", cache_dir=cache) as session:
        plan = session.plan
        (name,) = plan.inputs
        tensors = {**plan.tensors, name: replace(plan.tensors[name], **change)}
        with pytest.raises(StrategyError, match="is not what its strategy gives for this model"):
            session.use(replace(plan, tensors=tensors))
        session.use(plan)
