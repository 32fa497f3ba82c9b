"""What a choice of wire makes of a plan."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from distredge.errors import InputError, StrategyError
from distredge.graph import zoo
from distredge.graph.importer import load_model
from distredge.graph.model import Graph
from distredge.plan.compile import compile_plan
from distredge.plan.execution import REQUESTER, ExecutionPlan, Transfer
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.wire import FP16, INT8, LOSSLESS, RAW, WIRES, coding_of, whole_bytes
from tests.plan.support import random_plan


@cache
def graph() -> Graph:
    return load_model(zoo.get("squeezenet").build().SerializeToString()).graph


@cache
def plan(wire: str) -> ExecutionPlan:
    cut = graph().cut_points[3]
    rows = graph().tensors[cut].rows
    last = Strategy(PartitionScheme((cut,)), (SplitDecision((0, rows // 2, rows)), SplitDecision((0, 7, 13))))
    made = compile_plan(graph(), last, ["a", "b"], wire=wire)
    made.validate()
    return made


def between(made: ExecutionPlan) -> list[Transfer]:
    return [t for t in made.transfers if t.source != REQUESTER and t.target != REQUESTER]


@pytest.mark.parametrize(
    ("wire", "coding"), [("exact", LOSSLESS), ("raw", RAW), ("fp16", FP16), ("int8", INT8)]
)
def test_large_maps_are_coded_as_asked(wire: str, coding: str) -> None:
    maps = [t for t in between(plan(wire)) if graph().tensors[t.tensor].total_bytes > 100_000]
    assert maps
    assert {t.coding for t in maps} == {coding}


@pytest.mark.parametrize("wire", [FP16, INT8])
def test_what_is_never_rounded(wire: str) -> None:
    made = plan(wire)
    assert {t.coding for t in made.transfers if REQUESTER in (t.source, t.target)} == {LOSSLESS}
    partials = [t for t in made.transfers if graph().tensors[t.tensor].partial_of]
    assert partials
    assert {t.coding for t in partials} == {LOSSLESS}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", ["boxes_by_score", "two_inputs", "barrier_in_the_middle"])
def test_whatever_is_no_float_travels_raw(wire: str, name: str) -> None:
    made = random_plan(name, 3, 3, 0, wire)
    made.validate()
    for transfer in made.transfers:
        info = made.tensors[transfer.tensor]
        assert transfer.coding == RAW or (info.dtype in ("float32", "float16") and not info.dynamic)


def test_halves_are_not_halved_again() -> None:
    tensors = {name: replace(t, dtype="float16") for name, t in graph().tensors.items()}
    halves = replace(graph(), tensors=tensors)
    name = between(plan(FP16))[0].tensor
    assert coding_of(halves, name, FP16) == LOSSLESS
    assert coding_of(halves, name, INT8) == INT8
    assert 2 * whole_bytes(halves, name, INT8) == pytest.approx(halves.tensors[name].total_bytes, rel=0.01)


@pytest.mark.parametrize(("wire", "share"), [("raw", 1.0), ("exact", 1.0), ("fp16", 0.5), ("int8", 0.25)])
def test_bytes_on_the_wire(wire: str, share: float) -> None:
    made = plan(wire)
    transfer = max(between(made), key=made.transfer_bytes)
    channels = graph().tensors[transfer.tensor].shape[1]
    beside = 8 * channels if wire == "int8" else 0
    assert made.sent_bytes(transfer) == share * made.transfer_bytes(transfer) + beside


@pytest.mark.parametrize("wire", ["zip", "", None, 8])
def test_an_unknown_wire_is_refused(wire: object) -> None:
    with pytest.raises(InputError, match="it may be exact, raw, fp16 or int8"):
        compile_plan(graph(), plan("raw").strategy, ["a", "b"], wire=wire)  # type: ignore[arg-type]


def test_plans_that_do_not_say_it_right_are_refused() -> None:
    made = plan(INT8)
    with pytest.raises(StrategyError, match="the plan's wire is 'zip'"):
        replace(made, wire="zip").validate()
    wrong = replace(made.transfers[0], coding="zip")
    with pytest.raises(StrategyError, match="transfer 0 of float32 cannot be coded as 'zip'"):
        replace(made, transfers=(wrong, *made.transfers[1:])).validate()
    info = replace(made.tensors[wrong.tensor], dtype="uint8")
    with pytest.raises(StrategyError, match="transfer 0 of uint8 cannot be coded as 'lossless'"):
        replace(made, tensors={**made.tensors, wrong.tensor: info}).validate()
