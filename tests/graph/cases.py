"""One-node models for the row rules: (name, kind expected, model bytes). Input `x` carries the rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.graph.support import Array, model_of


@dataclass(frozen=True)
class Case:
    """One node with its constants; `kind` is the rule kind that it must get, `minimal` whether `needs`
    is exactly what the operator reads."""

    name: str
    op: str
    kind: str
    shape: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: tuple[Array | None, ...] = ()
    opset: int = 17
    dtype: int = TensorProto.FLOAT
    out_dtype: int | None = None
    outputs: int = 1
    minimal: bool = True
    second: tuple[int, ...] | None = None
    domain: str = ""
    exact: bool = True

    def model(self) -> bytes:
        names = ["x"] + (["z"] if self.second else [])
        constants = {}
        for i, value in enumerate(self.constants):
            names.append("" if value is None else f"c{i}")
            if value is not None:
                constants[f"c{i}"] = value
        made = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, made, "node", domain=self.domain, **self.attributes)
        inputs = {"x": self.shape} | ({"z": self.second} if self.second else {})
        kinds = dict.fromkeys(inputs, self.dtype) | dict.fromkeys(made, self.out_dtype or self.dtype)
        domains = {self.domain: 1} if self.domain else {}
        return model_of([node], inputs, made, constants, self.opset, kinds, domains)


_random = np.random.default_rng(7)


def weights(*shape: int, dtype: str = "float32") -> Array:
    return _random.standard_normal(shape).astype(dtype)


def ints(*values: Any, dtype: str = "int64") -> Array:
    return np.array(values, dtype=dtype)


def floats(*values: float) -> Array:
    return np.array(values, dtype=np.float32)


def _convolutions() -> list[Case]:
    x = (1, 4, 13, 6)

    def make(name: str, shape: tuple[int, ...], w: Array, **a: Any) -> Case:
        return Case(name, "Conv", "window", shape, a, (w, weights(w.shape[0])))

    return [
        make("3x3", x, weights(5, 4, 3, 3), pads=[1, 1, 1, 1]),
        make("1x1", x, weights(5, 4, 1, 1)),
        make("1x1-stride2", x, weights(5, 4, 1, 1), strides=[2, 2]),
        make("3x3-stride2", x, weights(5, 4, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
        make("7x7-stride2", (1, 3, 21, 9), weights(4, 3, 7, 7), strides=[2, 2], pads=[3, 3, 3, 3]),
        make("asymmetric", x, weights(5, 4, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1]),
        make("asymmetric-5", x, weights(5, 4, 5, 3), strides=[3, 1], pads=[1, 0, 3, 2]),
        replace(make("dilated", x, weights(5, 4, 3, 3), dilations=[3, 2], pads=[3, 2, 3, 2]), minimal=False),
        make("stride-over-kernel", x, weights(5, 4, 2, 2), strides=[3, 3]),
        make("1xk", x, weights(5, 4, 1, 5), pads=[0, 2, 0, 2]),
        make("kx1", x, weights(5, 4, 5, 1), pads=[2, 0, 2, 0]),
        make("same-upper", x, weights(5, 4, 4, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
        make("same-lower", x, weights(5, 4, 4, 3), strides=[2, 2], auto_pad="SAME_LOWER"),
        make("valid", x, weights(5, 4, 3, 3), auto_pad="VALID"),
        make("group", x, weights(8, 2, 3, 3), group=2, pads=[1, 1, 1, 1]),
        make("depthwise", x, weights(4, 1, 3, 3), group=4, pads=[1, 1, 1, 1]),
        replace(make("1-d", (1, 4, 17), weights(5, 4, 3), pads=[1, 1], strides=[2]), exact=False),
        make("3-d", (1, 2, 9, 5, 5), weights(3, 2, 3, 3, 3), pads=[1, 1, 1, 1, 1, 1]),
        make("batch", (3, 4, 13, 6), weights(5, 4, 3, 3), pads=[1, 1, 1, 1]),
    ]


def _transposed() -> list[Case]:
    x = (1, 4, 9, 5)

    def make(name: str, k: tuple[int, ...], g: int = 1, **a: Any) -> Case:
        constants = (weights(4, 3, *k), weights(3 * g))
        return Case(name, "ConvTranspose", "window", x, a | {"group": g}, constants, minimal=False)

    return [
        make("2x2-s2", (2, 2), strides=[2, 2]),
        make("3x3-s2-p1", (3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
        make("3x3-s2-p1-op1", (3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
        make("4x4-s2-p1", (4, 4), strides=[2, 2], pads=[1, 1, 1, 1]),
        make("5x5-s3-asymmetric", (5, 5), strides=[3, 3], pads=[2, 1, 0, 1]),
        make("3x3-dilated", (3, 3), strides=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 1]),
        make("stride-over-kernel", (2, 2), strides=[4, 4], output_padding=[2, 2]),
        make("stride-over-kernel-p", (2, 2), strides=[4, 4], pads=[1, 1, 0, 0]),
        make("same-upper", (3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
        make("same-lower", (3, 3), strides=[2, 2], auto_pad="SAME_LOWER"),
        make("output-shape", (3, 3), strides=[2, 2], output_shape=[18, 10]),
        make("s1", (3, 3), pads=[1, 1, 1, 1]),
        make("group", (3, 3), 2, strides=[2, 2], pads=[1, 1, 1, 1]),
    ]


def _pools() -> list[Case]:
    cases = []
    for op in ("MaxPool", "AveragePool", "LpPool"):
        forms: dict[str, dict[str, Any]] = {
            "2x2-s2": {"kernel_shape": [2, 2], "strides": [2, 2]},
            "3x3-s2-p1": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
            "3x3-s1-p1": {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
            "same-upper": {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
            "asymmetric": {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]},
        }
        if op != "LpPool":
            forms |= {
                "ceil": {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
                "ceil-2": {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
                "ceil-p1": {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
                "ceil-s4": {"kernel_shape": [5, 5], "strides": [4, 4], "pads": [1, 1, 1, 1], "ceil_mode": 1},
            }
        if op == "MaxPool":
            forms |= {
                "dilated": {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [1, 1, 1, 1]},
                "dilated-ceil": {
                    "kernel_shape": [3, 3],
                    "dilations": [2, 2],
                    "strides": [3, 3],
                    "ceil_mode": 1,
                },
            }
        if op == "AveragePool":
            for name, form in list(forms.items()):
                forms[f"{name}-counted"] = form | {"count_include_pad": 1}
        for height in (13, 14):
            for name, form in forms.items():
                opset = 18 if op == "LpPool" else 17
                minimal = "dilations" not in form
                cases.append(
                    Case(
                        f"{name}-{height}",
                        op,
                        "window",
                        (1, 3, height, height),
                        form,
                        opset=opset,
                        minimal=minimal,
                    )
                )
    cases.append(
        Case(
            "dilated",
            "AveragePool",
            "window",
            (1, 3, 13, 9),
            {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2, 2, 2, 2], "strides": [2, 2]},
            opset=19,
            minimal=False,
        )
    )
    cases.append(Case("1-d", "MaxPool", "window", (1, 3, 17), {"kernel_shape": [3], "strides": [2]}))
    return cases


def _quantised() -> list[Case]:
    u8, i8 = TensorProto.UINT8, TensorProto.INT8
    scale, zero = np.float32(0.05), np.uint8(120)
    w = _random.integers(-20, 20, (5, 4, 3, 3)).astype(np.int8)
    wu = _random.integers(100, 140, (5, 4, 3, 3)).astype(np.uint8)
    qconv = (np.float32(0.1), np.uint8(7), w, np.float32(0.02), np.int8(0), np.float32(0.3), np.uint8(100))
    pads = {"pads": [1, 1, 1, 1]}
    return [
        Case("plain", "QLinearConv", "window", (1, 4, 11, 6), pads, qconv, dtype=u8),
        Case("s2", "QLinearConv", "window", (1, 4, 11, 6), pads | {"strides": [2, 2]}, qconv, dtype=u8),
        Case(
            "plain",
            "ConvInteger",
            "window",
            (1, 4, 11, 6),
            pads,
            (wu, np.uint8(9), np.uint8(120)),
            dtype=u8,
            out_dtype=TensorProto.INT32,
        ),
        Case(
            "int8",
            "MaxPool",
            "window",
            (1, 3, 12, 6),
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
            dtype=i8,
        ),
        Case("tensor", "QuantizeLinear", "pointwise", (1, 4, 9, 6), {}, (scale, zero), out_dtype=u8),
        Case(
            "channel",
            "QuantizeLinear",
            "pointwise",
            (1, 4, 9, 6),
            {"axis": 1},
            (np.abs(weights(4)) + 0.01, np.zeros(4, np.int8)),
            out_dtype=i8,
        ),
        Case(
            "row",
            "QuantizeLinear",
            "pointwise",
            (1, 4, 9, 6),
            {"axis": 2},
            (np.abs(weights(9)) + 0.01, np.zeros(9, np.int8)),
            out_dtype=i8,
        ),
        Case(
            "row",
            "DequantizeLinear",
            "pointwise",
            (1, 4, 9, 6),
            {"axis": 2},
            (np.abs(weights(9)) + 0.01, np.zeros(9, np.uint8)),
            dtype=u8,
            out_dtype=TensorProto.FLOAT,
        ),
        Case(
            "two",
            "QLinearMatMul",
            "pointwise",
            (1, 9, 6),
            {},
            (
                np.float32(0.1),
                np.uint8(3),
                wu[0, :, 0, :2].reshape(-1)[:6].reshape(6, 1),
                np.float32(0.2),
                np.uint8(120),
                np.float32(2),
                np.uint8(99),
            ),
            dtype=u8,
        ),
        Case(
            "plain",
            "QLinearSigmoid",
            "pointwise",
            (1, 4, 9, 6),
            {},
            (scale, zero, np.float32(1 / 256), np.uint8(0)),
            dtype=u8,
            domain="com.microsoft",
        ),
        Case(
            "plain",
            "QLinearAveragePool",
            "window",
            (1, 4, 9, 6),
            {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
            (scale, zero, scale, zero),
            dtype=u8,
            domain="com.microsoft",
        ),
    ]


def _pointwise() -> list[Case]:
    x = (1, 4, 9, 6)

    def p(name: str, op: str, attributes: Any = None, constants: Any = (), shape: Any = x, **k: Any) -> Case:
        return Case(name, op, "pointwise", shape, attributes or {}, constants, **k)

    unary = "Abs Neg Relu Sigmoid Tanh Exp Softplus Elu HardSigmoid LeakyRelu Floor Erf Selu Sin Identity"
    one, boolean = np.float32(1), TensorProto.BOOL
    return [
        *(p("unary", op) for op in unary.split()),
        p("opset20", "Gelu", opset=20),
        p("scalars", "Clip", {}, (np.float32(-0.5), one)),
        p("int", "Cast", {"to": TensorProto.INT32}, out_dtype=TensorProto.INT32),
        p("scalar", "Add", {}, (one,)),
        p("channel", "Mul", {}, (weights(4, 1, 1),)),
        p("rows", "Mul", {}, (weights(1, 1, 9, 1),)),
        p("rows-rank2", "Add", {}, (weights(9, 6),)),
        p("whole-map", "Sub", {}, (weights(1, 4, 9, 6),)),
        p("map", "Add", second=x),
        p("column", "Mul", second=(1, 4, 9, 1)),
        p("broadcast-batch", "Add", second=(9, 6)),
        p("three", "Sum", {}, (weights(9, 6), weights(1))),
        p("channel", "PRelu", {}, (weights(4, 1, 1),)),
        p("row", "PRelu", {}, (weights(1, 9, 1),)),
        p("map", "Greater", second=x, out_dtype=boolean),
        p("plain", "BatchNormalization", {}, (weights(4), weights(4), weights(4), np.abs(weights(4)) + 1)),
        p("plain", "LRN", {"size": 3}),
        p("channel", "Softmax", {"axis": 1}),
        p("width", "Softmax", {"axis": -1}),
        p("old", "Softmax", {"axis": 3}, opset=11),
        p("channel", "LogSoftmax", {"axis": 1}),
        p("channel", "Hardmax", {"axis": 1}),
        p("channel", "LpNormalization", {"axis": 1}),
        p("nhwc", "LayerNormalization", {"axis": -1}, (weights(6), weights(6))),
        p("channel", "ReduceMean", {"axes": [1]}, exact=False),
        p("width-dropped", "ReduceSum", {"keepdims": 0}, (ints(3),), exact=False),
        p("channel-dropped", "ReduceMax", {"axes": [1], "keepdims": 0}),
        p("channel", "ArgMax", {"axis": 1, "keepdims": 0}, out_dtype=TensorProto.INT64),
        p("channel", "CumSum", {}, (ints(1),)),
        p("channel", "Gather", {"axis": 1}, (ints(2, 0),)),
        p("channel-scalar", "Gather", {"axis": 1}, (np.int64(2),)),
        p("width-matrix", "Gather", {"axis": 3}, (ints([2, 0], [1, 1]),)),
        p("channel", "Split", {"axis": 1}, (ints(3, 1),), outputs=2),
        p("channel", "Concat", {"axis": 1}, (weights(1, 2, 9, 6),)),
        p("maps", "Concat", {"axis": 3}, second=(1, 4, 9, 2)),
        p("channel", "Slice", {}, (ints(1), ints(3), ints(1))),
        p("all-rows", "Slice", {}, (ints(0, 1), ints(9, 3), ints(2, 3))),
        p("width", "Pad", {}, (ints(0, 0, 0, 1, 0, 0, 0, 2),)),
        p("width", "Tile", {}, (ints(1, 2, 1, 3),)),
        p("plain", "Transpose", {"perm": [0, 2, 3, 1]}),
        p("reversed", "Transpose", {}),
        p("front", "Unsqueeze", {}, (ints(0, 3),)),
        p("front", "Squeeze", {}, (ints(0),)),
        p("shuffle", "Reshape", {}, (ints(1, 2, 2, 9, 6),)),
        p("behind", "Reshape", {}, (ints(1, 4, 9, 2, 3),)),
        p("merged-channels", "Reshape", {}, (ints(4, 9, 6),)),
        p("wider", "Expand", {}, (ints(2, 4, 9, 6),)),
        p("columns", "Expand", {}, (ints(1, 4, 9, 5),), shape=(1, 4, 9, 1)),
        p("dense", "MatMul", {}, (weights(6, 5),), shape=(1, 9, 6), exact=False),
        p("nhwc", "MatMul", {}, (weights(6, 5),), shape=(1, 9, 3, 6), exact=False),
        p("left", "MatMul", {}, (weights(1, 3, 6, 2),), shape=(1, 3, 9, 6), exact=False),
        p("plain", "Gemm", {}, (weights(6, 5), weights(5)), shape=(9, 6), exact=False),
        p("bias-rows", "Gemm", {}, (weights(6, 5), weights(9, 1)), shape=(9, 6), exact=False),
        p("plain", "Dropout"),
    ]


def _scaling() -> list[Case]:
    x = (1, 8, 9, 4)

    def s(name: str, op: str, attributes: Any = None, constants: Any = (), shape: Any = x, **k: Any) -> Case:
        return Case(name, op, "scaling", shape, attributes or {}, constants, minimal=False, **k)

    pads = (ints(0, 0, 2, 1, 0, 0, 3, 1),)
    return [
        s("dcr", "DepthToSpace", {"blocksize": 2}),
        s("crd", "DepthToSpace", {"blocksize": 2, "mode": "CRD"}),
        s("plain", "SpaceToDepth", {"blocksize": 2}, shape=(1, 3, 12, 4)),
        s("merge", "Reshape", {}, (ints(1, 8, 36),)),
        s("merge-zero", "Reshape", {}, (ints(0, 0, -1),)),
        s("merge-nhwc", "Reshape", {}, (ints(72, 4),), shape=(1, 9, 8, 4)),
        s("split", "Reshape", {}, (ints(1, 8, 4, 3, 4),), shape=(1, 8, 12, 4)),
        s("merge", "Flatten", {"axis": 3}, shape=(1, 9, 8, 4)),
        s("rows", "Slice", {}, (ints(2), ints(8), ints(2))),
        s("rows-negative", "Slice", {}, (ints(1, -7), ints(7, -1), ints(1, 2))),
        s("rows-step2", "Slice", {}, (ints(1), ints(99), ints(2), ints(2))),
        s("rows-step3", "Slice", {}, (ints(0, 0), ints(9, 9), ints(2, 1), ints(3, 2))),
        s("constant", "Pad", {}, pads),
        s("value", "Pad", {}, (*pads, np.float32(1.5))),
        s("edge", "Pad", {"mode": "edge"}, pads),
        s("reflect", "Pad", {"mode": "reflect"}, pads),
        s("axes", "Pad", {}, (ints(4, 1), None, ints(2)), opset=18),
    ]


def resizes() -> list[Case]:
    """Resize and Upsample in every mode, by whole factors and others."""
    cases = []
    modes: list[dict[str, Any]] = [
        {"mode": "nearest", "nearest_mode": m} for m in ("floor", "round_prefer_floor", "ceil")
    ]
    modes += [
        {"mode": "linear"},
        {"mode": "cubic"},
        {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
    ]
    coordinates = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"]
    ratios = {
        "x2": (14, 28),
        "x3": (13, 39),
        "half": (16, 8),
        "7-13": (7, 13),
        "41-90": (41, 90),
        "3half": (16, 24),
    }
    for mode in modes:
        for coordinate in coordinates:
            for name, (rows, out) in ratios.items():
                opset = 19 if coordinate == "half_pixel_symmetric" else 13
                attributes = mode | {"coordinate_transformation_mode": coordinate}
                tag = "-".join([str(v) for v in mode.values()] + [coordinate, name])
                shape = (1, 2, rows, 6)
                sizes = (None, None, ints(1, 2, out, 9))
                cases.append(
                    Case(
                        f"sizes-{tag}",
                        "Resize",
                        "scaling",
                        shape,
                        attributes,
                        sizes,
                        opset,
                        minimal=False,
                        exact=False,
                    )
                )
                if name in ("x2", "x3", "half", "3half"):
                    scales = (None, floats(1, 1, out / rows, 2))
                    cases.append(
                        Case(
                            f"scales-{tag}",
                            "Resize",
                            "scaling",
                            shape,
                            attributes,
                            scales,
                            opset,
                            minimal=False,
                            exact=False,
                        )
                    )
    plain: dict[str, Any] = {"kind": "scaling", "minimal": False, "exact": False}
    for mode in ("nearest", "linear"):
        cases += [
            Case(
                f"10-{mode}",
                "Resize",
                shape=(1, 2, 14, 6),
                attributes={"mode": mode},
                constants=(floats(1, 1, 2, 2),),
                opset=10,
                **plain,
            ),
            Case(
                f"9-{mode}",
                "Upsample",
                shape=(1, 2, 14, 6),
                attributes={"mode": mode},
                constants=(floats(1, 1, 2, 2),),
                opset=9,
                **plain,
            ),
            Case(
                f"9-{mode}-odd",
                "Upsample",
                shape=(1, 2, 14, 6),
                attributes={"mode": mode},
                constants=(floats(1, 1, 1.7, 2),),
                opset=9,
                **plain,
            ),
            Case(
                f"7-{mode}",
                "Upsample",
                shape=(1, 2, 14, 6),
                attributes={"mode": mode, "scales": [1.0, 1.0, 2.0, 2.0]},
                opset=7,
                **plain,
            ),
            Case(
                f"11-{mode}",
                "Resize",
                shape=(1, 2, 14, 6),
                attributes={"mode": mode},
                constants=(floats(), floats(), ints(1, 2, 21, 9)),
                opset=11,
                **plain,
            ),
            Case(
                f"axes-{mode}",
                "Resize",
                shape=(1, 2, 14, 6),
                attributes={"mode": mode, "axes": [3, 2]},
                constants=(None, None, ints(9, 28)),
                opset=18,
                **plain,
            ),
            Case(
                f"rows-only-{mode}",
                "Resize",
                shape=(1, 2, 14, 6),
                attributes={"mode": mode},
                constants=(None, None, ints(1, 2, 19, 6)),
                opset=13,
                **plain,
            ),
            Case(
                f"columns-only-{mode}",
                "Resize",
                shape=(1, 2, 14, 6),
                attributes={"mode": mode},
                constants=(None, None, ints(1, 2, 14, 11)),
                opset=13,
                **plain,
            ),
            Case(
                f"columns-scale-{mode}",
                "Resize",
                shape=(1, 2, 14, 6),
                attributes={"mode": mode},
                constants=(None, floats(1, 1, 1, 1.7)),
                opset=13,
                **plain,
            ),
            Case(
                f"3-d-{mode}",
                "Resize",
                shape=(1, 2, 14, 4, 5),
                attributes={"mode": mode},
                constants=(None, floats(1, 1, 2, 2, 2)),
                opset=13,
                **plain,
            ),
        ]
    for attributes in ({"mode": "linear", "antialias": 1}, {"mode": "cubic", "antialias": 1}):
        for out in (8, 13, 32):
            cases.append(
                Case(
                    f"antialias-{attributes['mode']}-{out}",
                    "Resize",
                    shape=(1, 2, 16, 6),
                    attributes=attributes,
                    constants=(None, None, ints(1, 2, out, 9)),
                    opset=18,
                    **plain,
                )
            )
    u8 = {"dtype": TensorProto.UINT8}
    cases.append(
        Case(
            "u8-nearest",
            "Resize",
            shape=(1, 2, 14, 6),
            attributes={"mode": "nearest"},
            constants=(None, None, ints(1, 2, 19, 9)),
            opset=13,
            **plain,
            **u8,
        )
    )
    return cases


CASES = [*_convolutions(), *_transposed(), *_pools(), *_quantised(), *_pointwise(), *_scaling()]
