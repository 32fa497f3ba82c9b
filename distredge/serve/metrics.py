"""Prometheus metrics of a server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

__all__ = ["CONTENT_TYPE", "Metrics"]

_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counts requests: `ok`, `refused` (the request was wrong) or `error` (the peers failed)."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "distredge_requests",
            "Inference requests answered.",
            ("model", "protocol", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "distredge_request_seconds",
            "From the request's arrival to its outputs; waiting for other requests included.",
            ("model",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )

    def answered(self, model: str, protocol: str, status: str, seconds: float) -> None:
        """Counts one request; of good ones also the seconds."""
        self._requests.labels(model, protocol, status).inc()
        if status == "ok":
            self._seconds.labels(model).observe(seconds)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)
