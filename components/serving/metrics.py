"""What Prometheus scrapes (https://prometheus.io/docs/practices/naming/)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ServingMetrics:
    """The server's own metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nextvlad_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "nextvlad_request_seconds", "From a request's headers to its answer", ["route"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.videos = Counter("nextvlad_videos", "Videos scored", registry=self.registry)
        self.batch_videos = Histogram(
            "nextvlad_batch_videos", "Videos of a call of the model",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), registry=self.registry,
        )  # fmt: skip
        self.batch_seconds = Histogram(
            "nextvlad_batch_seconds", "A call of the model",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.waiting = Gauge(
            "nextvlad_waiting_videos", "Videos that wait for the model", registry=self.registry
        )
        self.bytes_in_flight = Gauge(
            "nextvlad_body_bytes_in_flight", "Bodies that are read or answered",
            registry=self.registry,
        )  # fmt: skip
        self.ready = Gauge("nextvlad_ready", "1 once the model is loaded", registry=self.registry)

    def text(self) -> bytes:
        """In Prometheus's text form."""
        return generate_latest(self.registry)
