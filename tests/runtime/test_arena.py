"""All sessions of a process share one arena: what one needs for a run, the next one uses."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from distredge.runtime.arena import share_arena, shrink_arena

MIB = 2**20

def session():
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16 * MIB]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [])]
    # Two maps of 64 MiB each while it runs.
    nodes = [helper.make_node("Sin", ["x"], ["a"]), helper.make_node("Cos", ["a"], ["b"]),
             helper.make_node("ReduceSum", ["b"], ["y"], keepdims=0)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if sys.argv[1] == "shared":
        share_arena(options)
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / MIB

x = np.zeros(16 * MIB, np.float32)
x[:] = 1
begin = resident()
sessions = [session() for _ in range(4)]
for each in sessions:
    each.run(None, {"x": x})
print(resident() - begin)
sessions.clear()
shrink_arena()
print(resident() - begin)
"""


def grown_mib(how: str) -> tuple[float, float]:
    """What memory four sessions hold that have run, and what is held when they are gone."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True, timeout=120
    )
    held, left = map(float, done.stdout.split())
    return held, left


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sessions_use_one_anothers_memory_and_it_can_be_given_back() -> None:
    apart, _ = grown_mib("apart")
    held, left = grown_mib("shared")
    assert held < apart / 2, "four sessions hold what the largest of them needs"
    assert left < held / 2
