"""Succession: which plan each frame runs under while devices are lost and come back; exact instructions."""

from __future__ import annotations

import pytest

from distredge.errors import ProtocolError
from distredge.plan.execution import REQUESTER, ExecutionPlan
from distredge.protocol.epochs import REMEMBERED, EpochBook, Verdict
from distredge.protocol.events import (
    AnnouncePlan,
    DeliverFrame,
    DeviceBack,
    DeviceLost,
    DeviceReady,
    EpochFailed,
    FindPlan,
    ForgetFrame,
    FrameDropped,
    FrameSubmitted,
    LeaveEpoch,
    Members,
    NoPlanFound,
    PartFinished,
    PlanFound,
    RejectRows,
    RetireEpoch,
    RowsArrived,
    SendRows,
    SessionEvent,
    SessionInstruction,
    Under,
    UseEpoch,
)
from distredge.protocol.succession import Succession, involved_devices
from tests.protocol.plans import echo_plan, halo_plan, plan_of, rows_from, task

BOTH: Members = frozenset({0, 1})
ONE: Members = frozenset({1})
ZERO: Members = frozenset({0})


def solo_plan(device: int) -> ExecutionPlan:
    """One of two devices computes all. Transfer 0 goes to it, transfer 1 comes from it."""
    return plan_of(
        2,
        {"x": 8, "y": 8},
        [task(0, device, 0, [rows_from("x", (0, 8, "transfer", 0))], ("y", 0, 8))],
        [("x", 0, 8, REQUESTER, device, -1), ("y", 0, 8, device, REQUESTER, 0)],
        [rows_from("y", (0, 8, "transfer", 1))],
    )


def told(state: Succession, *events: SessionEvent) -> list[list[SessionInstruction]]:
    return [state.handle(event) for event in events]


def running(standbys: bool = False) -> Succession:
    """Epoch 0, both devices, is current."""
    state = Succession(BOTH, standbys=standbys)
    ready = [DeviceReady(0, 0), DeviceReady(0, 1)]
    told(state, PlanFound(0, BOTH, halo_plan(), asked=False), *ready, UseEpoch(0))
    assert state.current == 0
    return state


def sent(epoch: int, frame: int, *transfers: int) -> list[SessionInstruction]:
    return [Under(epoch, SendRows(frame, transfer)) for transfer in transfers]


def test_involved_devices() -> None:
    assert involved_devices(halo_plan()) == BOTH
    assert involved_devices(solo_plan(1)) == ONE
    assert involved_devices(echo_plan()) == frozenset()


def test_a_plan_is_announced_prepared_and_used() -> None:
    state = Succession(BOTH, standbys=False)
    assert told(
        state,
        FrameSubmitted(7),
        PlanFound(0, BOTH, halo_plan(), asked=False),
        DeviceReady(0, 1),
        DeviceReady(0, 1),
        UseEpoch(0),
        DeviceReady(0, 0),
        Under(0, RowsArrived(7, 4)),
        Under(0, RowsArrived(7, 5)),
    ) == [
        [],
        [AnnouncePlan(0)],
        [],
        [],
        [],
        sent(0, 7, 0, 1),
        [],
        [Under(0, DeliverFrame(7))],
    ]  # fmt: skip
    assert state.frames == ()


