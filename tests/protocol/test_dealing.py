"""Succession with plans beside each other: frames dealt to all, losses, returns; exact instructions."""

from __future__ import annotations

from dataclasses import replace

from distredge.plan.execution import ExecutionPlan
from distredge.protocol.events import (
    AnnouncePlan,
    DeliverFrame,
    DeviceBack,
    DeviceLost,
    DeviceReady,
    EpochFailed,
    FindPlan,
    FrameSubmitted,
    LeaveEpoch,
    Members,
    PlanFound,
    RetireEpoch,
    RowsArrived,
    Under,
    UseEpoch,
)
from distredge.protocol.succession import Succession
from tests.protocol.plans import halo_plan
from tests.protocol.test_succession import BOTH, ONE, sent, solo_plan, told


def dealt_plan() -> ExecutionPlan:
    """Either of two devices computes all of a frame."""
    return replace(solo_plan(0), beside=(solo_plan(1),))


def dealing(standbys: bool = False) -> Succession:
    """Epochs 0 and 1, one for each device, are in use."""
    state = Succession(BOTH, standbys=standbys)
    found = PlanFound(0, BOTH, dealt_plan(), asked=False, beside=(1,))
    assert state.handle(found) == [AnnouncePlan(0), AnnouncePlan(1)]
    told(state, DeviceReady(0, 0), DeviceReady(1, 1))
    told(state, UseEpoch(0))
    assert state.ways == (0, 1)
    return state


def test_frames_are_dealt_out() -> None:
    state = dealing()
    for frame in range(4):
        assert state.handle(FrameSubmitted(frame)) == sent(frame % 2, frame, 0)
    assert state.handle(Under(1, RowsArrived(1, 1))) == [Under(1, DeliverFrame(1))]
    assert state.handle(FrameSubmitted(4)) == sent(1, 4, 0)
    assert state.frames == (0, 2, 3, 4)


def test_nothing_runs_before_all_are_ready() -> None:
    state = Succession(BOTH, standbys=False)
    found = PlanFound(0, BOTH, dealt_plan(), asked=False, beside=(1,))
    told(state, found, UseEpoch(0), FrameSubmitted(0))
    assert state.handle(DeviceReady(1, 1)) == []
    assert state.handle(DeviceReady(0, 0)) == sent(0, 0, 0)


def test_a_lost_devices_frames_are_dealt_to_the_others() -> None:
    """They are as good as another plan: none is asked for, before or after."""
    state = dealing(standbys=True)
    told(state, *(FrameSubmitted(frame) for frame in range(3)))
    assert state.handle(DeviceLost(0)) == [RetireEpoch(0), *sent(1, 0, 0), *sent(1, 2, 0)]
    assert state.ways == (1,)
    assert state.is_settled


def test_when_it_is_back_there_is_a_new_plan_for_all() -> None:
    for lost in (0, 1):
        state = dealing()
        told(state, DeviceLost(lost))
        assert state.handle(DeviceBack(lost)) == [FindPlan(BOTH)]
        told(state, PlanFound(2, BOTH, dealt_plan(), beside=(3,)), FrameSubmitted(0))
        assert state.handle(DeviceReady(2, 0)) == []
        assert state.handle(DeviceReady(3, 1)) == []
        assert state.ways == (2, 3)
        # The one that was left has a frame, and ends with it.
        left = 1 - lost
        delivered = state.handle(Under(left, RowsArrived(0, 1)))
        assert delivered == [Under(left, DeliverFrame(0)), RetireEpoch(left)]


def test_a_group_that_loses_one_is_replaced() -> None:
    """Two devices split frames, the third is alone: when one of the two is lost the other one is idle."""
    everybody: Members = frozenset({0, 1, 2})
    names = ("a", "b", "c")
    alone = replace(solo_plan(2), devices=names)
    plan = replace(halo_plan(), devices=names, beside=(alone,))
    state = Succession(everybody, standbys=False)
    told(state, PlanFound(0, everybody, plan, asked=False, beside=(1,)))
    told(state, DeviceReady(0, 0), DeviceReady(0, 1), DeviceReady(1, 2), UseEpoch(0))
    assert state.ways == (0, 1)
    assert state.handle(DeviceLost(0)) == [RetireEpoch(0), FindPlan(frozenset({1, 2}))]
    assert state.handle(FrameSubmitted(0)) == sent(1, 0, 0)


def test_a_group_leaves_and_fails_as_one() -> None:
    state = dealing()
    told(state, PlanFound(2, BOTH, halo_plan(), asked=False), DeviceReady(2, 0), DeviceReady(2, 1))
    assert told(state, UseEpoch(2), LeaveEpoch(0)) == [[], [RetireEpoch(0), RetireEpoch(1)]]
    state = dealing()
    told(state, PlanFound(2, BOTH, dealt_plan(), asked=False, beside=(3,)), DeviceReady(2, 0))
    assert state.handle(EpochFailed(3)) == [RetireEpoch(2), RetireEpoch(3)]
    assert state.ways == (0, 1)


def test_a_plan_for_a_device_that_is_lost_comes_too_late() -> None:
    state = Succession(ONE, standbys=False)
    assert state.handle(PlanFound(0, BOTH, dealt_plan(), asked=False, beside=(1,))) == []
    assert state.epochs == ()
