"""A short run of `make chaos`: real peers are killed at random under a stream."""

from __future__ import annotations

from pathlib import Path

from benchmarks.chaos import LONGEST_GAP_S, run


def test_five_kills_cost_no_frame(tmp_path: Path) -> None:
    done = run("kill", 5, every_s=2.0, cache_dir=tmp_path)
    assert (done.faults, done.wrong) == (5, 0)
    assert done.longest_gap_s <= LONGEST_GAP_S
    assert done.frames > 20