def test_frames_of_a_lost_device_go_where_it_is_not() -> None:
    state = running()
    assert told(state, FrameSubmitted(3), FrameSubmitted(4)) == [sent(0, 3, 0, 1), sent(0, 4, 0, 1)]
    assert state.handle(Under(0, RowsArrived(4, 4))) == []
    assert state.handle(DeviceLost(0)) == [RetireEpoch(0), FindPlan(ONE)]
    assert (state.waiting, state.current) == ((3, 4), None)
    assert state.handle(DeviceLost(0)) == []
    assert state.handle(PlanFound(1, ONE, solo_plan(1))) == [AnnouncePlan(1)]
    # What still comes of the epoch that ended is nobody's.
    late = RowsArrived(4, 5)
    assert state.handle(Under(0, late)) == [Under(0, RejectRows(4, 5, "epoch is over"))]
    assert state.handle(DeviceReady(1, 1)) == [*sent(1, 3, 0), *sent(1, 4, 0)]
    assert state.handle(Under(1, RowsArrived(4, 1))) == [Under(1, DeliverFrame(4))]
    assert state.handle(Under(1, RowsArrived(3, 1))) == [Under(1, DeliverFrame(3))]
    assert state.handle(Under(1, RowsArrived(3, 1))) == [Under(1, RejectRows(3, 1, "frame is not open"))]


def prepared() -> Succession:
    """Both standbys, epochs 1 (device 1 alone) and 2, are ready."""
    state = Succession(BOTH)
    told(state, PlanFound(0, BOTH, halo_plan(), asked=False), DeviceReady(0, 0), DeviceReady(0, 1))
    assert state.handle(UseEpoch(0)) == [FindPlan(ONE)]
    assert state.handle(PlanFound(1, ONE, solo_plan(1))) == [AnnouncePlan(1)]
    assert not state.is_settled
    assert state.handle(DeviceReady(1, 1)) == [FindPlan(ZERO)]
    assert state.handle(PlanFound(2, ZERO, solo_plan(0))) == [AnnouncePlan(2)]
    assert state.handle(DeviceReady(2, 0)) == []
    assert (state.current, state.is_settled) == (0, True)
    return state


def test_a_plan_for_the_loss_is_ready_before_it() -> None:
    state = prepared()
    state.handle(FrameSubmitted(0))
    assert state.handle(DeviceLost(0)) == [RetireEpoch(0), RetireEpoch(2), *sent(1, 0, 0)]
    assert (state.current, state.is_settled) == (1, True)


def test_a_device_that_comes_back_is_used_when_its_plan_is_ready() -> None:
    state = prepared()
    told(state, DeviceLost(0), FrameSubmitted(0))
    assert state.handle(DeviceBack(0)) == [FindPlan(BOTH)]
    assert state.handle(DeviceBack(0)) == []
    assert state.handle(PlanFound(3, BOTH, halo_plan())) == [AnnouncePlan(3)]
    assert state.handle(FrameSubmitted(1)) == sent(1, 1, 0)
    assert state.handle(DeviceReady(3, 1)) == []
    # The frames under way end where they are; the plan for its next loss is asked for.
    assert state.handle(DeviceReady(3, 0)) == [FindPlan(ZERO)]
    assert state.handle(FrameSubmitted(2)) == sent(3, 2, 0, 1)
    assert state.handle(Under(1, RowsArrived(1, 1))) == [Under(1, DeliverFrame(1))]
    assert [state.epoch_of(frame) for frame in range(3)] == [1, None, 3]


def test_a_loss_while_its_plan_is_prepared() -> None:
    state = Succession(BOTH)
    told(state, PlanFound(0, BOTH, halo_plan(), asked=False), DeviceReady(0, 0), DeviceReady(0, 1))
    told(state, UseEpoch(0), FrameSubmitted(0), PlanFound(1, ONE, solo_plan(1)))
    assert state.handle(DeviceLost(0)) == [RetireEpoch(0)]
    assert not state.is_stuck
    assert state.handle(DeviceReady(1, 1)) == sent(1, 0, 0)


def test_a_plan_that_comes_too_late_is_not_announced() -> None:
    state = prepared()
    state.handle(DeviceLost(0))
    told(state, DeviceBack(0), DeviceLost(0))
    assert state.handle(PlanFound(3, BOTH, halo_plan())) == []
    assert state.epochs == (1,)


