"""Weights that stay as they are in the file."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from distredge.graph import features
from distredge.graph.importer import load_model
from distredge.plan.compile import compile_plan
from distredge.plan.crossing import head_cuts
from distredge.plan.strategy import PartitionScheme, SplitDecision, Strategy
from distredge.plan.volumes import find_volumes
from distredge.runtime.engine import PartSessions
from tests.graph.test_features import net_of


def test_all_sessions_read_them_through_one_mapping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However many split decisions there are: else each would take memory for what it has in common with
    the others."""
    monkeypatch.setattr(features, "LARGE_BYTES", 0)
    model = load_model(net_of(256, 192, behind="").build(), cache_dir=tmp_path)
    graph, scheme = model.graph, PartitionScheme(head_cuts(model.graph))
    volumes = find_volumes(graph, scheme)
    sessions = PartSessions(model.onnx, model.weights.parent)
    x = np.random.default_rng(0).standard_normal((1, 256)).astype("float32")

    def layer(share: float) -> np.ndarray:
        """The last layer's features, in two parts."""
        splits = tuple(SplitDecision.from_shares(volume.rows, (share, 1 - share)) for volume in volumes)
        plan = compile_plan(graph, Strategy(scheme, splits), ("a", "b"))
        tasks = [task for task in plan.tasks if task.volume == len(volumes) - 1]
        found = []
        for task in tasks:
            spec = plan.parts[task.part]
            (output,) = sessions.run(task.part, spec, {spec.inputs[0]: x}).values()
            found.append(output)
        return np.concatenate(found, axis=1)

    whole = layer(1.0)
    assert whole.shape == (1, 192)
    for share in (1 / 3, 2 / 3):
        np.testing.assert_allclose(layer(share), whole, atol=1e-5 * np.abs(whole).max())
    gc.collect()
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert sum(str(model.weights) in line for line in maps) == 1
