"""The official ONNX backend test suite, over two local peers.

Every test that onnxruntime itself passes on this machine must pass here. A fair share runs by default,
all of them with BACKEND_EVERY=1 (`make backend`).
"""

from __future__ import annotations

import ctypes
import os
import unittest
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.backend.base import Backend, BackendRep
from onnx.backend.test import BackendTest

import distredge.backend as backend
from distredge.errors import InputError, ModelError
from tests.models import chain

EVERY = int(os.environ.get("BACKEND_EVERY", "14"))
"""One test in so many runs, and those below."""
ALWAYS = (
    *("test_castlike_BFLOAT16_to_FLOAT", "test_castlike_INT4_to_FLOAT", "test_cast_FLOAT_to_FLOAT8E5M2"),
    *(
        "test_identity_sequence",
        "test_identity_opt",
        "test_if_opt",
        "test_loop13_seq",
        "test_split_to_sequence_1",
    ),
    *("test_sequence_map_add_2_sequences", "test_string_concat", "test_equal_string", "test_constant"),
    *("test_nonzero_example", "test_slice", "test_reshape_zero_dim", "test_tril_zero", "test_div_uint8"),
    *(
        "test_basic_conv_with_padding",
        "test_instancenorm_epsilon",
        "test_operator_reduced_mean",
        "test_max_float16",
    ),
)
LEAST_PASSED, LEAST_SPLIT = 1590, 850
"""Of the whole suite with onnx 1.23.2 and onnxruntime 1.31.1, where 1598 pass and 916 of them are split."""
FOREIGN = ("bfloat16", "float8", "float4", "int4", "int2")


class Reference(BackendRep):
    """Plain onnxruntime; types that its Python `run` refuses are fed as OrtValues."""

    def __init__(self, model: ModelProto) -> None:
        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: Any, **_: Any) -> Any:
        session = self._session
        values = [item if isinstance(item, list | None) else np.asarray(item) for item in inputs]
        feed = dict(zip([info.name for info in session.get_inputs()], values, strict=False))
        types = [info.type for info in (*session.get_inputs(), *session.get_outputs())]
        if not any(foreign in kind for kind in types for foreign in FOREIGN):
            return session.run(None, feed)
        fed = {name: self._value(array) for name, array in feed.items()}
        return [self._array(value) for value in session.run_with_ort_values(None, fed)]

    @staticmethod
    def _value(array: np.ndarray) -> ort.OrtValue:
        raw = numpy_helper.from_array(array).raw_data
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        value = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), element)
        assert value.tensor_size_in_bytes() == len(raw)
        ctypes.memmove(value.data_ptr(), raw, len(raw))
        return value

    @staticmethod
    def _array(value: ort.OrtValue) -> np.ndarray:
        raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
        tensor = TensorProto(data_type=value.element_type(), dims=value.shape(), raw_data=raw)
        return numpy_helper.to_array(tensor)


class ReferenceBackend(Backend):
    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **_: Any) -> Reference:
        return Reference(model)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"


class Watched(backend.DistrEdgeBackend):
    """Ours, remembering what it prepared."""

    prepared: list[backend.Prepared] = []  # noqa: RUF012 (the suite takes a class)

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **settings: Any) -> backend.Prepared:
        cls.prepared.append(super().prepare(model, device, **settings))
        return cls.prepared[-1]


def outcome(case: unittest.TestCase) -> str:
    """What went wrong in one test of the suite; "" if it passed."""
    try:
        case.debug()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""


def is_split(prepared: backend.Prepared) -> bool:
    """Whether both peers have something to compute."""
    return len({task.device for task in prepared.session.plan.tasks}) > 1


@pytest.fixture(scope="module", autouse=True)
def _place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Peers and weights of this module's own; the suite may write no file into the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNX_HOME", str(tmp_path_factory.mktemp("onnx")))
        patch.setenv("DISTREDGE_CACHE", str(tmp_path_factory.mktemp("weights")))
        backend.shared_peers()
        yield


@pytest.mark.timeout(1800 if EVERY == 1 else 300)
def test_whatever_onnxruntime_passes_passes_here(capsys: pytest.CaptureFixture[str]) -> None:
    warnings.simplefilter("ignore")
    reference, ours = BackendTest(ReferenceBackend, __name__), BackendTest(Watched, __name__)
    failed: dict[str, str] = {}
    passed = split = 0
    for kind, cases in reference.test_cases.items():
        names = sorted(name for name in dir(cases) if name.startswith("test_") and name.endswith("_cpu"))
        for at, name in enumerate(names):
            if at % EVERY and name.removesuffix("_cpu") not in ALWAYS:
                continue
            if outcome(cases(name)):
                continue
            wrong = outcome(ours.test_cases[kind](name))
            for prepared in Watched.prepared:
                split += not wrong and is_split(prepared)
                prepared.close()
            Watched.prepared.clear()
            passed += not wrong
            if wrong:
                failed[name] = wrong
    with capsys.disabled():
        print(
            f"\nONNX backend tests: {passed} pass, {split} of them split over both peers, {len(failed)} fail"
        )
    assert not failed
    assert passed >= LEAST_PASSED // EVERY
    assert split >= LEAST_SPLIT // EVERY


def test_run_node_and_run_model() -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 4)).astype("float32")
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    (pooled,) = backend.run_node(node, [x])
    np.testing.assert_array_equal(pooled, x.reshape(1, 3, 8, 2, 2, 2).max((3, 5)))
    model = ModelProto.FromString(chain())
    session = ort.InferenceSession(chain(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    feed = np.random.default_rng(0).standard_normal(shape).astype("float32")
    (got,) = backend.run_model(model, [feed])
    (want,) = session.run(None, {session.get_inputs()[0].name: feed})
    np.testing.assert_allclose(got, want, atol=3e-5 * np.abs(want).max())


def test_bad_use_is_one_clear_line() -> None:
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")
    assert not backend.supports_device("TPU")
    model = ModelProto.FromString(chain())
    with pytest.raises(InputError, match="'CUDA' is not known"):
        backend.prepare(model, "CUDA")
    prepared = backend.prepare(model)
    with pytest.raises(InputError, match="2 inputs came, the model takes 1"):
        prepared.run([1, 2])
    prepared.close()
    with pytest.raises(ModelError, match="not an ONNX model"):
        backend.prepare(ModelProto())
