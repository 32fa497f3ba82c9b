"""Clocks and timelines, without processes."""

from __future__ import annotations

from distredge.graph.importer import load_model
from distredge.plan.compile import compile_plan
from distredge.plan.execution import REQUESTER
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.runtime.clock import ClockOffset, Clocks
from distredge.runtime.measure import computed_macs, even_strategy, evened
from distredge.runtime.trace import FrameTimes, PeerEvents, TraceEvent, merge
from tests.models import chain


def test_the_fastest_answer_tells_the_offset() -> None:
    offset = ClockOffset()
    offset.add(10.0, 10.4, 110.3)
    assert abs(offset.offset_s - 100.1) < 1e-9
    offset.add(20.0, 20.1, 120.05)
    offset.add(30.0, 30.9, 137.0)
    assert abs(offset.offset_s - 100.0) < 1e-9
    assert 0.1 - 1e-9 < offset.round_trip_s < 0.102, "what was best ages"


def test_answers_belong_to_questions() -> None:
    clocks = Clocks(2)
    first, second = clocks.ask(1.0), clocks.ask(5.0)
    clocks.answered(1, second, 5.2, 8.1)
    clocks.answered(1, first, 5.2, 8.1)
    clocks.answered(1, 99, 5.2, 500.0)
    assert (clocks.offset_s(0), round(clocks.offset_s(1), 6)) == (0.0, 3.0)


def test_events_of_several_clocks_become_one_timeline() -> None:
    graph = load_model(chain()).graph
    strategy = Strategy(PartitionScheme(), (SplitDecision((0, 4, 8)),))
    plan = compile_plan(graph, strategy, ["a", "b"])
    (to_a, to_b), (from_a, from_b) = (
        [t.id for t in plan.transfers if t.source == REQUESTER],
        [t.id for t in plan.transfers if t.target == REQUESTER],
    )
    collected = [
        PeerEvents(
            "requester",
            REQUESTER,
            0.0,
            [
                TraceEvent("send", 7, to_a, 100.0, 100.1, 10),
                TraceEvent("send", 7, to_b, 100.1, 100.2, 10),
                TraceEvent("receive", 7, from_a, 102.0, 102.0, 20),
                TraceEvent("receive", 7, from_b, 103.0, 103.0, 20),
            ],
        ),
        PeerEvents(
            "a",
            0,
            50.0,  # its clock is 50 s ahead
            [
                TraceEvent("receive", 7, to_a, 150.5, 150.5, 10),
                TraceEvent("run", 7, 0, 150.6, 151.6, 0),
                TraceEvent("send", 7, from_a, 151.7, 151.7, 20),
                TraceEvent("run", 6, 0, 140.0, 141.0, 0),
            ],
        ),
        PeerEvents(
            "b", 1, 0.0, [TraceEvent("run", 7, 1, 100.5, 102.5, 0), TraceEvent("run", 7, 99, 1.0, 2.0, 0)]
        ),
    ]
    activities = merge(collected, [FrameTimes(7, 0, 99.5, 103.5)], {0: plan})
    told = [
        (a.what, a.peer, a.to, a.frame, a.id, a.volume, round(a.start_s, 6), round(a.end_s, 6), a.bytes)
        for a in activities
    ]
    assert told == [
        ("frame", "requester", "", 7, 0, -1, 0.0, 4.0, 0),
        ("transfer", "requester", "a", 7, to_a, -1, 0.5, 1.0, 10),
        ("run", "b", "", 7, 1, 0, 1.0, 3.0, 0),
        ("run", "a", "", 7, 0, 0, 1.1, 2.1, 0),
        ("transfer", "a", "requester", 7, from_a, 0, 2.2, 2.5, 20),
    ]


def test_speeds_that_nearly_agree_are_equal() -> None:
    assert evened([100.0, 110.0]) == (105.0, 105.0)
    assert evened([100.0, 50.0]) == (100.0, 50.0)
    assert evened([100.0, 50.0, 0.0]) == (100.0, 50.0, 75.0)
    assert evened([0.0, 0.0]) == (1.0, 1.0)


def test_rows_computed_twice_count_twice() -> None:
    graph = load_model(chain(rows=64, layers=6)).graph
    total = sum(node.macs for node in graph.nodes)
    assert computed_macs(graph, even_strategy(graph, 1)) == [total]
    shares = computed_macs(graph, even_strategy(graph, 4))
    assert total < sum(shares) < 1.6 * total
    assert min(shares[1:3]) > max(shares[0], shares[3])  # the inner ones have two halos
