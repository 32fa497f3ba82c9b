"""What is served: models by name, each with its session."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from distredge import __version__
from distredge.errors import DistrEdgeError, InputError
from distredge.runtime.feeds import NodeArg
from distredge.runtime.session import InferenceSession
from distredge.serve.metrics import Metrics
from distredge.serve.tensors import Array, datatype_of
from distredge.view.snapshot import Snapshot

VERSION = "1"
"""Of every model: one file is one version."""
EXTENSIONS = ("binary_tensor_data",)


class UnknownModelError(DistrEdgeError):
    """No model of that name and version is served."""


class Models:
    """The models that a server has.

    Args:
        sessions: by name.
        metrics: told of every request.
        in_flight: how many frames of each are under way at once; requests for more wait.
    """

    def __init__(
        self, sessions: Mapping[str, InferenceSession], metrics: Metrics, in_flight: int = 4
    ) -> None:
        self._sessions, self.metrics = dict(sessions), metrics
        self._room = {name: threading.BoundedSemaphore(in_flight) for name in sessions}

    @property
    def names(self) -> list[str]:
        """Under which models are served."""
        return list(self._sessions)

    @property
    def snapshots(self) -> list[Snapshot]:
        """What each model's session does at the moment, under the name that it is served by."""
        taken = {name: session.snapshot for name, session in self._sessions.items()}
        return [replace(found, model=name) for name, found in taken.items() if found is not None]

    def session(self, name: str, version: str = "") -> InferenceSession:
        """Raises UnknownModelError: there is none."""
        if name not in self._sessions or version not in ("", VERSION):
            wanted = f"{name!r}" + (f" version {version}" if version else "")
            raise UnknownModelError(f"model {wanted} is unknown; there is {', '.join(self.names)}")
        return self._sessions[name]

    def metadata(self, name: str, version: str = "") -> dict[str, Any]:
        """As the protocol's model metadata. Raises as `session`."""
        session = self.session(name, version)
        return {
            "name": name,
            "versions": [VERSION],
            "platform": "onnx_distredge",
            "inputs": [_described(info) for info in session.get_inputs()],
            "outputs": [_described(info) for info in session.get_outputs()],
        }

    def infer(
        self, name: str, version: str, feed: Mapping[str, Array], wanted: Sequence[str], protocol: str
    ) -> dict[str, Array]:
        """Computes one frame; outputs by name, all of them where none are named.

        Raises:
            UnknownModelError: there is no such model.
            InputError: an input or the name of an output is wrong.
            PeerError: a peer failed.
        """
        session = self.session(name, version)
        start, status = time.perf_counter(), "error"
        try:
            names = list(wanted) or [info.name for info in session.get_outputs()]
            with self._room[name]:
                outputs = session.run(names, feed)
            status = "ok"
        except InputError:
            status = "refused"
            raise
        finally:
            self.metrics.answered(name, protocol, status, time.perf_counter() - start)
        return dict(zip(names, outputs, strict=True))


def server_metadata() -> dict[str, Any]:
    """As the protocol's server metadata."""
    return {"name": "distredge", "version": __version__, "extensions": list(EXTENSIONS)}


def _described(info: NodeArg) -> dict[str, Any]:
    element = info.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64", "string": "object"}.get(element, element)
    shape = [dim if isinstance(dim, int) else -1 for dim in info.shape]
    return {"name": info.name, "datatype": datatype_of(dtype), "shape": shape}
