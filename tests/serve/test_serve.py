"""An unmodified tritonclient and plain HTTP against `distredge serve`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc
import tritonclient.http
import tritonclient.utils
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families

from distredge.cli import main
from tests.models import chain


def many_types() -> bytes:
    """Every datatype through Identity, and text."""
    kinds = {
        "s": TensorProto.STRING,
        "h": TensorProto.FLOAT16,
        "l": TensorProto.INT64,
        "b": TensorProto.BOOL,
        "u": TensorProto.UINT8,
        "d": TensorProto.DOUBLE,
    }
    values = {n: helper.make_tensor_value_info(n, k, [None, 2]) for n, k in kinds.items()}
    outputs = [helper.make_tensor_value_info(f"{n}_out", k, [None, 2]) for n, k in kinds.items()]
    nodes = [helper.make_node("Identity", [n], [f"{n}_out"]) for n in kinds]
    graph = helper.make_graph(nodes, "types", list(values.values()), outputs)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


TYPES: dict[str, np.ndarray] = {
    "s": np.array([["a", "größer"], ["", "x"]], object),
    "h": np.array([[1.5, -2.0], [0.25, 65504]], np.float16),
    "l": np.array([[2**62, -1], [0, 7]], np.int64),
    "b": np.array([[True, False], [False, True]]),
    "u": np.array([[255, 0], [1, 2]], np.uint8),
    "d": np.array([[1e300, 0.1], [-1.0, 2.0]], np.float64),
}
DATATYPES = {"s": "BYTES", "h": "FP16", "l": "INT64", "b": "BOOL", "u": "UINT8", "d": "FP64"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "chain.onnx").write_bytes(chain())
    (folder / "t.onnx").write_bytes(many_types())
    command = [
        sys.executable,
        "-m",
        "distredge",
        "serve",
        str(folder / "chain.onnx"),
        f"types={folder}/t.onnx",
    ]
    command += ["--port", "0", "--grpc-port", "0", "--policy", "equal", "--limit-mb", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline().split()
    try:
        assert line[:1] == ["ready"], process.communicate(timeout=10)
        yield {
            "http": line[1].removeprefix("http://"),
            "grpc": line[2].removeprefix("grpc://"),
            "metrics": line[4],
        }
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGTERM)
        _, complaint = process.communicate(timeout=30)
    assert process.returncode == 0
    assert complaint == ""


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, server: dict[str, str]) -> Iterator[tuple[Any, Any]]:
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[request.param]
    with module.InferenceServerClient(server[request.param]) as client:
        yield module, client


def test_triton_gets_the_models_answer(triton: tuple[Any, Any]) -> None:
    module, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("chain")
    info = client.get_model_metadata("chain", **({"as_json": True} if module is tritonclient.grpc else {}))
    given = info["inputs"][0]
    assert (given["name"], given["datatype"]) == ("x0", "FP32")
    shape = [int(size) for size in given["shape"]]
    feed = np.random.default_rng(1).standard_normal(shape).astype("float32")
    item = module.InferInput("x0", shape, "FP32")
    item.set_data_from_numpy(feed)
    result = client.infer("chain", [item], request_id="7")
    session = onnxruntime.InferenceSession(chain(), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"x0": feed})
    got = result.as_numpy(info["outputs"][0]["name"])
    np.testing.assert_allclose(got, want, atol=3e-5 * np.abs(want).max())


def test_many_clients_at_once_each_get_their_own_answer(server: dict[str, str]) -> None:
    session = onnxruntime.InferenceSession(chain(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape

    def ask(seed: int) -> None:
        feed = np.random.default_rng(seed).standard_normal(shape).astype("float32")
        item = tritonclient.grpc.InferInput("x0", shape, "FP32")
        item.set_data_from_numpy(feed)
        with tritonclient.grpc.InferenceServerClient(server["grpc"]) as client:
            result = client.infer("chain", [item])
        (want,) = session.run(None, {"x0": feed})
        np.testing.assert_allclose(
            result.as_numpy(session.get_outputs()[0].name), want, atol=3e-5 * np.abs(want).max()
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(24)))


def test_triton_sends_every_type(triton: tuple[Any, Any]) -> None:
    module, client = triton
    items = []
    for name, array in TYPES.items():
        items.append(module.InferInput(name, list(array.shape), DATATYPES[name]))
        items[-1].set_data_from_numpy(array)
    outputs = [module.InferRequestedOutput(f"{name}_out") for name in reversed(TYPES)]
    result = client.infer("types", items, outputs=outputs, model_version="1")
    for name, array in TYPES.items():
        got = result.as_numpy(f"{name}_out")
        if name == "s":
            got = np.array([item.decode() for item in got.ravel()], object).reshape(got.shape)
        np.testing.assert_array_equal(got, array)
        assert name == "s" or got.dtype == array.dtype


def test_triton_is_told_what_is_wrong(triton: tuple[Any, Any]) -> None:
    module, client = triton
    item = module.InferInput("x0", [1, 3, 2, 2], "FP32")
    item.set_data_from_numpy(np.zeros((1, 3, 2, 2), "float32"))
    with pytest.raises(tritonclient.utils.InferenceServerException, match=r"input 'x0' has shape 1x3x2x2"):
        client.infer("chain", [item])
    with pytest.raises(tritonclient.utils.InferenceServerException, match="model 'nothing' is unknown"):
        client.infer("nothing", [item])
    with pytest.raises(tritonclient.utils.InferenceServerException, match="no output 'z'"):
        client.infer("chain", [item], outputs=[module.InferRequestedOutput("z")])
    assert not client.is_model_ready("nothing")


def post(server: dict[str, str], body: bytes, path: str = "/v2/models/types/infer", **headers: str) -> Any:
    request = urllib.request.Request(f"http://{server['http']}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_json_without_binary_data(server: dict[str, str]) -> None:
    inputs = []
    for name, array in TYPES.items():
        inputs.append({"name": name, "datatype": DATATYPES[name], "shape": [2, 2], "data": array.tolist()})
    half = inputs.pop(1)
    raw = TYPES["h"].tobytes()
    half = {k: v for k, v in half.items() if k != "data"} | {"parameters": {"binary_data_size": len(raw)}}
    names = [f"{name}_out" for name in TYPES if name != "h"]
    head = json.dumps(
        {"id": "a", "inputs": [*inputs, half], "outputs": [{"name": n} for n in names]}
    ).encode()
    status, answer = post(server, head + raw, **{"Inference-Header-Content-Length": str(len(head))})
    assert status == 200, answer
    assert answer["id"] == "a"
    for output in answer["outputs"]:
        assert output["data"] == TYPES[output["name"][0]].ravel().tolist()


def one(datatype: str, shape: list[int], data: list[Any], name: str = "u") -> bytes:
    """A request of one input."""
    entry = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    return json.dumps({"inputs": [entry]}).encode()


LENGTH = "Inference-Header-Content-Length"
BAD: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"{", {}, 400, "no JSON"),
    (b"[" * 100_000, {}, 400, "no JSON"),
    (b"[]", {}, 400, "no JSON object"),
    (b'{"inputs": 3}', {}, 400, "no list of objects"),
    (b'{"inputs": []}', {}, 400, "input 's' is missing"),
    (one("UINT8", [-1], []), {}, 400, "than sizes"),
    (one("UINT9", [1], [1]), {}, 400, "'UINT9' is unknown"),
    (one("UINT8", [1], [256]), {}, 400, "too large"),
    (one("UINT8", [2], [1]), {}, 400, "1 elements came"),
    (one("UINT8", [1], ["a"]), {}, 400, "not all of UINT8"),
    (one("UINT8", [1], [True]), {}, 400, "not all of UINT8"),
    (one("FP16", [1], [1], "h"), {}, 400, "no form in JSON"),
    (b"{}xx", {LENGTH: "2"}, 400, "2 bytes came behind"),
    (b"{}", {LENGTH: "9"}, 400, "2 bytes came"),
    (b"{}", {"Content-Encoding": "gzip"}, 415, "compressed"),
    (bytes(1_000_001), {}, 413, "1000000 bytes"),
]


@pytest.mark.parametrize(("body", "headers", "status", "text"), BAD, ids=lambda value: str(value)[:30])
def test_bad_requests_get_the_protocols_errors(
    server: dict[str, str], body: bytes, headers: dict[str, str], status: int, text: str
) -> None:
    got, answer = post(server, body, **headers)
    assert got == status, answer
    assert list(answer) == ["error"]
    assert text in answer["error"]


def test_other_paths(server: dict[str, str]) -> None:
    assert post(server, b"", "/v2/models/nothing/infer")[0] == 404
    assert post(server, b"", "/v2/elsewhere")[0] == 404
    assert post(server, b"", "/v2")[0] == 405
    assert post(server, b"{}", "/v2/repository/index")[1][1] == {
        "name": "types",
        "version": "1",
        "state": "READY",
    }


def test_metrics_count_requests(server: dict[str, str]) -> None:
    with urllib.request.urlopen(server["metrics"], timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/plain")
        families = list(text_string_to_metric_families(answer.read().decode()))
    counts = {
        tuple(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "distredge_requests_total"
    }
    assert counts["chain", "http", "ok"] >= 1
    assert counts["chain", "grpc", "ok"] >= 1
    assert counts["chain", "http", "refused"] >= 1


def test_the_live_view_has_every_model(server: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with urllib.request.urlopen(f"http://{server['http']}/view", timeout=20) as answer:
        assert "<title>DistrEdge</title>" in answer.read().decode()
    assert main(["top", server["http"], "--count", "1", "--json"]) == 0
    sessions = json.loads(capsys.readouterr().out)["sessions"]
    assert [session["model"] for session in sessions] == ["chain", "types"]


def test_two_models_of_one_name_are_refused() -> None:
    command = [sys.executable, "-m", "distredge", "serve", "a.onnx", "b/a.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "two models are called a; name one with NAME=b/a.onnx" in done.stderr
