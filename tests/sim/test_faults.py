"""Seeded faults on a virtual clock: no invariant breaks; seeds repeat exactly; planted bugs are noticed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from distredge.control.faults import run_seed
from distredge.plan.execution import ExecutionPlan
from distredge.protocol.epochs import EpochBook
from distredge.protocol.events import (
    DeliverFrame,
    DeviceLost,
    FrameSubmitted,
    Instruction,
    RetireEpoch,
    RowsArrived,
    RunPart,
    SessionEvent,
    SessionInstruction,
    Under,
)
from distredge.protocol.provider import ProviderState
from distredge.protocol.requester import RequesterState
from distredge.protocol.succession import Succession, _Epoch
from distredge.sim.fault_peer import Hosted
from distredge.sim.fault_world import Parts
from distredge.sim.faults import FaultRun, Violation

SEEDS = 2000
BATCHES = 4
WORDS = (
    "'crash'",
    "'hang'",
    "'cut'",
    "'slow'",
    "'switch'",
    "'drop'",
    "is lost",
    "is back",
    "complains",
    "is used",
)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_invariant_breaks(batch: int) -> None:
    for seed in range(batch * SEEDS // BATCHES, (batch + 1) * SEEDS // BATCHES):
        run_seed(seed)


def test_a_seed_repeats_exactly() -> None:
    for seed in range(20, 40):
        assert run_seed(seed).log == run_seed(seed).log


def test_everything_that_can_go_wrong_does() -> None:
    seen: Counter[str] = Counter()
    for seed in range(200):
        for line in run_seed(seed).log:
            seen[next((word for word in WORDS if word in line), "")] += 1
    assert all(seen[word] >= 20 for word in WORDS), seen


# ---------------------------------------------------------------------- bugs that must be noticed


class ForgetsToSendAgain(Succession):
    """Frames of an epoch that ends are left where they were."""

    def _end(self, epoch: _Epoch) -> list[SessionInstruction]:
        epoch.state._missing.clear()
        return super()._end(epoch)


class SendsAnsweredFramesAgain(Succession):
    """After a loss, frames that were answered just before are submitted once more."""

    def handle(self, event: SessionEvent) -> list[SessionInstruction]:
        found = super().handle(event)
        for instruction in found:
            if isinstance(instruction, Under) and isinstance(instruction.what, DeliverFrame):
                self.last = instruction.what.frame
        if isinstance(event, DeviceLost) and hasattr(self, "last"):
            found += super().handle(FrameSubmitted(self.last))
        return found


class KeepsEpochsThatEnded(Succession):
    """Nobody is told that an epoch has ended."""

    def handle(self, event: SessionEvent) -> list[SessionInstruction]:
        return [each for each in super().handle(event) if not isinstance(each, RetireEpoch)]


class TrustsLostDevices(Succession):
    """An epoch goes on though a device that it involves is lost."""

    def _device_lost(self, device: int) -> list[SessionInstruction]:
        self.members -= {device}
        return [*self._choose(), *self._look_ahead()]


class NeverLooksAhead(Succession):
    """No plan is asked for when a device is lost or comes back."""

    def _look_ahead(self) -> list[SessionInstruction]:
        return []


class CountsDuplicates(ProviderState):
    """Rows that come twice count twice."""

    def _rows_arrived(self, event: RowsArrived) -> list[Instruction]:
        frame = self._frames.get(event.frame)
        if frame is not None:
            frame.arrived.discard(event.transfer)
        return super()._rows_arrived(event)


class RunsTooEarly(ProviderState):
    """A task starts when all of its inputs but one are here."""

    def __init__(self, plan: ExecutionPlan, device: int) -> None:
        super().__init__(plan, device)
        self._waits = {task: set(list(sources)[1:]) or sources for task, sources in self._waits.items()}


class LeaksFrames(ProviderState):
    """What is over is not forgotten."""

    def handle(self, event: Any) -> list[Instruction]:
        return [each for each in super().handle(event) if type(each).__name__ != "ForgetFrame"]


class LosesAPart(ProviderState):
    """Of ten parts, one is not run."""

    runs = 0

    def handle(self, event: Any) -> list[Instruction]:
        found = super().handle(event)
        LosesAPart.runs += sum(isinstance(each, RunPart) for each in found)
        return [] if LosesAPart.runs % 10 == 0 else found


class RefusesOlderEpochs(EpochBook[Hosted]):
    """Only an epoch newer than all others is taken."""

    def announce(self, epoch: int, plan: Hosted) -> None:
        if self.plans and epoch <= max(self.plans) + 1:
            return
        super().announce(epoch, plan)


PLANTED = {
    "forgets to send again": Parts(succession=ForgetsToSendAgain),
    "sends answered frames again": Parts(succession=SendsAnsweredFramesAgain),
    "keeps epochs that ended": Parts(succession=KeepsEpochsThatEnded),
    "trusts lost devices": Parts(succession=TrustsLostDevices),
    "never looks ahead": Parts(succession=NeverLooksAhead),
    "counts duplicates": Parts(provider=CountsDuplicates),
    "runs too early": Parts(provider=RunsTooEarly),
    "leaks frames": Parts(provider=LeaksFrames),
    "loses a part": Parts(provider=LosesAPart),
    "refuses epochs": Parts(book=RefusesOlderEpochs),
}


def first_failure(parts: Parts | None = None) -> Exception | None:
    """A violation, or what a state machine itself finds impossible."""
    for seed in range(300):
        try:
            run_seed(seed, parts)
        except (Violation, ValueError, KeyError) as found:
            return found
    return None


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug: str) -> None:
    assert first_failure(PLANTED[bug]) is not None


def test_answers_come_once_even_if_the_requester_counts_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that is delivered when its first rows are here."""
    whole = RequesterState._rows_arrived

    def hasty(self: RequesterState, event: RowsArrived) -> list[Instruction]:
        missing = self._missing.get(event.frame)
        if missing is not None and len(missing) > 1:
            missing.intersection_update({event.transfer})
        return whole(self, event)

    monkeypatch.setattr(RequesterState, "_rows_arrived", hasty)
    found = first_failure()
    assert isinstance(found, Violation)
    assert "is answered without transfer" in str(found)
    assert found.log


def test_the_log_tells_the_story() -> None:
    run = run_seed(7)
    assert isinstance(run, FaultRun)
    assert sum("is answered" in line for line in run.log) == len(run.requester.answered)
