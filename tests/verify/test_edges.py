"""Models at the edge: scalars, constants, shapes that depend on data, barriers of all sorts."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import numpy as np
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from distredge.control.verify import verify
from distredge.errors import InputError, ProtocolError
from distredge.graph.importer import load_model
from distredge.graph.rows import Rows
from distredge.plan.execution import TensorInfo
from distredge.runtime.engine import from_payload, to_payload
from tests.models import ModelBuilder
from tests.verify.test_blocks import checked

Change = Callable[[ModelBuilder, str], object]
EDGES: dict[str, tuple[int, Change]] = {}


def edge(opset: int = 13) -> Callable[[Change], Change]:
    def register(make: Change) -> Change:
        EDGES[make.__name__] = (opset, make)
        return make

    return register


@edge()
def scalar_output(net: ModelBuilder, x: str) -> None:
    net.output(net.reduce("ReduceMean", x, 0, 1, 2, 3, keepdims=0), x)


@edge()
def scalar_in_the_middle(net: ModelBuilder, x: str) -> None:
    net.output(net.conv(net.add("Mul", x, net.reduce("ReduceMax", x, 0, 1, 2, 3, keepdims=0)), 3))


@edge()
def constant_output(net: ModelBuilder, x: str) -> None:
    net.output(x, net.add("Identity", net.floats(1, 2)))


@edge()
def nothing_but_a_constant(net: ModelBuilder, x: str) -> None:
    net.output(net.add("Identity", net.floats(1, 2)))


@edge()
def input_as_output(net: ModelBuilder, x: str) -> None:
    net.output(net.add("Identity", "x0"), x)


@edge()
def shape_as_output(net: ModelBuilder, x: str) -> None:
    net.output(net.add("Shape", x), x)


@edge()
def positions_that_are_positive(net: ModelBuilder, x: str) -> None:
    net.output(net.add("NonZero", net.add("Greater", x, net.scalar(0.7))), x)


@edge()
def values_picked_by_the_data(net: ModelBuilder, x: str) -> None:
    """A shape that depends on the data, passed on from a volume to the tail."""
    flat = net.reshape(net.add("Greater", x, net.scalar(0.5)), -1)
    picked = net.add("Compress", net.reshape(x, -1), flat)
    net.output(net.add("Exp", picked), net.add("Add", x, net.reduce("ReduceMax", picked, 0)))


@edge()
def boxes_without_overlap(net: ModelBuilder, x: str) -> None:
    """SSD's end: decoded boxes, scores, NonMaxSuppression, the boxes that stay."""
    n, _, h, w = net.shape(x)
    boxes = net.reshape(net.transpose(net.conv(x, 4, 1), 0, 2, 3, 1), n, h * w, 4)
    low = net.add("Sigmoid", net.slice(boxes, 2, 0, 2))
    corners = net.add("Concat", low, net.add("Add", low, net.scalar(0.2)), axis=2)
    scores = net.reshape(net.add("Sigmoid", net.conv(x, 2, 1)), n, 2, h * w)
    kept = net.add("NonMaxSuppression", corners, scores, net.ints(9), net.floats(0.3), net.floats(0.55))
    at = net.add("Gather", kept, net.ints(2), axis=1)
    net.output(kept, net.add("GatherND", net.reshape(corners, h * w, 4), at))


@edge()
def unused_second_output(net: ModelBuilder, x: str) -> None:
    left, _ = net.add("Split", x, net.ints(2, 2), axis=1, outputs=2)
    net.output(net.conv(left, 3))


@edge()
def same_input_twice(net: ModelBuilder, x: str) -> None:
    net.output(net.add("Mul", x, x), net.add("Concat", x, x, axis=1))


@edge()
def outputs_that_are_read_on(net: ModelBuilder, x: str) -> None:
    y = net.conv(x, 3)
    net.output(x, y, net.conv(y, 2))


@edge()
def bytes_and_truths(net: ModelBuilder, x: str) -> None:
    net.output(
        net.add("Greater", x, net.scalar(0)), net.add("ArgMax", x, axis=1), net.add("ArgMax", x, axis=2)
    )


@edge()
def best_rows(net: ModelBuilder, x: str) -> None:
    net.output(*net.add("TopK", x, net.ints(3), axis=2, outputs=2))


@edge()
def rows_become_columns(net: ModelBuilder, x: str) -> None:
    net.output(net.conv(net.transpose(x, 0, 1, 3, 2), 3))


@edge()
def softmax_over_rows(net: ModelBuilder, x: str) -> None:
    net.output(net.conv(net.add("Softmax", x, axis=2), 3))


@edge()
def recurrent(net: ModelBuilder, x: str) -> None:
    steps = net.reshape(net.transpose(x, 2, 0, 1, 3), 20, 1, 32)
    y, _, _ = net.add("LSTM", steps, net.weights(1, 20, 32), net.weights(1, 20, 5), hidden_size=5, outputs=3)
    net.output(y)


