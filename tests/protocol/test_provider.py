"""ProviderState: exact instructions for each event, in every order that a network can make of them."""

from __future__ import annotations

import itertools
import random

import pytest

from distredge.protocol.events import (
    Event,
    ForgetFrame,
    FrameDropped,
    FrameSubmitted,
    Instruction,
    PartFinished,
    RejectRows,
    RowsArrived,
    RunPart,
    SendRows,
)
from distredge.protocol.provider import ProviderState
from tests.protocol.plans import gather_plan, halo_plan, independent_plan


def told(state: ProviderState, *events: Event) -> list[list[Instruction]]:
    return [state.handle(event) for event in events]


def test_plans_are_valid() -> None:
    for make in (halo_plan, gather_plan, independent_plan):
        make().validate()


# ---------------------------------------------------------------------- one frame


def test_one_frame_in_the_usual_order() -> None:
    state = ProviderState(halo_plan(), 0)
    assert told(
        state, RowsArrived(0, 0), PartFinished(0, 0), RowsArrived(0, 2), PartFinished(0, 2)
    ) == [
        [RunPart(0, 0)],
        [SendRows(0, 3)],
        [RunPart(0, 2)],
        [SendRows(0, 4), ForgetFrame(0)],
    ]  # fmt: skip
    assert state.frames == ()


def test_neighbours_row_comes_before_the_own_input() -> None:
    state = ProviderState(halo_plan(), 0)
    assert told(
        state, RowsArrived(0, 2), RowsArrived(0, 0), PartFinished(0, 0), PartFinished(0, 2)
    ) == [
        [],
        [RunPart(0, 0)],
        [SendRows(0, 3), RunPart(0, 2)],
        [SendRows(0, 4), ForgetFrame(0)],
    ]  # fmt: skip


def test_neighbours_row_comes_while_a_part_runs() -> None:
    state = ProviderState(halo_plan(), 1)
    assert told(
        state, RowsArrived(0, 1), RowsArrived(0, 3), PartFinished(0, 1), PartFinished(0, 3)
    ) == [
        [RunPart(0, 1)],
        [],
        [SendRows(0, 2), RunPart(0, 3)],
        [SendRows(0, 5), ForgetFrame(0)],
    ]  # fmt: skip


@pytest.mark.parametrize("order", list(itertools.permutations([2, 3, 4, 5])))
def test_a_task_runs_when_its_last_rows_are_here(order: tuple[int, ...]) -> None:
    state = ProviderState(gather_plan(), 1)
    *early, last = order
    for transfer in early:
        assert state.handle(RowsArrived(0, transfer)) == []
    assert state.handle(RowsArrived(0, last)) == [RunPart(0, 2)]
    assert state.handle(PartFinished(0, 2)) == [RunPart(0, 3)]
    assert state.handle(PartFinished(0, 3)) == [SendRows(0, 6), ForgetFrame(0)]


def test_all_rows_of_a_task_are_sent_at_once_in_the_plans_order() -> None:
    state = ProviderState(gather_plan(), 0)
    assert told(state, RowsArrived(0, 0), PartFinished(0, 0)) == [
        [RunPart(0, 0)],
        [SendRows(0, 2), SendRows(0, 3), ForgetFrame(0)],
    ]


def test_tasks_of_a_frame_keep_the_plans_order() -> None:
    """Task 1 is ready first, but task 0 comes before it in the plan."""
    state = ProviderState(independent_plan(), 0)
    assert told(
        state, RowsArrived(0, 1), RowsArrived(0, 0), PartFinished(0, 0), PartFinished(0, 1)
    ) == [
        [],
        [RunPart(0, 0)],
        [SendRows(0, 2), RunPart(0, 1)],
        [SendRows(0, 3), ForgetFrame(0)],
    ]  # fmt: skip


