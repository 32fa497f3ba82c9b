"""From a user's ONNX model to a Graph with row rules, a weightless ONNX model, and a file of weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto

from distredge.errors import CacheError, InputError, ModelError
from distredge.files import written_whole
from distredge.graph.assemble import assemble, operations_of
from distredge.graph.axes import Rowing, best_rowing, with_features
from distredge.graph.draft import INLINE_BYTES, Draft, node_inputs, raw_bytes
from distredge.graph.extract import ROWS_KEY
from distredge.graph.model import Graph, Shape
from distredge.graph.normalise import expand_normalisations
from distredge.graph.rewrite import outputs_have_producers, rewrite
from distredge.graph.shapes import complete_shapes
from distredge.graph.simplify import (
    InputInfo,
    declared_inputs,
    declared_outputs,
    fixed_shapes,
    given_shapes,
    kind_text,
    read_proto,
    refusal,
    simplified,
)
from distredge.graph.sourceless import with_start

__all__ = ["InputInfo", "Model", "load_model", "model_inputs", "model_source"]

_SMALL_ALIGNMENT, _LARGE_ALIGNMENT, _LARGE_BYTES = 64, 4096, 64 * 1024
_FOLDED_INLINE_BYTES = 4 * 1024 * 1024
_WEIGHTED = frozenset(
    {
        *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv"),
        *("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"),
        *("BatchNormalization", "LSTM", "GRU", "RNN"),
    }
)


@dataclass(frozen=True, repr=False)
class Model:
    """An imported model.

    Attributes:
        graph: what is planned with; all shapes fixed.
        onnx: the simplified model; large weights are references into `<weights_sha256>.weights`.
        weights: the weights file.
        weights_sha256: SHA-256 of the weights file; the same for every input shape of one model.
        source: the user's own model, for a whole-model reference.
        input_infos, output_infos: as the user's file declares them.
    """

    graph: Graph
    onnx: bytes
    weights: Path
    weights_sha256: str
    source: Path | bytes
    input_infos: tuple[InputInfo, ...]
    output_infos: tuple[InputInfo, ...]

    def __repr__(self) -> str:
        return f"<Model {self.graph.name}: {len(self.graph.nodes)} nodes>"


def model_source(source: object) -> Path | bytes:
    """What a caller names a model by, as a path or bytes. Raises InputError if it is neither."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | os.PathLike):
        return Path(source)
    raise InputError(f"a {type(source).__name__} is no model; give the path of an ONNX file, or its bytes")


def model_inputs(source: str | Path | bytes) -> tuple[InputInfo, ...]:
    """The declared inputs of a model, without importing it.

    Raises:
        ModelError: no such file, or not an ONNX model.
    """
    return declared_inputs(read_proto(source, weights=False))


def load_model(
    source: str | Path | bytes,
    input_shapes: Mapping[str, Shape] | None = None,
    *,
    cache_dir: Path | None = None,
) -> Model:
    """Import a model for the given input shapes.

    Args:
        source: path of an ONNX file, or its bytes.
        input_shapes: shapes by input name, where the file leaves them open. A batch dimension that
            alone is open becomes 1.
        cache_dir: where weights files are kept; default `$DISTREDGE_CACHE/models`, else
            `$XDG_CACHE_HOME/distredge/models`, else `~/.cache/distredge/models`.

    Raises:
        ModelError: the file is missing, is not a whole ONNX model, or does not run.
        InputError: a shape is undefined, unknown, or refused by the model; or the source is none.
        CacheError: the weights cannot be kept.
    """
    source = model_source(source)
    proto = read_proto(source)
    _check_borders(proto)
    infos, outputs = declared_inputs(proto), declared_outputs(proto)
    given = given_shapes(input_shapes or {})
    shapes = fixed_shapes(infos, given)
    if not infos:
        with_start(proto)
    original = _fingerprints(proto)
    name = Path(source).stem if not isinstance(source, bytes) else (proto.graph.name or "model")
    try:
        proto = simplified(proto, shapes, bool(given))
    except ModelError as error:
        shapeless = next((info.name for info in infos if not info.shape and info.name not in given), None)
        if shapeless is None:
            raise
        raise InputError(
            f"input {shapeless!r} has no shape at all; give one with --input-shape {shapeless}=1x3xHxW",
            input=shapeless,
        ) from error
    draft = Draft(proto)
    try:
        outputs_have_producers(draft)
        complete_shapes(draft)
        rewrite(draft)
        complete_shapes(draft)
        rowing = _rowing(draft)
        while expand_normalisations(draft, rowing.axes):
            draft.name_nodes()
            complete_shapes(draft)
            rowing = _rowing(draft)
    except onnx.shape_inference.InferenceError as error:
        raise refusal(error, shapes, bool(given)) from error
    folder = cache_dir or default_cache_dir()
    weights, digest = _write_weights(draft, original, folder)
    model = draft.to_model()
    entry = model.metadata_props.add()
    entry.key, entry.value = ROWS_KEY, json.dumps(rowing.axes, sort_keys=True, separators=(",", ":"))
    data = model.SerializeToString(deterministic=True)
    graph = assemble(draft, rowing, name, hashlib.sha256(data).hexdigest())
    return Model(graph, data, weights, digest, source, infos, outputs)


