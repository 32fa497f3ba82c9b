"""The ONNX backend interface (`onnx.backend.base`): models on several peers, for whoever speaks it.

    import distredge.backend as backend

    outputs = backend.prepare(model, hosts="hosts.ini").run([image])

Without `hosts`, and with neither DISTREDGE_HOSTS nor DISTREDGE_PEERS set, models run on two peers of this
machine, which start with the first model, serve all others, and end with this process.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnx.backend.base import Backend, BackendRep, Device, DeviceType

from distredge.errors import InputError
from distredge.runtime.environment import HOSTS_VARIABLE, PEERS_VARIABLE, connect
from distredge.runtime.launcher import LocalPeers
from distredge.runtime.session import InferenceSession

__all__ = ["DistrEdgeBackend", "Prepared", "prepare", "run_model", "run_node", "supports_device"]

PEERS = 2
NODE_OPSET = 21
"""Of a node that comes without one: the newest that every onnxruntime since 1.20 knows."""
_shared: list[LocalPeers] = []
_starting = threading.Lock()


def shared_peers() -> LocalPeers:
    """The local peers of every model for which no hosts are named; started by the first."""
    with _starting:
        if not _shared:
            peers = LocalPeers(PEERS)
            weakref.finalize(shared_peers, peers.close)  # at the interpreter's end, behind every session
            _shared.append(peers)
    return _shared[0]


class Prepared(BackendRep):
    """A model on its peers.

    Attributes:
        session: what runs it, with its plan.
    """

    def __init__(self, session: InferenceSession) -> None:
        self.session = session

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """Computes one frame.

        Args:
            inputs: arrays in the model's order, or by name; for a model with one input, one alone will do.

        Returns:
            The outputs, in the model's order.

        Raises:
            InputError: the number of inputs, a shape or a dtype is wrong.
        """
        if isinstance(inputs, Sequence) and not isinstance(inputs, str):
            names = [info.name for info in self.session.get_inputs()]
            if len(inputs) != len(names):
                raise InputError(
                    f"{len(inputs)} inputs came, the model takes {len(names)}: {', '.join(names)}"
                )
            inputs = dict(zip(names, inputs, strict=True))
        return tuple(self.session.run(None, inputs))

    def close(self) -> None:
        """Ends the session. Otherwise it ends when nobody holds this object any more."""
        self.session.close()


class DistrEdgeBackend(Backend):
    """The interface's class; its methods are functions of this module, too."""

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **settings: Any) -> Prepared:
        """Brings a model to its peers.

        Args:
            model: the model.
            device: `CPU`; which engine a peer computes with is the hosts file's matter.
            settings: of `InferenceSession`, such as `hosts` or `policy`.

        Raises:
            ModelError: the model cannot be used. As `InferenceSession`.
            InputError: another device is asked for.
        """
        if not cls.supports_device(device):
            raise InputError(
                f"device {device!r} is not known; give 'CPU', and name engines in the hosts file"
            )
        data = model if isinstance(model, bytes) else model.SerializeToString()
        if (
            settings.keys() & {"hosts", "local_peers"}
            or HOSTS_VARIABLE in os.environ
            or PEERS_VARIABLE in os.environ
        ):
            return Prepared(connect(data, **settings))
        # Two peers of one machine are equally fast, which need not be measured for every model.
        return Prepared(
            InferenceSession(data, hosts=shared_peers().cluster, **{"policy": "equal", **settings})
        )

    @classmethod
    def run_model(
        cls, model: ModelProto, inputs: Any, device: str = "CPU", **settings: Any
    ) -> tuple[Any, ...]:
        """`prepare`, and one frame."""
        prepared = cls.prepare(model, device, **settings)
        try:
            return prepared.run(inputs)
        finally:
            prepared.close()

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **settings: Any,
    ) -> tuple[Any, ...]:
        """Runs one operator.

        Args:
            node: the operator.
            inputs: its inputs, in order, or by name.
            device: as for `prepare`.
            outputs_info: not needed.
            settings: of `prepare`; and `opset_version`, otherwise NODE_OPSET.
        """
        opset = settings.pop("opset_version", None)
        names = [name for name in node.input if name]
        feed = inputs if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=True))
        return cls.run_model(_model_of(node, feed, opset), feed, device, **settings)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether `device` is `CPU`, with or without a number."""
        try:
            return bool(Device(device).type == DeviceType.CPU)
        except AttributeError:
            return False


def _model_of(node: NodeProto, feed: Mapping[str, Any], opset: int | None) -> ModelProto:
    """A model of this node alone. The types of its outputs are for the engine to infer."""
    inputs = []
    for name, value in feed.items():
        array = np.asarray(value)
        element = (
            TensorProto.STRING if array.dtype.kind in "OU" else helper.np_dtype_to_tensor_dtype(array.dtype)
        )
        inputs.append(helper.make_tensor_value_info(name, element, array.shape))
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
    graph = helper.make_graph([node], node.op_type or "node", inputs, outputs)
    opsets = [helper.make_opsetid(node.domain, opset or NODE_OPSET)]
    return helper.make_model_gen_version(graph, opset_imports=opsets)


prepare = DistrEdgeBackend.prepare
run_model = DistrEdgeBackend.run_model
run_node = DistrEdgeBackend.run_node
supports_device = DistrEdgeBackend.supports_device