def test_second_task_waits_for_its_rows() -> None:
    state = ProviderState(independent_plan(), 0)
    assert told(
        state, RowsArrived(0, 0), PartFinished(0, 0), RowsArrived(0, 1), PartFinished(0, 1)
    ) == [
        [RunPart(0, 0)],
        [SendRows(0, 2)],
        [RunPart(0, 1)],
        [SendRows(0, 3), ForgetFrame(0)],
    ]  # fmt: skip


# ---------------------------------------------------------------------- messages that nobody asked for


def test_duplicates_are_rejected_at_every_moment() -> None:
    state = ProviderState(halo_plan(), 0)
    again = RowsArrived(0, 0)
    assert state.handle(again) == [RunPart(0, 0)]
    assert state.handle(again) == [RejectRows(0, 0, "duplicate")]
    assert state.handle(PartFinished(0, 0)) == [SendRows(0, 3)]
    assert state.handle(again) == [RejectRows(0, 0, "duplicate")]
    assert state.handle(RowsArrived(0, 2)) == [RunPart(0, 2)]
    assert state.handle(RowsArrived(0, 2)) == [RejectRows(0, 2, "duplicate")]
    assert state.handle(PartFinished(0, 2)) == [SendRows(0, 4), ForgetFrame(0)]
    assert state.handle(again) == [RejectRows(0, 0, "frame is over")]


@pytest.mark.parametrize("transfer", [1, 3, 4, 5, 6, 1000, -1])
def test_rows_for_others_are_rejected(transfer: int) -> None:
    """Another device's, the requester's, its own to send, and numbers that are no transfer."""
    state = ProviderState(halo_plan(), 0)
    assert state.handle(RowsArrived(0, transfer)) == [RejectRows(0, transfer, "not for this device")]
    assert state.frames == ()


def test_a_device_without_work_rejects_everything() -> None:
    plan = independent_plan()
    state = ProviderState(plan, 5)
    assert state.handle(RowsArrived(0, 0)) == [RejectRows(0, 0, "not for this device")]


def test_rejections_leave_no_trace() -> None:
    state = ProviderState(halo_plan(), 0)
    state.handle(RowsArrived(7, 99))
    state.handle(RowsArrived(0, 0))
    state.handle(RowsArrived(0, 0))
    assert state.frames == (0,)
    assert told(state, PartFinished(0, 0), RowsArrived(0, 2)) == [[SendRows(0, 3)], [RunPart(0, 2)]]


def test_what_cannot_happen_is_an_error() -> None:
    state = ProviderState(halo_plan(), 0)
    with pytest.raises(ValueError, match="running is None"):
        state.handle(PartFinished(0, 0))
    state.handle(RowsArrived(0, 0))
    with pytest.raises(ValueError, match="running is"):
        state.handle(PartFinished(0, 2))
    with pytest.raises(TypeError):
        state.handle(FrameSubmitted(0))


# ---------------------------------------------------------------------- several frames


def test_one_part_at_a_time_and_the_oldest_frame_first() -> None:
    state = ProviderState(halo_plan(), 0)
    assert told(
        state,
        RowsArrived(2, 0),
        RowsArrived(1, 0),
        RowsArrived(0, 0),
        PartFinished(2, 0),
        PartFinished(0, 0),
        PartFinished(1, 0),
    ) == [
        [RunPart(2, 0)],
        [],
        [],
        [SendRows(2, 3), RunPart(0, 0)],
        [SendRows(0, 3), RunPart(1, 0)],
        [SendRows(1, 3)],
    ]
    assert state.handle(RowsArrived(2, 2)) == [RunPart(2, 2)]
    assert state.handle(RowsArrived(1, 2)) == []
    assert state.handle(RowsArrived(0, 2)) == []
    assert state.handle(PartFinished(2, 2)) == [SendRows(2, 4), ForgetFrame(2), RunPart(0, 2)]
    assert state.handle(PartFinished(0, 2)) == [SendRows(0, 4), ForgetFrame(0), RunPart(1, 2)]
    assert state.handle(PartFinished(1, 2)) == [SendRows(1, 4), ForgetFrame(1)]


