"""What a session is given and cannot be made of."""

from __future__ import annotations

from typing import Any

import pytest

from distredge.errors import InputError, PolicyError
from distredge.runtime.session import InferenceSession
from tests.models import chain
from tests.runtime.conftest import children


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"local_peers": "x"}, "local_peers is 'x'"),
        ({"local_peers": 1.5}, "local_peers is 1.5"),
        ({"local_peers": 0}, "local_peers is 0"),
        ({"local_peers": []}, "local_peers is \\[\\]"),
        ({"local_peers": [0.5, -1]}, "local_peers is"),
        ({"local_peers": [2.0, float("nan")]}, "local_peers is"),
        ({"local_peers": 100_000}, "give a number from 1 to 256"),
        ({"policy": 5}, "policy is of type int"),
        ({"plan": 5}, "plan is of type int"),
        ({"seed": -1}, "seed is -1"),
        ({"budget_s": -1}, "budget_s is -1"),
        ({"model": None}, "model is nothing"),
        ({"input_shapes": {"x0": (1, 3, "H", 6)}}, "is no shape"),
    ],
)
def test_arguments_of_another_kind_are_refused(settings: dict[str, Any], says: str) -> None:
    before = children()
    with pytest.raises(InputError, match=says):
        InferenceSession(**{"model": chain(), **settings})
    assert children() == before


@pytest.mark.parametrize("objective", ["throughput", "latency-at-rate=25"])
def test_a_policy_for_one_frame_is_refused_where_a_stream_is_asked_for(objective: str) -> None:
    before = children()
    with pytest.raises(PolicyError, match=f"'equal' plans for one frame alone, not for {objective}; give"):
        InferenceSession(chain(), policy="equal", objective=objective)
    assert children() == before