@edge()
def tail_that_returns_to_rows(net: ModelBuilder, x: str) -> None:
    back = net.add("Gemm", net.gemm_head(x), net.weights(5, 20))
    net.output(net.conv(net.add("Add", x, net.reshape(back, 1, 1, 20, 1)), 3))


@edge()
def first_row_for_all(net: ModelBuilder, x: str) -> None:
    net.output(net.conv(net.add("Add", x, net.slice(x, 2, 0, 1)), 3))


@edge()
def no_channels_left(net: ModelBuilder, x: str) -> None:
    net.output(net.slice(x, 1, 0, 0))


@edge()
def rows_cut_off_by_a_pad(net: ModelBuilder, x: str) -> None:
    net.output(net.conv(net.add("Pad", x, net.ints(0, 0, -2, 0, 0, 0, -1, 0)), 3))


@edge(19)
def wrapped_pad(net: ModelBuilder, x: str) -> None:
    net.output(net.conv(net.add("Pad", x, net.ints(0, 0, 2, 0, 0, 0, 1, 0), mode="wrap"), 3))


@edge(16)
def sampled_anywhere(net: ModelBuilder, x: str) -> None:
    net.output(net.conv(net.add("GridSample", x, net.input(1, 10, 5, 2)), 3))


@edge()
def rows_times_rows(net: ModelBuilder, x: str) -> None:
    net.output(net.conv(net.add("MatMul", x, net.transpose(x, 0, 1, 3, 2)), 3))


@edge(12)
def einsum(net: ModelBuilder, x: str) -> None:
    net.output(net.conv(net.add("Einsum", x, net.weights(4, 5), equation="nchw,cd->ndhw"), 3))


@edge(16)
def unknown_operator(net: ModelBuilder, x: str) -> None:
    at = net.constant([[0, 0, 3, 1]], "int64")
    net.output(net.conv(net.add("ScatterND", x, at, net.floats(5)), 3))


@pytest.mark.parametrize("name", EDGES)
def test_edge(name: str) -> None:
    opset, make = EDGES[name]
    net = ModelBuilder(opset, 1)
    make(net, net.conv(net.input(1, 3, 20, 8), 4))
    checked(net.build(), peers=3, strategies=8, seed=3)


def test_map_out_of_a_vector() -> None:
    """A generator: a vector becomes a small map, which grows by transposed convolutions."""
    net = ModelBuilder(13)
    x = net.relu(net.reshape(net.add("Gemm", net.input(1, 10), net.weights(10, 100)), 1, 4, 5, 5))
    for _ in range(2):
        x = net.relu(net.add("ConvTranspose", x, net.weights(4, 4, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1]))
    net.output(net.conv(x, 3))
    checked(net.build(), peers=3, strategies=8, seed=0)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats(dtype: str) -> None:
    net = ModelBuilder(13)
    x = net.input(1, 3, 20, 8, dtype=dtype)
    scale = net.constant(net.rng.standard_normal((1, 3, 20, 1)), dtype)
    net.output(net.add("Add", net.add("Mul", x, scale), net.reduce("ReduceMax", x, 2, 3)))
    checked(net.build(), peers=3, strategies=8, seed=0)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_low_maps(rows: int) -> None:
    net = ModelBuilder(13)
    x = net.conv(net.input(1, 3, rows, 30), 4)
    net.output(x, net.conv(net.resize(x, 9, 30, mode="linear"), 3))
    checked(net.build(), peers=4, strategies=8, seed=0)


# ---------------------------------------------------------------------- shapes on the wire

DYNAMIC = TensorInfo("int64", (2, 40), None, dynamic=True)


def shaped(shape: object, data: object, kind: object = "int64") -> bytes:
    return bytes(msgpack.packb([kind, shape, data]))


def test_a_shape_travels_with_its_data() -> None:
    array = from_payload(shaped([2, 3], np.arange(6).tobytes()), DYNAMIC, Rows(0, 1))
    np.testing.assert_array_equal(array, np.arange(6).reshape(2, 3))
    assert from_payload(shaped([2, 0], b""), DYNAMIC, Rows(0, 1)).shape == (2, 0)
    strings = TensorInfo("object", (4,), None, dynamic=True)
    assert from_payload(shaped([2], ["a", "b"], "object"), strings, Rows(0, 1)).tolist() == ["a", "b"]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        shaped([2, 3], b"\0" * 47),
        shaped([2, 3], ["a"] * 6),
        shaped([2, 3], ["a"] * 6, "object"),
        shaped([2, 3], b"\0" * 24, "int32"),
        shaped([2, 3], b"\0" * 48, "nothing"),
        shaped([-2, -3], b"\0" * 48),
        shaped([2, True], b"\0" * 16),
        shaped([2.0, 3], b"\0" * 48),
        shaped([2**62, 2**62], b""),
        shaped(None, b"\0" * 48),
        bytes(msgpack.packb([[2, 3], b"\0" * 48])),
        np.zeros((2, 40), np.int64).tobytes(),
    ],
)
def test_shapes_that_do_not_fit_are_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        from_payload(payload, DYNAMIC, Rows(0, 1))


