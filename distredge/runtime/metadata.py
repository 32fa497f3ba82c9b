"""What a model's file says of itself, as onnxruntime's `get_modelmeta` tells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distredge.graph.simplify import read_proto

_NO_VERSION = 2**63 - 1


@dataclass(frozen=True)
class ModelMetadata:
    """With the names of onnxruntime's class.

    Attributes:
        custom_metadata_map: the file's own entries, text by name.
        version: the model's.
    """

    custom_metadata_map: dict[str, str]
    description: str
    domain: str
    graph_description: str
    graph_name: str
    producer_name: str
    version: int

    @classmethod
    def of(cls, source: Path | bytes) -> ModelMetadata:
        """Reads a file, or its bytes. Raises ModelError as `load_model`."""
        proto = read_proto(source, weights=False)
        return cls(
            {entry.key: entry.value for entry in proto.metadata_props},
            proto.doc_string,
            proto.domain,
            proto.graph.doc_string,
            proto.graph.name,
            proto.producer_name,
            proto.model_version if proto.HasField("model_version") else _NO_VERSION,
        )
