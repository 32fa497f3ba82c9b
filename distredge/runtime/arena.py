"""One arena of memory for all sessions of this process.

By default each session has its own, which keeps what its largest run took: a peer with sixteen parts of a
model had 1.0 GB, and has 0.4 GB with one arena, whose pages also stay in the cache from part to part. A
session that is built anew runs in memory that another one has left.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper


def share_arena(options: ort.SessionOptions) -> None:
    """Sessions with these options use the one arena; their weights lie outside, so that it can be emptied."""
    _empty_session()
    _use(options)


def shrink_arena() -> None:
    """Gives back what no session uses; onnxruntime does so only at the end of a run."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    _empty_session().run(None, {"x": np.zeros(1, np.float32)}, options)


def _use(options: ort.SessionOptions) -> None:
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")


@cache
def _empty_session() -> ort.InferenceSession:
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    with suppress(Exception):  # the program around us has registered one, which does as well
        ort.create_and_register_allocator(info, None)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    _use(options)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros(1, np.float32)})  # the first region is never given back: a small one
    return session
