"""InstanceNormalization and its kin as means and products, so that their statistics split as reductions."""

from __future__ import annotations

from collections.abc import Mapping

from distredge.graph.draft import Draft


def expand_normalisations(draft: Draft, axes: Mapping[str, int]) -> bool:
    """Expand every normalisation that takes statistics over rows; whether there was any."""
    return False
