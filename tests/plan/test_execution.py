"""Plan files: there and back, and whatever else may lie in a file of that name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distredge.errors import StrategyError
from distredge.graph.rows import Rows
from distredge.plan.execution import FORMAT_VERSION, REQUESTER, ExecutionPlan, TensorInfo, Transfer
from distredge.plan.serde import to_plain
from tests.plan.support import NAMES, random_plan
from tests.protocol.plans import halo_plan
from tests.protocol.test_serde import paths, with_value


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    for seed in range(3):
        plan = random_plan(name, 3, 3, seed)
        plan.save(tmp_path / "plan.json")
        back = ExecutionPlan.load(tmp_path / "plan.json")
        assert back == plan
        assert repr(back) == repr(plan)
        assert {k: hash(v) for k, v in back.parts.items()} == {k: hash(v) for k, v in plan.parts.items()}


def test_file_is_json_that_names_itself(tmp_path: Path) -> None:
    plan = halo_plan()
    plan.save(str(tmp_path / "plan.json"))
    document = json.loads((tmp_path / "plan.json").read_text())
    assert document == {"format": "distredge-plan", "version": 2, "plan": to_plain(plan)}


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def document(plan: Any, **changes: Any) -> dict[str, Any]:
    return {"format": "distredge-plan", "version": FORMAT_VERSION, "plan": plan, **changes}


PLAIN = to_plain(halo_plan())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        (json.dumps(document(PLAIN))[:-30], "no JSON"),
        ("[" * 100_000, "not a plan file"),
        ("null", "not a plan file"),
        ([1, 2], "not a plan file"),
        ({}, "not a plan file"),
        ({"format": "another"}, "not a plan file"),
        (document(PLAIN, version=FORMAT_VERSION + 1), "plan format 3, not 2; make it anew"),
        (document(PLAIN, version=None), "plan format None"),
        (document(None), "damaged"),
        (document([]), "damaged"),
        (document(PLAIN[:-1]), "damaged"),
        ({"format": "distredge-plan", "version": FORMAT_VERSION}, "damaged"),
    ],
)
def test_files_that_are_no_plan(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match=message):
        ExecutionPlan.load(written(tmp_path / "plan.json", content))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match="No such file"):
        ExecutionPlan.load(tmp_path / "none.json")
    with pytest.raises(StrategyError, match="directory"):
        ExecutionPlan.load(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(StrategyError, match="not a plan file"):
        ExecutionPlan.load(tmp_path / "bytes.json")


def test_a_plan_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    plain = to_plain(halo_plan())
    plain[9].pop()
    with pytest.raises(StrategyError):
        ExecutionPlan.load(written(tmp_path / "plan.json", document(plain)))


LEAVES = (
    st.integers(-3, 12)
    | st.sampled_from(["", "x", "a", "y", "part0", "float32"])
    | st.none()
    | st.integers()
    | st.just([])
    | st.lists(st.integers(-2, 9), max_size=4)
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files(data: st.DataObject, tmp_path: Path) -> None:
    """A value or two of a plan replaced: a valid plan still, or a StrategyError and nothing else."""
    plain = to_plain(halo_plan())
    for _ in range(data.draw(st.integers(1, 2))):
        plain = with_value(plain, data.draw(st.sampled_from(paths(plain)[1:])), data.draw(LEAVES))
    try:
        plan = ExecutionPlan.load(written(tmp_path / "plan.json", document(plain)))
    except StrategyError:
        return
    plan.validate()
    for transfer in plan.transfers:
        assert plan.transfer_bytes(transfer) >= 0


def test_bytes_on_the_wire() -> None:
    plan = halo_plan()
    assert plan.row_bytes("x") == 8
    assert plan.transfer_bytes(plan.transfers[0]) == 40
    whole = TensorInfo("float16", (2, 3), None)
    assert (whole.rows, whole.all_rows, whole.part_shape(Rows(0, 1))) == (1, Rows(0, 1), (2, 3))
    rowed = TensorInfo("uint8", (1, 2, 7, 3), 2)
    assert (rowed.rows, rowed.part_shape(Rows(2, 5))) == (7, (1, 2, 3, 3))
    for dtype, size in (
        ("float32", 4),
        ("bool", 1),
        ("int64", 8),
        ("bfloat16", 2),
        ("float8_e4m3fn", 1),
        ("object", 16),
    ):
        one = ExecutionPlan(
            "", "", (), plan.strategy, (), (), {"t": TensorInfo(dtype, (3,), 0)}, {}, (), (), ()
        )
        assert one.transfer_bytes(Transfer(0, "t", Rows(0, 2), REQUESTER, 0)) == 2 * size
