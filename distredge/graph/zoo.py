"""The zoo: models to try, to test and to measure with. Almost all have seeded random weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from distredge.errors import InputError, ModelError
from distredge.files import written_whole

if TYPE_CHECKING:
    import onnx

Shape = tuple[int, ...]

_OWN = "written by DistrEdge, seeded random weights"
_WHEEL = "topology of the onnx wheel, seeded random weights"
_TRAINED = "trained, out of the rapidocr package"


@dataclass(frozen=True, slots=True)
class ZooModel:
    """One model of the zoo.

    Attributes:
        module, function: where in `distredge.graph.zoo_models` it is made.
        input: name of its only input.
        shape: default shape of that input; 0 where the model leaves a dimension open.
        macs: multiply-accumulates at the default shape; at 1x3x640x640 where that is open.
        parameters: values in the weights.
    """

    name: str
    description: str
    module: str
    function: str
    input: str
    shape: Shape
    macs: int
    parameters: int
    source: str = _OWN

    def build(self, shape: Shape | None = None, seed: int = 0) -> onnx.ModelProto:
        """Makes the model; the same seed gives the same weights on every machine.

        Raises:
            InputError: the model cannot take this shape.
            ModelError: the package that holds it is not installed.
        """
        shape = shape or self.shape
        if len(shape) != len(self.shape):
            raise InputError(f"{self.name}: its input has {len(self.shape)} dimensions, not {len(shape)}")
        make = getattr(import_module(f"distredge.graph.zoo_models.{self.module}"), self.function)
        model: onnx.ModelProto = make(self.name, shape, seed)
        return model


def _light(name: str, description: str, macs: int, parameters: int, tensor: str = "data_0") -> ZooModel:
    return ZooModel(
        name, description, "packaged", "light", tensor, (1, 3, 224, 224), macs, parameters, _WHEEL
    )


def _own(name: str, description: str, module: str, shape: Shape, macs: int, parameters: int) -> ZooModel:
    return ZooModel(name, description, module, name.replace("-", "_"), "input", shape, macs, parameters)


_GPU0 = "gpu_0/data_0"
_MODELS = (
    _own("tiny", "one small convolution", "vgg", (1, 3, 32, 32), 221_184, 224),
    _own("vgg16", "VGG-16 with fully connected layers", "vgg", (1, 3, 224, 224), 15_470_264_320, 138_357_544),
    _own("vgg16-body", "VGG-16, convolutions and pools", "vgg", (1, 3, 224, 224), 15_346_630_656, 14_714_688),
    _own("resnet50", "ResNet-50", "resnet", (1, 3, 224, 224), 4_089_184_256, 25_610_152),
    _own("inception_v3", "Inception-v3", "inception", (1, 3, 299, 299), 5_713_216_096, 23_869_000),
    _own("yolov2", "YOLOv2 on Darknet-19, 80 classes", "yolo", (1, 3, 608, 608), 31_469_126_656, 50_983_561),
    _own("ssd_vgg16", "SSD300, VGG-16", "ssd", (1, 3, 300, 300), 31_373_537_792, 26_285_487),
    _own("ssd_resnet50", "SSD300, ResNet-50", "ssd", (1, 3, 300, 300), 20_150_906_112, 22_922_806),
    _own("openpose", "OpenPose, six stages", "openpose", (1, 3, 368, 368), 135_934_006_784, 52_311_446),
    _own("voxelnet", "VoxelNet's 2-D part", "voxelnet", (1, 128, 400, 352), 49_958_092_800, 6_222_608),
    _light("alexnet", "AlexNet, grouped convolutions and LRN", 654_560_384, 60_965_224),
    _light("densenet121", "DenseNet-121", 2_834_161_664, 8_146_152),
    _light("inception_v1", "GoogLeNet", 1_431_556_352, 6_998_552),
    _light("inception_v2", "Inception with batch normalisation", 2_018_851_840, 11_234_792),
    _light("light_resnet50", "ResNet-50 as Caffe2 has it", 4_089_184_256, 25_610_153, _GPU0),
    _light("shufflenet", "ShuffleNet, shuffle by Reshape and Transpose", 124_664_528, 1_420_152, _GPU0),
    _light("squeezenet", "SqueezeNet 1.0", 349_151_936, 1_235_496),
    _light("vgg19", "VGG-19 with fully connected layers", 19_632_062_464, 143_667_240),
    _light("zfnet512", "ZFNet-512", 1_481_727_008, 87_250_537, _GPU0),
    ZooModel(
        "pp-ocrv6-det",
        "PP-OCRv6 text detection, rows and columns in multiples of 32",
        "packaged",
        "pp_ocrv6_det",
        "x",
        (0, 3, 0, 0),
        4_332_999_936,
        2_453_416,
        _TRAINED,
    ),
)  # fmt: skip


def models() -> tuple[ZooModel, ...]:
    """All models of the zoo."""
    return _MODELS


def get(name: str) -> ZooModel:
    """The model of this name.

    Raises:
        ModelError: there is none.
    """
    for model in _MODELS:
        if model.name == name:
            return model
    names = " ".join(model.name for model in _MODELS)
    raise ModelError(f"the zoo has no model {name!r}; it has {names}", name=name)


def write(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Writes a model to a file, whole or not at all.

    Raises:
        ModelError: the file cannot be written.
    """
    path = Path(path)
    try:
        content = model.SerializeToString()
        with written_whole(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror or error}", path=str(path)) from error
