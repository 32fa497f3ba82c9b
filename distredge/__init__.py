"""DistrEdge: one CNN on several unequal devices, split by the rows of its feature maps.

Every public name is imported when it is first used, so that a peer loads no more than it needs and
`distredge --help` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from distredge.cluster.hosts import load_hosts as load_hosts
    from distredge.errors import CacheError as CacheError
    from distredge.errors import DistrEdgeError as DistrEdgeError
    from distredge.errors import HostsError as HostsError
    from distredge.errors import InputError as InputError
    from distredge.errors import ModelError as ModelError
    from distredge.errors import PeerError as PeerError
    from distredge.errors import PeerLostError as PeerLostError
    from distredge.errors import PeerTimeoutError as PeerTimeoutError
    from distredge.errors import PolicyError as PolicyError
    from distredge.errors import PortInUseError as PortInUseError
    from distredge.errors import ProtocolError as ProtocolError
    from distredge.errors import StrategyError as StrategyError
    from distredge.graph.importer import load_model as load_model
    from distredge.graph.preprocess import Preprocess as Preprocess
    from distredge.graph.preprocess import with_preprocessing as with_preprocessing
    from distredge.plan.compile import compile_plan as compile_plan
    from distredge.plan.execution import ExecutionPlan as Plan  # noqa: F401
    from distredge.plan.policy import find_strategy as find_strategy
    from distredge.plan.policy import get_policy as get_policy
    from distredge.runtime.environment import connect as connect
    from distredge.runtime.launcher import LocalPeers as LocalPeers
    from distredge.runtime.session import InferenceSession as InferenceSession

# public name -> (module, name in it)
_PUBLIC = {
    "InferenceSession": ("distredge.runtime.session", "InferenceSession"),
    "LocalPeers": ("distredge.runtime.launcher", "LocalPeers"),
    "connect": ("distredge.runtime.environment", "connect"),
    "load_model": ("distredge.graph.importer", "load_model"),
    "Preprocess": ("distredge.graph.preprocess", "Preprocess"),
    "with_preprocessing": ("distredge.graph.preprocess", "with_preprocessing"),
    "load_hosts": ("distredge.cluster.hosts", "load_hosts"),
    "get_policy": ("distredge.plan.policy", "get_policy"),
    "find_strategy": ("distredge.plan.policy", "find_strategy"),
    "compile_plan": ("distredge.plan.compile", "compile_plan"),
    "Plan": ("distredge.plan.execution", "ExecutionPlan"),
    "CacheError": ("distredge.errors", "CacheError"),
    "DistrEdgeError": ("distredge.errors", "DistrEdgeError"),
    "HostsError": ("distredge.errors", "HostsError"),
    "InputError": ("distredge.errors", "InputError"),
    "KeysError": ("distredge.errors", "KeysError"),
    "ModelError": ("distredge.errors", "ModelError"),
    "PeerError": ("distredge.errors", "PeerError"),
    "PeerLostError": ("distredge.errors", "PeerLostError"),
    "PeerRefusedError": ("distredge.errors", "PeerRefusedError"),
    "PeerTimeoutError": ("distredge.errors", "PeerTimeoutError"),
    "PolicyError": ("distredge.errors", "PolicyError"),
    "PortInUseError": ("distredge.errors", "PortInUseError"),
    "ProtocolError": ("distredge.errors", "ProtocolError"),
    "StrategyError": ("distredge.errors", "StrategyError"),
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    try:
        module, attribute = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module 'distredge' has no attribute {name!r}") from None
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
