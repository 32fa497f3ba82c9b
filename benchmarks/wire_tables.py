"""The tables of benchmarks/wire.py."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean
from typing import Any

from benchmarks.sections import table
from distredge.plan.wire import FP16, INT8, LOSSLESS, WIRES


def report(kept: Sequence[dict[str, Any]], shares: Sequence[float], link_mbps: float) -> str:
    """Both tables.

    Args:
        kept: what was measured of each model.
        shares: of a core that the hosts have.
        link_mbps: of each host.
    """
    text = (
        "## Fewer bytes on the wire\n\n"
        "Codecs alone, half the rows of a map, one core: ratio; MB/s to code and to decode.\n\n"
    )
    text += table(
        ["model", "behind", "kB", "zeros", "packed (zstd)", "fp16", "int8"],
        [codec_line(row) for found in kept for row in found["codecs"]],
    )
    measured = [found["latency"] for found in kept if "latency" in found]
    if measured:
        text += (
            f"\nLatency over four hosts (CPU shares {', '.join(map(str, shares))}; {link_mbps:.0f} Mbit/s "
            "each), milliseconds, median (10 to 90 % of frames), each under its own plan; MB sent a frame; "
            "the error over the output's peak against onnxruntime on float32.\n\n"
        )
        head = [
            "model, input",
            *(f"{wire}" for wire in WIRES),
            *(f"MB {wire}" for wire in WIRES),
            "error fp16",
            "int8",
        ]
        text += table(
            head, [latency_line(rows, image) for rows in measured for image in ("float32", "uint8")]
        )
        text += f"\nuint8 over float32, times as fast: {'; '.join(map(uint8_gain, measured))}.\n"
        gains = {wire: [gain(rows, wire) for rows in measured] for wire in WIRES}
        means = (f"{wire} {geometric_mean(rates):.2f}" for wire, rates in gains.items())
        text += f"In the geometric mean: {', '.join(means)}.\n"
    return text


def codec_line(row: dict[str, Any]) -> list[str]:
    cells = [row["model"], row["behind"], f"{row['bytes'] / 1e3:.0f}", f"{row['zeros']:.0%}"]
    for coding in (LOSSLESS, FP16, INT8):
        one = row[coding]
        speeds = f"; {one['encode_mb_per_s']:.0f}, {one['decode_mb_per_s']:.0f}" if len(one) > 1 else ""
        cells.append(f"{one['ratio']:.2f}{speeds}")
    return cells


def latency_line(rows: list[dict[str, Any]], image: str) -> list[str]:
    found = {row["wire"]: row for row in rows if row["image"] == image}
    cells = [f"{rows[0]['model']}, {image}"]
    for wire in WIRES:
        low, median, high = (found[wire]["latency_s"][key] * 1e3 for key in ("p10", "median", "p90"))
        cells.append(f"{median:.0f} ({low:.0f} to {high:.0f})")
    cells += [f"{found[wire]['sent_bytes'] / 1e6:.2f}" for wire in WIRES]
    return [*cells, *(f"{found[wire]['rel_error']:.1e}" for wire in (FP16, INT8))]


def gain(rows: list[dict[str, Any]], wire: str) -> float:
    """How many times as fast a frame of uint8 is, under one wire."""
    median = {(row["image"], row["wire"]): row["latency_s"]["median"] for row in rows}
    ratio: float = median["float32", wire] / median["uint8", wire]
    return ratio


def uint8_gain(rows: list[dict[str, Any]]) -> str:
    gains = (f"{wire} {gain(rows, wire):.2f}" for wire in WIRES)
    return f"{rows[0]['model']} {', '.join(gains)}"
