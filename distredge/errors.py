"""Every error that DistrEdge raises on purpose: the message says what to do next, attributes the context."""

from __future__ import annotations


class DistrEdgeError(Exception):
    """Base of all. `context` is also set as attributes.

    The command line prints the message as one line and exits with `exit_code`.
    """

    exit_code = 2

    def __init__(self, message: str, **context: object) -> None:
        super().__init__(message)
        self.context = context
        for name, value in context.items():
            setattr(self, name, value)


class ModelError(DistrEdgeError):
    """The model file is missing, truncated, not ONNX, or not runnable."""


class InputError(DistrEdgeError):
    """An input's name, shape or dtype is wrong, or a shape is undefined."""


class CacheError(DistrEdgeError):
    """The folder for models cannot be made or written, or its disk is full."""


class HostsError(DistrEdgeError):
    """The hosts file is wrong; the message names file, section and line."""


class StrategyError(DistrEdgeError):
    """A strategy or plan does not fit the model or the devices."""


class PolicyError(DistrEdgeError):
    """No such policy, or it cannot be used here."""


class VerifyError(DistrEdgeError):
    """A strategy could not be executed to its end, though the whole model runs; a fault of DistrEdge."""

    exit_code = 1


class ProtocolError(DistrEdgeError):
    """A message that does not follow the protocol, or from another version."""


class PortInUseError(DistrEdgeError):
    """The address to bind is taken."""


class KeysError(DistrEdgeError):
    """A key that encryption needs is missing, damaged, or readable by others."""


class PeerError(DistrEdgeError):
    """A peer failed; `peer` names it."""


class PeerTimeoutError(PeerError):
    """A peer did not answer within the time limit; `peer` names it."""


class PeerLostError(PeerError):
    """A peer died or was cut off while it was needed; `peer` names it."""


class PeerRefusedError(PeerError):
    """A peer does not accept this process's key, or is not the one whose key is known; `peer` names it."""


class WedgedError(DistrEdgeError):
    """A peer's computation never ends."""


class ProfileError(DistrEdgeError):
    """A device profile is malformed, of another model or machine, or lacks what is asked of it."""


class TestbedError(DistrEdgeError):
    """The testbed cannot be made or changed: not root, a tool is missing, a name is taken."""

    __test__ = False  # the name is no test's


class LaunchError(DistrEdgeError):
    """Something failed on a host; the message says what, without naming the host again."""

    exit_code = 1
