"""Snapshots from counts, without a session: what they hold, what they say happened, how they travel."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from distredge.cluster.network import Link, Network
from distredge.errors import ProtocolError
from distredge.graph.importer import load_model
from distredge.plan.compile import compile_plan
from distredge.plan.execution import ExecutionPlan
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.view.snapshot import FORMAT, Snapshot, from_json, to_json
from distredge.view.terminal import render
from distredge.view.watch import WINDOW_S, Counts, DeviceCount, Watch
from tests.models import chain


@pytest.fixture(scope="module")
def plans() -> list[ExecutionPlan]:
    graph = load_model(chain()).graph
    rows = graph.tensors[graph.outputs[0]].rows
    return [
        compile_plan(
            graph, Strategy(PartitionScheme(), (SplitDecision((0, at, rows)),)), ("a", "b"), model=""
        )
        for at in (rows // 2, rows)
    ]


def device(name: str, *, busy_s: float = 0.0, lost: str = "", up_s: float = 1.0) -> DeviceCount:
    return DeviceCount(name, f"tcp://{name}", not lost, lost, up_s, busy_s)


def counts(
    now: float,
    plan: ExecutionPlan | None,
    epoch: int | None = 0,
    devices: Iterable[DeviceCount] = (device("a"), device("b")),
    answered: Iterable[tuple[float, float]] = (),
) -> Counts:
    return Counts(now, 1000 + now, list(devices), epoch, plan, {0: 0.002}, iter(answered), 1)


def latest(watch: Watch) -> Snapshot:
    assert watch.latest is not None
    return watch.latest


def test_load_rate_and_latency_are_of_the_latest_seconds(plans: list[ExecutionPlan]) -> None:
    watch = Watch("m")
    answered: list[tuple[float, float]] = []
    for step in range(40):
        now = 0.25 * step
        busy_s = now / 4 if now < 5 else 1.25 + (now - 5)
        if step:
            answered.append((now, 0.010 if now < 5 else 0.030))
        devices = [device("a", busy_s=busy_s), device("b")]
        watch.take(counts(now, plans[0], devices=devices, answered=reversed(answered)))
        if step == 19:
            assert [each.load for each in latest(watch).devices] == pytest.approx([0.25, 0.0])
            assert latest(watch).latency_ms == pytest.approx(10)
    found = latest(watch)
    assert [each.load for each in found.devices] == pytest.approx([1.0, 0.0])
    assert found.images_per_second == pytest.approx(13 / WINDOW_S)
    assert (found.latency_ms, found.latency_p95_ms) == (pytest.approx(30), pytest.approx(30))
    assert (found.frames, found.in_flight) == (39, 1)


def test_links_carry_what_frames_send(plans: list[ExecutionPlan]) -> None:
    plan = plans[0]
    watch = Watch("m", Network((Link(uplink_mbps=50, downlink_mbps=20), Link())))
    watch.take(counts(3.0, plan, answered=[(2.0 - 0.1 * at, 0.01) for at in range(6)]))
    found = {(link.source, link.target): link for link in latest(watch).links}
    sent = sum(plan.transfer_bytes(t) for t in plan.transfers if (t.source, t.target) == (-1, 0))
    link = found["requester", "a"]
    assert link.frame_bytes == sent > 0
    assert link.mbps == pytest.approx(sent * 8e-6 * 6 / WINDOW_S)
    assert link.limit_mbps == 20
    assert found["a", "requester"].limit_mbps == 50
    assert found["requester", "b"].limit_mbps is None
    assert sum(each.transit_ms is not None for each in found.values()) == 1


def test_what_happened(plans: list[ExecutionPlan]) -> None:
    watch = Watch("m")
    watch.take(counts(0, plans[0]))
    watch.take(counts(1, None, None, [device("a"), device("b", lost="died")]))
    watch.take(counts(2, plans[1], 4, [device("a"), device("b", lost="died")]))
    watch.take(counts(3, plans[0], 0, [device("a"), device("b", up_s=2.5)]))
    watch.take(counts(4, plans[0], 0, [device("a", up_s=3.5), device("b", up_s=2.5)]))  # between two looks
    events = latest(watch).events
    assert [(event.number, event.kind) for event in events] == list(
        enumerate(["plan", "lost", "plan", "plan", "back", "plan", "lost", "back"])
    )
    assert [event.text for event in events[:6]] == [
        "plan 0, 1 volume: a 50%, b 50%",
        "b died",
        "no plan for the peers that are left; frames wait",
        "plan 4, 1 volume: a 100%",
        "b is back",
        "plan 0, 1 volume: a 50%, b 50%",
    ]
    assert events[1].at_s == 1001


def test_a_snapshot_travels_as_json(plans: list[ExecutionPlan]) -> None:
    watch = Watch("m")
    watch.take(counts(0, plans[0], answered=[(0, 0.01), (-0.5, 0.02)]))
    watch.take(counts(1, None, None, [device("a", lost="died"), device("b")]))
    assert from_json(to_json([latest(watch)])) == [latest(watch)]
    for wrong in ("", "[]", "[" * 100_000, '{"format": "distredge-view-0"}'):
        with pytest.raises(ProtocolError, match="what came is no"):
            from_json(wrong)
    with pytest.raises(ProtocolError):
        from_json(f'{{"format": "{FORMAT}", "sessions": [{{"model": 3}}]}}')


def test_in_the_terminal(plans: list[ExecutionPlan]) -> None:
    watch = Watch("net")
    watch.take(counts(0, plans[0]))
    watch.take(counts(1, plans[1], 1, [device("a", busy_s=0.5), device("b", lost="died")], [(1, 0.01)]))
    text = render([latest(watch)])
    assert "net: 0.3 images a second, latency 10.0 ms" in text
    assert "A a        50% ##########.........." in text
    assert "LOST: died" in text
    assert f"0 {'A' * 60} " in text
    assert text.index("plan 0") < text.index("b died") < text.index("plan 1")
    assert "\x1b" not in text
    assert "\x1b[31m" in render([latest(watch)], colours=True)
    assert render([]) == "no session yet"
    watch.take(counts(2, None, None))
    assert "none at the moment" in render([latest(watch)])