def test_nobody_is_left_and_somebody_comes_back() -> None:
    state = prepared()
    told(state, FrameSubmitted(0), DeviceLost(1))
    assert state.handle(DeviceLost(0)) == [RetireEpoch(2)]
    assert (state.is_stuck, state.waiting, state.current) == (True, (0,), None)
    assert state.handle(DeviceBack(1)) == [FindPlan(ONE)]
    told(state, PlanFound(4, ONE, solo_plan(1)))
    assert state.handle(DeviceReady(4, 1)) == sent(4, 0, 0)


def test_no_plan_and_plans_that_fail_are_not_asked_for_again_before_a_device_is_back() -> None:
    state = running()
    state.handle(FrameSubmitted(0))
    assert state.handle(DeviceLost(0))[-1] == FindPlan(ONE)
    assert state.handle(NoPlanFound(ONE)) == []
    assert state.is_stuck
    assert state.handle(DeviceBack(0)) == [FindPlan(BOTH)]
    assert state.handle(PlanFound(1, BOTH, halo_plan())) == [AnnouncePlan(1)]
    assert state.handle(EpochFailed(1)) == [RetireEpoch(1)]
    assert state.handle(EpochFailed(1)) == []
    assert state.is_stuck


def test_a_change_of_plan_between_frames() -> None:
    state = running()
    state.handle(FrameSubmitted(0))
    told(state, PlanFound(1, BOTH, halo_plan(), asked=False), DeviceReady(1, 0))
    assert state.handle(UseEpoch(1)) == []
    assert state.handle(FrameSubmitted(1)) == sent(0, 1, 0, 1)
    assert state.handle(DeviceReady(1, 1)) == []
    assert state.handle(LeaveEpoch(0)) == []
    assert state.handle(FrameSubmitted(2)) == sent(1, 2, 0, 1)
    told(state, Under(0, RowsArrived(0, 4)), Under(0, RowsArrived(1, 4)), Under(0, RowsArrived(0, 5)))
    assert state.handle(Under(0, RowsArrived(1, 5))) == [Under(0, DeliverFrame(1)), RetireEpoch(0)]


def test_a_dropped_frame_is_forgotten_where_it_is() -> None:
    state = running()
    state.handle(FrameSubmitted(0))
    assert state.handle(FrameDropped(0)) == [Under(0, ForgetFrame(0))]
    assert state.handle(FrameDropped(0)) == []
    state.handle(DeviceLost(0))
    told(state, FrameSubmitted(1))
    assert state.handle(FrameDropped(1)) == []
    assert state.frames == ()


def test_a_plan_that_needs_nobody_is_ready_at_once() -> None:
    state = Succession(BOTH, standbys=False)
    state.handle(FrameSubmitted(0))
    found = state.handle(PlanFound(0, BOTH, echo_plan(), asked=False))
    assert found == [AnnouncePlan(0), Under(0, DeliverFrame(0))]


def test_what_cannot_happen_is_an_error() -> None:
    state = running()
    state.handle(FrameSubmitted(0))
    with pytest.raises(ValueError, match="submitted twice"):
        state.handle(FrameSubmitted(0))
    with pytest.raises(TypeError):
        state.handle(Under(0, PartFinished(0, 0)))


def test_a_peers_book_of_epochs() -> None:
    book: EpochBook[str] = EpochBook()
    assert book.judge(0) is Verdict.UNKNOWN
    book.announce(5, "five")
    book.announce(3, "three")
    for epoch in (3, 5):
        assert book.judge(epoch) is Verdict.SERVED
        with pytest.raises(ProtocolError, match="announced twice"):
            book.announce(epoch, "again")
    assert book.retire(5) == "five"
    with pytest.raises(ProtocolError, match="no such plan"):
        book.retire(5)
    assert book.judge(5) is Verdict.LATE
    with pytest.raises(ProtocolError, match="announced twice"):
        book.announce(5, "again")
    for epoch in range(10, 10 + REMEMBERED):
        book.announce(epoch, "")
        book.retire(epoch)
    assert book.judge(5) is Verdict.UNKNOWN
    assert book.plans == {3: "three"}
