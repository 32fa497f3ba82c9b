"""Messages that were not taken, by reason."""

from __future__ import annotations

from collections import Counter

REASONS_LIMIT = 200
"""Kinds that are counted one by one. Some quote what came: they must not become a way to fill memory."""


class Rejections(Counter[str]):
    """How often each reason was met; all beyond `REASONS_LIMIT` kinds together, as "others"."""

    def met(self, reason: str) -> None:
        """Once more."""
        self[reason if reason in self or len(self) < REASONS_LIMIT else "others"] += 1