def test_an_old_frames_second_task_goes_before_a_young_frames_first() -> None:
    state = ProviderState(halo_plan(), 0)
    state.handle(RowsArrived(0, 0))
    state.handle(RowsArrived(1, 0))
    state.handle(RowsArrived(0, 2))
    assert state.handle(PartFinished(0, 0)) == [SendRows(0, 3), RunPart(0, 2)]
    assert state.handle(PartFinished(0, 2)) == [SendRows(0, 4), ForgetFrame(0), RunPart(1, 0)]


def test_a_young_frame_runs_while_the_old_one_waits() -> None:
    state = ProviderState(halo_plan(), 0)
    state.handle(RowsArrived(0, 0))
    state.handle(RowsArrived(1, 0))
    assert state.handle(PartFinished(0, 0)) == [SendRows(0, 3), RunPart(1, 0)]
    assert state.handle(RowsArrived(0, 2)) == []
    assert state.handle(PartFinished(1, 0)) == [SendRows(1, 3), RunPart(0, 2)]


def test_frames_keep_apart() -> None:
    """The same transfer of two frames is no duplicate, and rows of one do not start the other."""
    state = ProviderState(gather_plan(), 1)
    for transfer in (2, 3, 4):
        assert state.handle(RowsArrived(0, transfer)) == []
        assert state.handle(RowsArrived(1, transfer)) == []
    assert state.handle(RowsArrived(1, 5)) == [RunPart(1, 2)]
    assert state.frames == (0, 1)


def test_frame_limit() -> None:
    state = ProviderState(halo_plan(), 0, frame_limit=2)
    state.handle(RowsArrived(0, 2))
    state.handle(RowsArrived(1, 2))
    assert state.handle(RowsArrived(2, 2)) == [RejectRows(2, 2, "too many frames")]
    assert state.handle(RowsArrived(1, 0)) == [RunPart(1, 0)]
    assert state.handle(PartFinished(1, 0)) == [SendRows(1, 3), RunPart(1, 2)]
    assert state.handle(PartFinished(1, 2)) == [SendRows(1, 4), ForgetFrame(1)]
    assert state.handle(RowsArrived(2, 0)) == [RunPart(2, 0)]


# ---------------------------------------------------------------------- dropped frames


def test_dropped_while_it_waits() -> None:
    state = ProviderState(halo_plan(), 0)
    state.handle(RowsArrived(0, 2))
    assert state.handle(FrameDropped(0)) == [ForgetFrame(0)]
    assert state.frames == ()
    assert state.handle(RowsArrived(0, 0)) == [RejectRows(0, 0, "frame is over")]
    assert state.handle(FrameDropped(0)) == []


def test_dropped_while_its_part_runs() -> None:
    """The part cannot be stopped; what it made is not sent, and the next frame starts when it ends."""
    state = ProviderState(halo_plan(), 0)
    state.handle(RowsArrived(0, 0))
    state.handle(RowsArrived(1, 0))
    assert state.handle(FrameDropped(0)) == [ForgetFrame(0)]
    assert state.handle(RowsArrived(0, 2)) == [RejectRows(0, 2, "frame is over")]
    assert state.handle(PartFinished(0, 0)) == [RunPart(1, 0)]


def test_dropped_while_it_is_ready() -> None:
    state = ProviderState(halo_plan(), 0)
    state.handle(RowsArrived(0, 0))
    state.handle(RowsArrived(1, 0))
    state.handle(RowsArrived(2, 0))
    assert state.handle(FrameDropped(1)) == [ForgetFrame(1)]
    assert state.handle(PartFinished(0, 0)) == [SendRows(0, 3), RunPart(2, 0)]


