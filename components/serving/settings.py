"""How the server listens, what it takes, and how it batches."""

from __future__ import annotations

import dataclasses

from trainer.errors import InputError


@dataclasses.dataclass(frozen=True)
class ServingSettings:
    """Limits and routes.

    Attributes:
        health_route, predict_route: paths, as Vertex AI's AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE
            give them.
        name: of the model in TensorFlow Serving's paths, `/v1/models/<name>`.
        max_batch: videos that the model scores in one call, at least 1.
        batch_milliseconds: how long the first video of a batch waits for others.
        max_instances: of a request.
        max_body_bytes: of a request.
        max_queue: videos that wait at most, windows of timelines with them; beyond it a request is
            turned away with 503.
        max_bytes_in_flight: bodies of all requests that are being read or answered.
        max_connections: at once.
        body_seconds: within which a body has to arrive.
        header_seconds: within which a request's headers have to arrive.
        stop_seconds: that requests in progress get when the server is asked to stop.
    """

    health_route: str = "/health"
    predict_route: str = "/predict"
    name: str = "nextvlad"
    max_batch: int = 64
    batch_milliseconds: float = 5.0
    max_instances: int = 128
    max_body_bytes: int = 64 << 20
    max_queue: int = 2048
    max_bytes_in_flight: int = 1 << 30
    max_connections: int = 1024
    body_seconds: float = 30.0
    header_seconds: float = 10.0
    stop_seconds: int = 30

    def __post_init__(self) -> None:
        """Whether every request that is small enough can be held at all.

        Raises:
            InputError: it can not.
        """
        for most, least in (
            ("max_queue", "max_instances"),
            ("max_bytes_in_flight", "max_body_bytes"),
        ):
            if getattr(self, most) < getattr(self, least):
                raise InputError(
                    f"{most} is {getattr(self, most):,}, expected at least {least}, "
                    f"{getattr(self, least):,}"
                )
