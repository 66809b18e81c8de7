"""The training loss."""

from __future__ import annotations

from typing import Any

from keras import ops

EPSILON = 1e-6
"""Keeps the logarithms of a saturated float32 probability finite."""


def cross_entropy(labels: Any, probabilities: Any) -> Any:
    """Binary cross-entropy summed over classes, averaged over videos, as google/youtube-8m.

    Args:
        labels: float [B,C] in 0 … 1.
        probabilities: float32 [B,C].

    Returns:
        Scalar float32, in nats a video.
    """
    p = ops.clip(ops.cast(probabilities, "float32"), EPSILON, 1 - EPSILON)
    y = ops.cast(labels, "float32")
    terms = y * ops.log(p) + (1 - y) * ops.log1p(-p)
    return -ops.mean(ops.sum(terms, axis=-1))