def test_dropped_before_anything_of_it_came() -> None:
    """The requester's word may overtake rows that a neighbour sent before it heard."""
    state = ProviderState(halo_plan(), 0)
    assert state.handle(FrameDropped(0)) == []
    assert state.handle(RowsArrived(0, 2)) == [RejectRows(0, 2, "frame is over")]
    assert state.frames == ()


def test_dropped_after_it_was_over() -> None:
    state = ProviderState(gather_plan(), 0)
    told(state, RowsArrived(0, 0), PartFinished(0, 0))
    assert state.handle(FrameDropped(0)) == []


# ---------------------------------------------------------------------- long runs


@pytest.mark.parametrize("step", [1, 3])
def test_memory_stays_bounded(step: int) -> None:
    """Frames start late and leave gaps when other plans of the session take their share."""
    state = ProviderState(gather_plan(), 0, frame_limit=8)
    for frame in range(1000, 1000 + 500 * step, step):
        assert told(state, RowsArrived(frame, 0), PartFinished(frame, 0))[1][-1] == ForgetFrame(frame)
        if step > 1 and frame % 5 == 0:
            state.handle(FrameDropped(frame + 1))
        assert state.handle(RowsArrived(frame, 0)) == [RejectRows(frame, 0, "frame is over")]
    assert state.frames == ()
    assert len(state._done) <= 16
    assert state.handle(RowsArrived(1000, 0)) == [RejectRows(1000, 0, "frame is over")]


def test_an_open_frame_outlives_many_younger_ones() -> None:
    state = ProviderState(gather_plan(), 1, frame_limit=8)
    state.handle(RowsArrived(0, 2))
    for frame in range(5, 205, 2):
        for transfer in (2, 3, 4, 5):
            state.handle(RowsArrived(frame, transfer))
        told(state, PartFinished(frame, 2), PartFinished(frame, 3))
    assert state.frames == (0,)
    assert told(state, *(RowsArrived(0, t) for t in (3, 4, 5)))[-1] == [RunPart(0, 2)]


# ---------------------------------------------------------------------- any order at all


@pytest.mark.parametrize("seed", range(40))
def test_random_orders_end_clean(seed: int) -> None:
    """Whatever the order, duplicates and drops: each task of each frame runs once, in the plan's order,
    after its rows; nothing is kept in the end."""
    rng = random.Random(seed)
    plan, device = rng.choice(
        [(halo_plan(), 0), (halo_plan(), 1), (gather_plan(), 1), (independent_plan(), 0)]
    )
    state = ProviderState(plan, device)
    expected = [t.id for t in plan.transfers if t.target == device]
    order = [t.id for t in plan.tasks if t.device == device]
    dropped = {frame for frame in range(6) if rng.random() < 0.2}
    events: list[Event] = [RowsArrived(frame, t) for frame in range(6) for t in expected]
    events += [RowsArrived(frame, rng.choice(expected)) for frame in range(6) if rng.random() < 0.5]
    events += [FrameDropped(frame) for frame in dropped]
    rng.shuffle(events)
    running: RunPart | None = None
    ran: dict[int, list[int]] = {frame: [] for frame in range(6)}
    sent: list[tuple[int, int]] = []
    forgotten: list[int] = []
    while events or running:
        if running and (not events or rng.random() < 0.5):
            event: Event = PartFinished(running.frame, running.task)
            running = None
        else:
            event = events.pop()
        for instruction in state.handle(event):
            match instruction:
                case RunPart():
                    assert running is None
                    running = instruction
                    ran[instruction.frame].append(instruction.task)
                case SendRows(frame, transfer):
                    assert frame not in forgotten
                    sent.append((frame, transfer))
                case ForgetFrame(frame):
                    forgotten.append(frame)
    assert state.frames == ()
    assert len(sent) == len(set(sent))
    assert len(forgotten) == len(set(forgotten))
    for frame in range(6):
        assert ran[frame] == order[: len(ran[frame])]
        if frame not in dropped:
            assert ran[frame] == order
            assert frame in forgotten
