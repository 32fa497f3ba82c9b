"""Which devices split frames among themselves, where a stream is dealt out to several groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Grouping = tuple[tuple[int, ...], ...]
"""Groups of devices; a group of one takes whole frames."""

SIZES = 8
"""Sizes that are tried of each kind of grouping."""


def groupings(order: Sequence[int], able: frozenset[int]) -> Iterator[tuple[str, Grouping]]:
    """What is worth a try, the few large groups first, with names that say what it is.

    So many groups of about equal strength; and one group of the slowest or the fastest devices with all
    others alone.

    Args:
        order: devices, the fastest first.
        able: those that can hold the whole model. One that cannot is never alone: it is left out.
    """
    seen: set[Grouping] = set()
    for name, grouping in _all(order, able):
        if grouping and grouping not in seen:
            seen.add(grouping)
            yield name, grouping


def _all(order: Sequence[int], able: frozenset[int]) -> Iterator[tuple[str, Grouping]]:
    count = len(order)
    for number in sizes(count)[:-1]:
        groups = (order[first::number] for first in range(number))
        yield f"{number} group{'s' * (number > 1)}", _usable(groups, able)
    for size in sizes(count)[1:-1]:
        alone = [(device,) for device in order[: count - size]]
        yield f"a group of {size}, others alone", _usable([*alone, order[count - size :]], able)
        alone = [(device,) for device in order[size:]]
        yield f"a group of the {size} fastest, others alone", _usable([order[:size], *alone], able)


def _usable(groups: Iterator[Sequence[int]] | Sequence[Sequence[int]], able: frozenset[int]) -> Grouping:
    """Groups in a fixed order, each rising, without single devices that cannot hold the model."""
    kept = (tuple(sorted(group)) for group in groups if len(group) > 1 or group[0] in able)
    return tuple(sorted(kept))


def sizes(count: int) -> list[int]:
    """1, ..., `count`: all of them, or some whose ratio is about the same."""
    if count <= SIZES:
        return list(range(1, count + 1))
    return sorted({round(count ** (at / (SIZES - 1))) for at in range(SIZES)})
