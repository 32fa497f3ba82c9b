"""The live view as lines of text."""

from __future__ import annotations

import time
from collections.abc import Sequence

from distredge.view.snapshot import DeviceView, EventView, LinkView, PlanView, Snapshot

BAR = 20
EVENTS_SHOWN = 8
COLOURS = (31, 34, 32, 35, 33, 36)
"""ANSI's, by device."""


def render(snapshots: Sequence[Snapshot], width: int = 100, *, colours: bool = False) -> str:
    """All sessions, one below the other.

    Args:
        snapshots: of one server.
        width: longer lines are cut.
        colours: of the parts in the plan; otherwise each part is filled with its device's letter.
    """
    lines: list[str] = []
    for snapshot in snapshots:
        lines += [*_session(snapshot, width, colours), ""]
    return "\n".join(lines) if lines else "no session yet"


def _session(snapshot: Snapshot, width: int, colours: bool) -> list[str]:
    names = [device.name for device in snapshot.devices]
    lines = [_head(snapshot), ""]
    wide = max([len("device"), *map(len, names)])
    lines.append(f"  {'device':<{wide + 2}} {'load':>5}")
    lines += [_device(at, device, wide, colours) for at, device in enumerate(snapshot.devices)]
    lines += ["", "  plan: rows of each volume", *_plan(snapshot.plan, names, width, colours)]
    if snapshot.links:
        ends = max(len(_ends(link)) for link in snapshot.links)
        lines += ["", f"  {'link':<{ends}} {'KB a frame':>10} {'Mbit/s':>9} {'of':>7} {'ms':>8}"]
        lines += [_link(link, ends) for link in snapshot.links]
    if snapshot.events:
        lines += ["", *(_event(event) for event in snapshot.events[-EVENTS_SHOWN:])]
    return lines if colours else [line[:width] for line in lines]


def _head(snapshot: Snapshot) -> str:
    latency = "-" if snapshot.latency_ms is None else f"{snapshot.latency_ms:.1f} ms"
    p95 = "-" if snapshot.latency_p95_ms is None else f"{snapshot.latency_p95_ms:.1f} ms"
    return (
        f"{snapshot.model}: {snapshot.images_per_second:.1f} images a second, latency {latency}, "
        f"{p95} in 95 of 100; {snapshot.frames} frames answered, {snapshot.in_flight} under way"
    )


def _device(at: int, device: DeviceView, wide: int, colours: bool) -> str:
    filled = round(BAR * device.load)
    bar = _tinted("#" * filled, at, colours) + "." * (BAR - filled)
    state = "" if device.is_up else f"LOST: {device.reason}"
    return f"  {_letter(at)} {device.name:<{wide}} {device.load:>5.0%} {bar} {state}".rstrip()


def _letter(at: int) -> str:
    return chr(ord("A") + at % 26)


def _tinted(text: str, at: int, colours: bool) -> str:
    return f"\x1b[{COLOURS[at % len(COLOURS)]}m{text}\x1b[0m" if colours and text else text


def _plan(plan: PlanView | None, names: Sequence[str], width: int, colours: bool) -> list[str]:
    """One line per volume, each as wide as its rows are shared out."""
    if plan is None:
        return ["  none at the moment"]
    span = max(10, min(60, width - 30))
    lines = []
    for number, volume in enumerate(plan.volumes):
        ends = [round(span * bound / max(1, volume.bounds[-1])) for bound in volume.bounds]
        parts = [_tinted(_letter(i) * (ends[i + 1] - ends[i]), i, colours) for i in range(len(names))]
        lines.append(f"  {number:>3} {''.join(parts)} {volume.bounds[-1]} rows")
    return [*lines, f"      what cannot be split: {plan.tail}"] if plan.tail else lines


def _ends(link: LinkView) -> str:
    return f"{link.source} > {link.target}"


def _link(link: LinkView, wide: int) -> str:
    limit = "" if link.limit_mbps is None else f"{link.limit_mbps:.0f}"
    transit = "-" if link.transit_ms is None else f"{link.transit_ms:.2f}"
    size = f"{link.frame_bytes / 1e3:.1f}"
    return f"  {_ends(link):<{wide}} {size:>10} {link.mbps:>9.1f} {limit:>7} {transit:>8}"


def _event(event: EventView) -> str:
    return f"  {time.strftime('%H:%M:%S', time.localtime(event.at_s))}  {event.text}"