def test_payloads_of_the_wrong_size_are_refused() -> None:
    info = TensorInfo("float32", (1, 2, 8, 3), 2)
    rows = np.arange(18, dtype=np.float32).reshape(1, 2, 3, 3)
    payload = to_payload(rows)
    np.testing.assert_array_equal(from_payload(payload, info, Rows(2, 5)), rows)
    for wrong in (Rows(2, 4), Rows(0, 8)):
        with pytest.raises(ProtocolError, match="bytes"):
            from_payload(payload, info, wrong)
    with pytest.raises(ProtocolError, match="strings"):
        from_payload(msgpack.packb(["a"]), TensorInfo("object", (3,), 0), Rows(0, 3))


def test_a_sequence_may_be_an_output() -> None:
    net = ModelBuilder(13)
    x = net.conv(net.input(1, 3, 20, 8), 4)
    net.output(x)
    model = net.model()
    model.graph.node.append(helper.make_node("SequenceConstruct", [x, x], ["both"]))
    model.graph.output.append(helper.make_tensor_sequence_value_info("both", TensorProto.FLOAT, None))
    checked(model.SerializeToString(), peers=3, strategies=4, seed=0)


def test_sequences_inside_are_a_barrier() -> None:
    net = ModelBuilder(13)
    x = net.conv(net.input(1, 3, 20, 8), 4)
    y = net.conv(x, 4)
    net.output(y)
    model = net.model()
    model.graph.node.extend(
        [
            helper.make_node("SequenceConstruct", [x, y], ["both"]),
            helper.make_node("ConcatFromSequence", ["both"], ["joined"], axis=2),
            helper.make_node("Relu", ["joined"], ["last"]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("last", TensorProto.FLOAT, None))
    checked(model.SerializeToString(), peers=3, strategies=8, seed=3)


CONV = "Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>"
STRANGE = {
    "sequence": "q = SplitToSequence<axis=1>(a)  b = ConcatFromSequence<axis=1>(q)",
    "optional": "o = Optional(a)  b = OptionalGetElement(o)",
    "bfloat16": "s = Cast<to=16>(a)  t = Identity(s)  b = Cast<to=1>(t)",
    "float8": "s = Cast<to=17>(a)  t = Identity(s)  b = Cast<to=1>(t)",
    "float16": "s = Cast<to=10>(a)  t = Neg(s)  b = Cast<to=1>(t)",
}


@pytest.mark.parametrize("middle", STRANGE.values(), ids=STRANGE)
def test_what_numpy_has_no_type_for_travels(middle: str) -> None:
    checked(parsed(f"a = {CONV}(x, w)  {middle}  y = {CONV}(b, w)"), peers=3, strategies=6, seed=0)


def test_a_convolution_padded_by_its_own_height_is_split_while_every_window_has_a_row() -> None:
    for rows, split in ((41, True), (40, False)):
        conv = "Conv<kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 3, 1]>"
        model, outcome = checked(parsed(f"y = {conv}(x, w)", rows), peers=3, strategies=6, seed=0)
        assert outcome.split_share == float(split), model.graph.nodes[0].reason


def test_a_model_that_draws_at_random_is_refused() -> None:
    model = load_model(parsed(f"a = {CONV}(x, w)  r = RandomUniformLike(a)  y = Add(a, r)"))
    assert any("drawn at random" in node.reason for node in model.graph.nodes)
    with pytest.raises(InputError, match="draws at random"):
        verify(model)


def test_sixteen_bit_quantisation_by_onnxruntimes_own_operators_is_split() -> None:
    def rounded(name: str) -> str:
        return (
            f"q{name} = com.microsoft.QuantizeLinear({name}, s, z)  "
            f"d{name} = com.microsoft.DequantizeLinear(q{name}, s, z)"
        )

    body = (
        f"{rounded('x')}  a = {CONV}(dx, w)  {rounded('a')}  b = {CONV}(da, w)  {rounded('b')}  y = Relu(db)"
    )
    constants = "float s = {0.0002}, int16 z = {0}"
    _, outcome = checked(parsed(body, constants=constants), peers=3, strategies=8, seed=0)
    assert outcome.split_share == 1.0


def parsed(body: str, rows: int = 24, constants: str = "") -> bytes:
    """A model of nodes in ONNX's text format, from x to y, with weights w."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]> '
        f"m (float[1, 4, {rows}, 20] x) => (float[1, 4, h, v] y) <{constants}> {{ {body} }}"
    )
    weights = np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float32) / 4
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return bytes(model.SerializeToString())
