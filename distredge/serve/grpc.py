"""The same protocol over gRPC."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from open_inference.grpc import protocol as messages
from open_inference.grpc import service

from distredge.errors import DistrEdgeError, InputError
from distredge.serve.models import VERSION, Models, UnknownModelError, server_metadata
from distredge.serve.tensors import Array, checked_shape, datatype_of, from_bytes, from_list, to_bytes

THREADS = 8
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def grpc_server(models: Models, address: str, *, limit_bytes: int) -> tuple[grpc.Server, int]:
    """A server, not started yet, and the port that it listens at.

    Args:
        models: what is served.
        address: `host:port`; port 0 for any.
        limit_bytes: of a request.

    Raises:
        RuntimeError: the address cannot be had.
    """
    options = [("grpc.max_receive_message_length", limit_bytes), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(THREADS, "grpc"), options=[*options, ("grpc.so_reuseport", 0)])
    service.add_GRPCInferenceServiceServicer_to_server(_Service(models), server)
    return server, server.add_insecure_port(address)


class _Service(service.GRPCInferenceServiceServicer):
    def __init__(self, models: Models) -> None:
        self._models = models

    def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.ServerReadyResponse(ready=True)

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.ServerMetadataResponse(**server_metadata())

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            self._models.session(request.name, request.version)
        except UnknownModelError:
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            found = self._models.metadata(request.name, request.version)
        except DistrEdgeError as error:
            _abort(context, error)
        tensor = messages.ModelMetadataResponse.TensorMetadata
        for key in ("inputs", "outputs"):
            found[key] = [tensor(**entry) for entry in found[key]]
        return messages.ModelMetadataResponse(**found)

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            name, version = request.model_name, request.model_version
            self._models.session(name, version)
            wanted = [output.name for output in request.outputs]
            outputs = self._models.infer(name, version, _feed(request), wanted, "grpc")
        except DistrEdgeError as error:
            _abort(context, error)
        answer = messages.ModelInferResponse(model_name=name, model_version=VERSION, id=request.id)
        for output, array in outputs.items():
            datatype = datatype_of(array.dtype.name)
            answer.outputs.add(name=output, datatype=datatype, shape=array.shape)
            answer.raw_output_contents.append(to_bytes(array))
        return answer


def _feed(request: Any) -> dict[str, Array]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InputError(f"{len(raw)} raw contents came for {len(request.inputs)} inputs")
    feed: dict[str, Array] = {}
    for at, entry in enumerate(request.inputs):
        shape = checked_shape(entry.name, entry.shape)
        if raw:
            feed[entry.name] = from_bytes(entry.name, entry.datatype, shape, raw[at])
            continue
        contents = _CONTENTS.get(entry.datatype)
        if contents is None:
            raise InputError(f"input {entry.name!r}: {entry.datatype!r} takes raw contents only")
        feed[entry.name] = from_list(
            entry.name, entry.datatype, shape, list(getattr(entry.contents, contents))
        )
    return feed


def _abort(context: Any, error: DistrEdgeError) -> None:
    code = grpc.StatusCode.INTERNAL
    if isinstance(error, InputError):
        code = grpc.StatusCode.INVALID_ARGUMENT
    elif isinstance(error, UnknownModelError):
        code = grpc.StatusCode.NOT_FOUND
    context.abort(code, " ".join(str(error).split()))
