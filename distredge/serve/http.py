"""The Open Inference Protocol (KServe v2) over HTTP, with the binary tensor extension; metrics beside it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from distredge.errors import DistrEdgeError, InputError
from distredge.serve.metrics import CONTENT_TYPE
from distredge.serve.models import VERSION, Models, UnknownModelError, server_metadata
from distredge.serve.tensors import Array, checked_shape, datatype_of, from_bytes, from_list, to_bytes
from distredge.view.server import HEADERS, SNAPSHOTS, page
from distredge.view.snapshot import to_json

HEADER_LENGTH = "Inference-Header-Content-Length"
Endpoint = Callable[[Request], Awaitable[Response]]


def http_app(models: Models, *, limit_bytes: int) -> Starlette:
    """The application.

    Args:
        models: what is served.
        limit_bytes: of a request.
    """

    async def live(_: Request) -> Response:
        return Response()

    async def server(_: Request) -> Response:
        return JSONResponse(server_metadata())

    async def metrics(_: Request) -> Response:
        return Response(models.metrics.text(), media_type=CONTENT_TYPE)

    async def view(_: Request) -> Response:
        return HTMLResponse(page(), headers=HEADERS)

    async def snapshots(_: Request) -> Response:
        return Response(to_json(models.snapshots), media_type="application/json", headers=HEADERS)

    async def index(_: Request) -> Response:
        return JSONResponse([{"name": n, "version": VERSION, "state": "READY"} for n in models.names])

    async def ready(request: Request) -> Response:
        models.session(*_model(request))
        return Response()

    async def metadata(request: Request) -> Response:
        return JSONResponse(models.metadata(*_model(request)))

    async def infer(request: Request) -> Response:
        name, version = _model(request)
        models.session(name, version)
        body = await _body(request, limit_bytes)
        return await run_in_threadpool(
            _infer, models, name, version, request.headers.get(HEADER_LENGTH), body
        )

    model = "/v2/models/{name}"
    routes = [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", live),
        Route("/v2/repository/index", index, methods=["POST"]),
        Route("/metrics", metrics),
        Route("/view", view),
        Route(f"/view/{SNAPSHOTS}", snapshots),
    ]
    for base in (model, model + "/versions/{version}"):
        routes += [
            Route(base, metadata),
            Route(base + "/ready", ready),
            Route(base + "/infer", infer, methods=["POST"]),
        ]
    handlers: Any = {DistrEdgeError: _refused, HTTPException: _unserved}
    return Starlette(routes=routes, exception_handlers=handlers)


def _refused(_: Request, error: DistrEdgeError) -> Response:
    """The protocol's own errors: 404 for a model, 400 for a wrong request, 500 for what failed here."""
    status = 404 if isinstance(error, UnknownModelError) else 400 if isinstance(error, InputError) else 500
    return JSONResponse({"error": " ".join(str(error).split())}, status)


def _unserved(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code)


def _model(request: Request) -> tuple[str, str]:
    return request.path_params["name"], request.path_params.get("version", "")


async def _body(request: Request, limit_bytes: int) -> bytes:
    """The request's bytes. Refuses more than the limit before it has taken them in."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(415, "compressed requests are not understood; send without Content-Encoding")
    body = bytearray()
    async for piece in request.stream():
        if len(body) + len(piece) > limit_bytes:
            raise HTTPException(413, f"a request may have {limit_bytes} bytes")
        body += piece
    return bytes(body)


def _infer(models: Models, name: str, version: str, length: str | None, body: bytes) -> Response:
    size = len(body) if length is None else int(length) if length.isdecimal() else -1
    if not 0 <= size <= len(body):
        raise InputError(f"{HEADER_LENGTH} is {length}, and {len(body)} bytes came")
    head = _read_json(body[:size])
    feed = _feed(head, memoryview(body)[size:])
    wanted = _entries(head, "outputs")
    parameters = _parameters(head)
    for output in wanted:
        if _parameters(output).keys() - {"binary_data"}:
            raise InputError(f"output {output.get('name')!r}: of parameters, only binary_data is known")
    outputs = models.infer(name, version, feed, [str(output.get("name")) for output in wanted], "http")
    by_default = parameters.get("binary_data_output", False) is True
    binary = {str(o.get("name")): _parameters(o).get("binary_data", by_default) is True for o in wanted}
    answer: dict[str, Any] = {"model_name": name, "model_version": VERSION}
    if isinstance(head.get("id"), str):
        answer["id"] = head["id"]
    described, pieces = [], []
    for output_name, array in outputs.items():
        datatype = datatype_of(array.dtype.name)
        entry: dict[str, Any] = {"name": output_name, "datatype": datatype, "shape": list(array.shape)}
        if binary.get(output_name, by_default) or datatype in ("FP16", "BF16"):
            pieces.append(to_bytes(array))
            entry["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            entry["data"] = array.ravel().tolist()
        described.append(entry)
    answer["outputs"] = described
    text = json.dumps(answer).encode()
    if not pieces:
        return Response(text, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(text))}
    return Response(text + b"".join(pieces), media_type="application/octet-stream", headers=headers)


def _read_json(data: bytes) -> dict[str, Any]:
    try:
        head = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError("the request is no JSON") from None
    if not isinstance(head, dict):
        raise InputError("the request is no JSON object")
    return head


def _entries(head: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = head.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(e, dict) and "name" in e for e in entries):
        raise InputError(f"{key!r} is no list of objects with names")
    return entries


def _parameters(entry: dict[str, Any]) -> dict[str, Any]:
    found = entry.get("parameters") or {}
    if not isinstance(found, dict):
        raise InputError("'parameters' is no object")
    return found


def _feed(head: dict[str, Any], raw: memoryview) -> dict[str, Array]:
    feed: dict[str, Array] = {}
    at = 0
    for entry in _entries(head, "inputs"):
        name = str(entry["name"])
        parameters = _parameters(entry)
        if parameters.keys() - {"binary_data_size"}:
            raise InputError(f"input {name!r}: of parameters, only binary_data_size is known")
        shape, datatype = checked_shape(name, entry.get("shape")), entry.get("datatype")
        size = parameters.get("binary_data_size")
        if size is None:
            feed[name] = from_list(name, str(datatype), shape, entry.get("data"))
            continue
        if type(size) is not int or not 0 <= size <= len(raw) - at:
            raise InputError(f"input {name!r}: binary_data_size is {size}, {len(raw) - at} bytes are left")
        feed[name] = from_bytes(name, str(datatype), shape, raw[at : at + size])
        at += size
    if at != len(raw):
        raise InputError(f"{len(raw) - at} bytes came behind the last input")
    return feed
