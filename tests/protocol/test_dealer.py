"""Which way frames go: the one that will be done first, by what was seen of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import heappop, heappush

import pytest

from distredge.protocol.dealer import RETRY, Dealer


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stream(
    service_s: list[float], frames: int, in_flight: int, first_s: Sequence[float] = ()
) -> tuple[Counter[int], float]:
    """Frames of each way, and how long all took; each way has one frame at a time, and for its first one
    needs `first_s` more."""
    clock = Clock()
    dealer = Dealer(clock)
    free_s = [0.0] * len(service_s)
    ends: list[tuple[float, int]] = []
    dealt: Counter[int] = Counter()
    for at in range(frames + in_flight):
        if len(ends) == in_flight or at >= frames:
            if not ends:
                break
            clock.now, way = heappop(ends)
            dealer.answered(way)
        if at < frames:
            way = dealer.deal(range(len(service_s)))
            free_s[way] = max(free_s[way], clock.now) + service_s[way]
            if first_s and not dealt[way]:
                free_s[way] += first_s[way]
            heappush(ends, (free_s[way], way))
            dealt[way] += 1
    return dealt, clock.now


def test_equal_ways_share_frames() -> None:
    dealt, spent_s = stream([0.1, 0.1], 100, 4)
    assert dealt == {0: 50, 1: 50}
    assert spent_s == pytest.approx(5.0)


def test_unequal_ways_get_frames_by_speed() -> None:
    dealt, spent_s = stream([0.1, 0.2, 0.4], 700, 8)
    assert spent_s < 1.05 * 700 / (10 + 5 + 2.5)
    assert dealt[0] == pytest.approx(400, rel=0.05)


def test_what_is_far_slower_is_hardly_used() -> None:
    dealt, spent_s = stream([0.01, 10.0], 1000, 4)
    assert dealt[1] <= 2  # before anything is known of either
    assert spent_s < 1.01 * 20.0


def take(dealer: Dealer, clock: Clock, way: int, seconds: float, frames: int = 1) -> None:
    """Frames of one way, one after another."""
    for _ in range(frames):
        assert dealer.deal((way,)) == way
        clock.now += seconds
        dealer.answered(way)


def test_the_first_of_equals_and_one_frame_at_a_time() -> None:
    clock = Clock()
    dealer = Dealer(clock)
    take(dealer, clock, 7, 1.0, 2)
    take(dealer, clock, 9, 3.0, 2)
    for _ in range(5):
        assert dealer.deal((7, 9)) == 7
        clock.now += 1.0
        dealer.answered(7)


def test_frames_one_at_a_time_go_the_first_way_and_try_no_other() -> None:
    dealt, _ = stream([1.0, 2.0, 9.0], 50, 1)
    assert dealt == {0: 50}
    dealt, _ = stream([1.0, 2.0, 9.0], 50, 3)
    assert dealt[1] > 10, "but what is busy makes the others known"


def test_a_slow_first_frame_is_not_what_a_way_is_like() -> None:
    dealt, _ = stream([0.1, 0.1], 400, 4, first_s=[0.0, 5.0])
    assert dealt[1] > 150


def test_an_idle_way_is_tried_again_and_known_anew() -> None:
    clock = Clock()
    dealer = Dealer(clock)
    take(dealer, clock, 0, 1.0, 2)
    take(dealer, clock, 1, 4.0, 9)
    dealer.deal((0, 1))
    clock.now += 4.0 * RETRY + 1
    assert dealer.deal((0, 1)) == 1
    clock.now += 0.5
    dealer.answered(1)
    dealer.answered(0)
    assert dealer.deal((0, 1)) == 1


def test_dropped_frames_and_ways_that_are_over_count_no_more() -> None:
    clock = Clock()
    dealer = Dealer(clock)
    assert [dealer.deal((0, 1)) for _ in range(3)] == [0, 1, 0]
    dealer.dropped(0)
    dealer.dropped(0)
    dealer.dropped(0)
    assert dealer.deal((0, 1)) == 0
    dealer.forget(0)
    dealer.answered(0)
    assert dealer.deal((0, 1)) == 0
