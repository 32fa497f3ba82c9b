"""Whether what a session is given can be used at all."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

from distredge.cluster.hosts_values import MOST_SLOTS
from distredge.errors import InputError
from distredge.graph.importer import Model
from distredge.plan.execution import ExecutionPlan


def check_arguments(model: Any, local_peers: Any, policy: Any, plan: Any, seed: Any, budget_s: Any) -> None:
    """Refuses what no session can be made of, before anything is started.

    Raises:
        InputError: something is of another kind, or out of range.
    """
    if not isinstance(model, str | Path | bytes | Model):
        raise InputError(f"model is {_kind(model)}; give a file's path, its bytes, or a loaded model")
    if not (isinstance(policy, str) or callable(getattr(policy, "find_strategy", None))):
        raise InputError(f"policy is {_kind(policy)}; give a policy's name, or an object with find_strategy")
    if not (plan is None or isinstance(plan, str | Path | ExecutionPlan)):
        raise InputError(f"plan is {_kind(plan)}; give a plan, or its file's path")
    if type(seed) is not int or seed < 0:
        raise InputError(f"seed is {seed!r}; give a whole number of at least 0")
    if not _is_number(budget_s) or not budget_s > 0:
        raise InputError(f"budget_s is {budget_s!r}; give a number of seconds above 0")
    if local_peers is not None:
        _check_peers(local_peers)


def _check_peers(wanted: Any) -> None:
    if isinstance(wanted, Sequence) and not isinstance(wanted, str | bytes):
        good = all(_is_number(share) and isfinite(share) and share > 0 for share in wanted)
        count = len(wanted) if good else 0
    else:
        count = wanted if type(wanted) is int else 0
    if not 1 <= count <= MOST_SLOTS:
        raise InputError(
            f"local_peers is {wanted!r}; give a number from 1 to {MOST_SLOTS}, "
            "or a list with the share of a core, above 0, of each"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"of type {type(value).__name__}"