def _check_borders(proto: ModelProto) -> None:
    """Maps and sparse tensors cannot cross between devices."""
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.WhichOneof("value") in ("map_type", "sparse_tensor_type", "opaque_type"):
            raise ModelError(
                f"{value.name!r} is a {kind_text(value.type)}; DistrEdge takes and gives tensors, sequences "
                "and optionals, so cut the model there",
                tensor=value.name,
            )


def default_cache_dir() -> Path:
    """Where weights files are kept unless the caller says otherwise."""
    if os.environ.get("DISTREDGE_CACHE"):
        return Path(os.environ["DISTREDGE_CACHE"]) / "models"
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        raise CacheError(
            "there is no home folder to keep models in; set DISTREDGE_CACHE to a folder"
        ) from None
    return Path(base) / "distredge" / "models"


def _rowing(draft: Draft) -> Rowing:
    operations, work = operations_of(draft)
    inputs = [value.name for value in draft.inputs]
    dynamic = frozenset(draft.dynamic)
    rowing = best_rowing(operations, work, inputs, draft.shapes, draft.dtypes, dynamic)
    return with_features(rowing, operations, work, inputs, draft.shapes, dynamic)


def _write_weights(draft: Draft, original: Mapping[str, bytes], folder: Path) -> tuple[Path, str]:
    """Write the large tensors to a file named by its hash, and let the draft refer to it.

    What onnxruntime folded out of the input shapes (grids of anchors, resized position embeddings) stays
    in the graph up to a few MiB, so that one weights file serves every input shape.
    """
    read = {name for node in draft.nodes for name in node_inputs(node)}
    weights = _weight_names(draft)
    by_content: dict[bytes, list[str]] = {}
    for name, content in draft.contents.items():
        if name not in read:
            continue
        known = original.get(name) == hashlib.sha256(content).digest()
        if known or name in weights or len(content) > _FOLDED_INLINE_BYTES:
            by_content.setdefault(hashlib.sha256(content).digest(), []).append(name)
        else:
            tensor = draft.initializers[name]
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = content
    # Ordered by content: neither names nor the order of nodes, which both vary with the input shape.
    places: dict[str, tuple[int, int]] = {}
    pieces: list[bytes] = []
    end = 0
    whole = hashlib.sha256()
    for key in sorted(by_content):
        content = draft.contents[by_content[key][0]]
        alignment = _LARGE_ALIGNMENT if len(content) >= _LARGE_BYTES else _SMALL_ALIGNMENT
        gap = -end % alignment
        for piece in (bytes(gap), content):
            whole.update(piece)
            pieces.append(piece)
        places.update((name, (end + gap, len(content))) for name in by_content[key])
        end += gap + len(content)
    digest = whole.hexdigest()
    target = folder / f"{digest}.weights"
    try:
        if not target.is_file() or target.stat().st_size != end:
            _write_whole(target, pieces)
    except OSError as error:
        reason = error.strerror or error
        raise CacheError(
            f"the model's weights cannot be kept in {folder}: {reason}; free some space, or set "
            "DISTREDGE_CACHE to another folder"
        ) from None
    for name, (offset, length) in places.items():
        tensor = draft.initializers[name]
        del tensor.external_data[:]
        for entry, value in (("location", target.name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=entry, value=str(value))
    return target, digest


def _write_whole(target: Path, pieces: Iterable[bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as part, part.open("wb") as file:
        file.writelines(pieces)


def _weight_names(draft: Draft) -> set[str]:
    """Constants that are weights by their place; folding may have renamed or changed them."""
    return {
        name
        for node in draft.nodes
        if node.op_type in _WEIGHTED or node.op_type == "DequantizeLinear"
        for name in list(node.input)[0 if node.op_type == "DequantizeLinear" else 1 :]
    }


def _fingerprints(proto: ModelProto) -> dict[str, bytes]:
    """Hash of every large tensor that the file itself holds."""
    found = {}
    for tensor in proto.graph.initializer:
        content = raw_bytes(tensor)
        if content is not None and len(content) >= INLINE_BYTES:
            found[tensor.name] = hashlib.sha256(content).digest()
    return found
