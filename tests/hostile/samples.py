"""Real messages of every kind, and a real plan, to make mutants of."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import msgpack

from distredge.graph.importer import load_model
from distredge.plan.compile import compile_plan
from distredge.plan.execution import ExecutionPlan
from distredge.plan.serde import to_plain
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.protocol.messages import Message, encode
from tests.models import chain

_OF_TYPE = {"int": 1, "float": 1.5, "str": "a", "tuple[str, ...]": ("tcp://127.0.0.1:1",)}


def headers(session: int) -> list[bytes]:
    """One header of each kind that there is, for a session."""
    found = []
    for kind in Message.__args__:
        values = {name: _OF_TYPE[hint] for name, hint in kind.__annotations__.items() if name != "kind"}
        values.update({"session": session} if "session" in values else {})
        values.update({"sha256": "0" * 64} if "sha256" in values else {})
        found.append(encode(kind(**values)))
    return found


@cache
def small_plan() -> ExecutionPlan:
    """Two devices, two volumes, a tail: every kind of transfer."""
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(chain(), cache_dir=Path(folder))
    strategy = Strategy(
        PartitionScheme((model.graph.cut_points[0],)), (SplitDecision((0, 8, 16)), SplitDecision((0, 4, 8)))
    )
    return compile_plan(model.graph, strategy, ["a", "b"], model=model.weights_sha256)


def plan_bytes() -> bytes:
    """As it travels."""
    return bytes(msgpack.packb(to_plain(small_plan())))
