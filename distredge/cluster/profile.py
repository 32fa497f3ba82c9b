"""A measured device profile: rows -> seconds for each segment of one model; a table, never a fitted line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from distredge.cluster.ini import clip
from distredge.cluster.segment import Segment, segment_rows
from distredge.errors import ProfileError
from distredge.graph.model import Graph

FORMAT = "distredge-profile-1"


@dataclass(frozen=True)
class SegmentSamples:
    """What was measured of one segment.

    Attributes:
        nodes: the segment.
        seconds: rows -> every sample taken, in seconds. The most rows are the whole segment's.
    """

    nodes: tuple[int, ...]
    seconds: Mapping[int, tuple[float, ...]]

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """The row counts measured, rising."""
        return tuple(sorted(self.seconds))

    def quantile(self, q: float) -> NDArray[np.float64]:
        """A quantile of the samples at each of `rows`."""
        return np.array([np.quantile(self.seconds[rows], q) for rows in self.rows])


@dataclass(frozen=True)
class DeviceProfile:
    """One device's measured times for one model; a ComputeTimes.

    Attributes:
        device: its name in the hosts file.
        model: the model's name, for messages.
        graph: `Graph.digest` of the model as it was measured.
        machine: `Machine.fingerprint` of where it was measured.
        threads: of the inference engine; 0 for its own choice.
        execution_provider: onnxruntime's name of what computed.
        segments: by their nodes.
        path: the file it came from, for messages.
        boundary_fixed_s, boundary_s_per_byte: what a task costs beside its nodes, and each byte that it
            takes and gives; left out of the segments' times.
        coding_s_per_byte: see `ComputeTimes`.
    """

    device: str
    model: str
    graph: str
    machine: str
    threads: int
    execution_provider: str
    segments: Mapping[tuple[int, ...], SegmentSamples]
    path: str = ""
    boundary_fixed_s: float = 0.0
    boundary_s_per_byte: float = 0.0
    coding_s_per_byte: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def seconds(self, segment: Segment, rows: int) -> float:
        """The median, linear between measured row counts; 0 for no rows.

        Raises:
            ProfileError: the segment was not measured, or not up to so many rows.
        """
        return float(self.table(segment, rows)[rows])

    def table(self, segment: Segment, max_rows: int, quantile: float = 0.5) -> NDArray[np.float64]:
        """Seconds for 0 to `max_rows` rows, of shape (max_rows + 1,).

        Between measured row counts it is linear; below the smallest it stays at that one's time.

        Args:
            segment: nodes, as measured.
            max_rows: up to the most rows measured.
            quantile: of the samples; 0.1 and 0.9 show the spread.

        Raises:
            ProfileError: the segment was not measured, or not up to so many rows.
        """
        key = (tuple(segment), quantile)
        if key not in self._tables:
            self._tables[key] = self._dense(self._samples(segment), quantile)
        table = self._tables[key]
        if max_rows >= len(table):
            self._fail(
                f"a segment was measured up to {len(table) - 1} rows, not {max_rows}; measure it again"
            )
        return table[: max_rows + 1]

    def check(
        self,
        graph: Graph,
        machine: str | None = None,
        threads: int | None = None,
        execution_provider: str | None = None,
    ) -> None:
        """Refuses a profile of another model, machine, thread count or execution provider.

        Args:
            graph: the model to plan for.
            machine: fingerprint of the machine to plan for; None if it is not known.
            threads, execution_provider: what will be used there; None if it is not known.

        Raises:
            ProfileError: it was measured of something else.
        """
        if graph.digest != self.graph:
            measured, wanted = f"{self.model} ({self.graph[:12]})", f"{graph.name} ({graph.digest[:12]})"
            self._fail(f"measured on model {measured}, not on {wanted}; run `distredge profile` on this one")
        conditions = {
            "on machine": (self.machine, machine),
            "with threads": (self.threads, threads),
            "with execution provider": (self.execution_provider, execution_provider),
        }
        for condition, (found, used) in conditions.items():
            if used is not None and used != found:
                self._fail(f"measured {condition} {found}, not {used}; run `distredge profile` there")
        for samples in self.segments.values():
            known = max(samples.nodes) < len(graph.nodes)
            if not known or samples.rows[-1] < segment_rows(graph, samples.nodes):
                self._fail("does not cover the whole height of a segment; run `distredge profile` again")

    def save(self, path: str | Path) -> None:
        """Writes JSON, which `load_profile` reads."""
        content = {
            "format": FORMAT,
            "device": self.device,
            "model": self.model,
            "graph": self.graph,
            "machine": self.machine,
            "threads": self.threads,
            "execution_provider": self.execution_provider,
            "boundary_fixed_s": self.boundary_fixed_s,
            "boundary_s_per_byte": self.boundary_s_per_byte,
            "coding_s_per_byte": {coding: list(ends) for coding, ends in self.coding_s_per_byte.items()},
            "segments": [
                {"nodes": list(s.nodes), "seconds": {str(rows): list(s.seconds[rows]) for rows in s.rows}}
                for s in self.segments.values()
            ],
        }
        Path(path).write_text(json.dumps(content, indent=1) + "\n")

    @cached_property
    def _tables(self) -> dict[tuple[tuple[int, ...], float], NDArray[np.float64]]:
        return {}

    def _samples(self, segment: Segment) -> SegmentSamples:
        try:
            return self.segments[tuple(segment)]
        except KeyError:
            ends = f"{segment[0]} to {segment[-1]}" if len(segment) else "none"
            self._fail(f"holds no segment of nodes {ends}; run `distredge profile` again")

    @staticmethod
    def _dense(samples: SegmentSamples, quantile: float) -> NDArray[np.float64]:
        table = np.interp(np.arange(samples.rows[-1] + 1), samples.rows, samples.quantile(quantile))
        table[0] = 0.0
        table.flags.writeable = False
        return table

    def _fail(self, problem: str) -> NoReturn:
        raise ProfileError(f"{self.path or f'profile of {self.device}'}: {problem}", path=self.path)


def load_profile(path: str | Path) -> DeviceProfile:
    """Reads a profile and checks every number in it.

    Raises:
        ProfileError: the file is missing, is no profile, or holds a negative or non-finite time.
    """
    file = str(path)
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        _refuse(file, f"cannot be read: {error.strerror}; run `distredge profile` to make it")
    except (ValueError, RecursionError):
        _refuse(file, "is not JSON; run `distredge profile` to make it again")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        _refuse(file, f"is no device profile of format {FORMAT}; run `distredge profile` to make one")
    texts: dict[str, Any] = {
        key: content.get(key) for key in ("device", "model", "graph", "machine", "execution_provider")
    }
    for key, text in texts.items():
        if not isinstance(text, str):
            _refuse(file, f"{key} is {clip(repr(text))}, not a text; measure it again")
    threads, listed = content.get("threads"), content.get("segments")
    if type(threads) is not int or threads < 0:
        _refuse(file, f"threads is {clip(repr(threads))}, not a whole number; measure it again")
    if not isinstance(listed, list) or not listed:
        _refuse(file, "has no segments; measure it again")
    costs = {key: content.get(key, 0.0) for key in ("boundary_fixed_s", "boundary_s_per_byte")}
    for key, cost in costs.items():
        if not _is_time(cost):
            _refuse(file, f"{key} is {clip(repr(cost))}, not a finite time of at least 0; measure it again")
    segments = [_segment(file, item) for item in listed]
    return DeviceProfile(
        threads=threads,
        segments={s.nodes: s for s in segments},
        path=file,
        coding_s_per_byte=_coding(file, content.get("coding_s_per_byte", {})),
        **costs,
        **texts,
    )


def _coding(file: str, content: Any) -> dict[str, tuple[float, float]]:
    pairs = content.items() if isinstance(content, dict) else [("coding_s_per_byte", content)]
    for coding, ends in pairs:
        if not (isinstance(ends, list) and len(ends) == 2 and all(map(_is_time, ends))):
            what = f"{clip(coding)} is {clip(repr(ends))}"
            _refuse(file, f"{what}, not two finite times of at least 0; measure it again")
    return {coding: (float(there), float(back)) for coding, (there, back) in pairs}


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _segment(file: str, item: Any) -> SegmentSamples:
    nodes = item.get("nodes") if isinstance(item, dict) else None
    if not isinstance(nodes, list) or not nodes or any(type(n) is not int or n < 0 for n in nodes):
        _refuse(file, "a segment's nodes are not a list of node numbers; measure it again")
    samples = item.get("seconds")
    if not isinstance(samples, dict) or not samples:
        _refuse(file, f"the segment from node {nodes[0]} has no samples; measure it again")
    seconds: dict[int, tuple[float, ...]] = {}
    for rows, times in samples.items():
        if not (rows.isascii() and rows.isdigit() and len(rows) < 8 and int(rows)):
            _refuse(file, f"{clip(rows)} is no number of rows; measure it again")
        if not isinstance(times, list) or not times:
            _refuse(
                file, f"{rows} rows of the segment from node {nodes[0]} have no samples; measure it again"
            )
        for time in times:
            if not _is_time(time):
                what = f"{rows} rows of the segment from node {nodes[0]} take {clip(repr(time))} seconds"
                _refuse(file, f"{what}, which is not a finite time of at least 0; measure it again")
        seconds[int(rows)] = tuple(float(time) for time in times)
    return SegmentSamples(tuple(nodes), seconds)


def _refuse(file: str, problem: str) -> NoReturn:
    raise ProfileError(f"{file}: {problem}", path=file) from None
