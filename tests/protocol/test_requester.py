"""RequesterState: scatter, gather, and what it refuses."""

from __future__ import annotations

import itertools

import pytest

from distredge.protocol.events import (
    DeliverFrame,
    FrameDropped,
    FrameSubmitted,
    PartFinished,
    RejectRows,
    RowsArrived,
    SendRows,
)
from distredge.protocol.requester import RequesterState
from tests.protocol.plans import echo_plan, halo_plan, independent_plan


def test_one_frame() -> None:
    state = RequesterState(halo_plan())
    assert state.handle(FrameSubmitted(0)) == [SendRows(0, 0), SendRows(0, 1)]
    assert state.frames == (0,)
    assert state.handle(RowsArrived(0, 5)) == []
    assert state.handle(RowsArrived(0, 4)) == [DeliverFrame(0)]
    assert state.frames == ()


@pytest.mark.parametrize("order", list(itertools.permutations([(0, 2), (0, 3), (1, 2), (1, 3)])))
def test_frames_are_delivered_as_they_complete(order: tuple[tuple[int, int], ...]) -> None:
    state = RequesterState(independent_plan())
    for frame in (0, 1):
        assert state.handle(FrameSubmitted(frame)) == [SendRows(frame, 0), SendRows(frame, 1)]
    left = {0: 2, 1: 2}
    for frame, transfer in order:
        left[frame] -= 1
        wanted = [] if left[frame] else [DeliverFrame(frame)]
        assert state.handle(RowsArrived(frame, transfer)) == wanted


def test_rejections() -> None:
    state = RequesterState(halo_plan())
    assert state.handle(RowsArrived(0, 4)) == [RejectRows(0, 4, "frame is not open")]
    state.handle(FrameSubmitted(0))
    for transfer in (0, 1, 2, 3, 6, -1):
        assert state.handle(RowsArrived(0, transfer)) == [RejectRows(0, transfer, "not for the requester")]
    assert state.handle(RowsArrived(0, 4)) == []
    assert state.handle(RowsArrived(0, 4)) == [RejectRows(0, 4, "duplicate")]
    assert state.handle(RowsArrived(0, 5)) == [DeliverFrame(0)]
    assert state.handle(RowsArrived(0, 5)) == [RejectRows(0, 5, "frame is not open")]


def test_dropped_in_the_middle() -> None:
    state = RequesterState(halo_plan())
    state.handle(FrameSubmitted(0))
    state.handle(FrameSubmitted(1))
    state.handle(RowsArrived(0, 4))
    assert state.handle(FrameDropped(0)) == []
    assert state.frames == (1,)
    assert state.handle(RowsArrived(0, 5)) == [RejectRows(0, 5, "frame is not open")]
    assert state.handle(FrameDropped(0)) == []


def test_an_output_that_is_an_input_needs_nobody() -> None:
    plan = echo_plan()
    plan.validate()
    state = RequesterState(plan)
    assert state.handle(FrameSubmitted(3)) == [DeliverFrame(3)]
    assert state.frames == ()


def test_what_cannot_happen_is_an_error() -> None:
    state = RequesterState(halo_plan())
    state.handle(FrameSubmitted(0))
    with pytest.raises(ValueError, match="submitted twice"):
        state.handle(FrameSubmitted(0))
    with pytest.raises(TypeError):
        state.handle(PartFinished(0, 0))
