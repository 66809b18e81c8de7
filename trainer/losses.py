"""The training losses, written with `keras.ops` alone.

Shape legend: B videos, C classes, V verticals, M branches of a mixture.

Each loss is in nats a video: summed over classes, averaged over videos. Labels are in 0 … 1 and may
be soft (mixup, smoothing): a class's loss is then the label-weighted mean of the loss of a positive
and of a negative. Weights, float [B,C], multiply the loss of each pair of video and class; without
them all count 1. Half precision is cast up: all is reckoned in float32, in float64 if the
probabilities are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from trainer.config import TrainingConfig

EPSILON = 1e-6
"""Keeps the logarithms of a saturated float32 probability finite."""

CLASS_WEIGHT = 2.0
"""Weight of the classes' part of a two-part loss; the verticals' part has weight 1."""

LOSSES = ("cross_entropy", "focal", "asymmetric")


def cross_entropy(labels: Any, probabilities: Any, weights: Any = None) -> Any:
    """Binary cross-entropy summed over classes, averaged over videos, as google/youtube-8m.

    Args:
        labels: float [B,C] in 0 … 1.
        probabilities: float [B,C].
        weights: float [B,C], or None.

    Returns:
        Scalar, in nats a video.
    """
    p = _clipped(probabilities)
    return _loss(labels, ops.log(p), ops.log1p(-p), weights)


def focal(
    labels: Any,
    probabilities: Any,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weights: Any = None,
) -> Any:
    """Focal loss: cross-entropy in which what is already right counts less.

    Lin, Goyal, Girshick, He, Dollár, "Focal Loss for Dense Object Detection", arXiv 1708.02002,
    eq. 5, each class a binary problem:

        −α (1 − p)^γ log p of a positive, −(1 − α) p^γ log(1 − p) of a negative

    With γ = 0 and α = ½ it is half of `cross_entropy`.

    Args:
        labels: float [B,C] in 0 … 1.
        probabilities: float [B,C].
        gamma: γ, at least 0.
        alpha: α in 0 … 1, weight of the positives.
        weights: float [B,C], or None.

    Returns:
        Scalar, in nats a video.
    """
    p = _clipped(probabilities)
    positive = alpha * ops.power(1 - p, gamma) * ops.log(p)
    negative = (1 - alpha) * ops.power(p, gamma) * ops.log1p(-p)
    return _loss(labels, positive, negative, weights)


def asymmetric(
    labels: Any,
    probabilities: Any,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
    weights: Any = None,
) -> Any:
    """Asymmetric loss: focuses positives and negatives apart, and drops the easy negatives.

    Ridnik et al., "Asymmetric Loss For Multi-Label Classification", arXiv 2009.14119, eq. 4–7,
    with the shifted probability p_m = max(p − m, 0):

        −(1 − p)^γ₊ log p of a positive, −p_m^γ₋ log(1 − p_m) of a negative

    With γ₊ = γ₋ = m = 0 it is `cross_entropy`.

    Args:
        labels: float [B,C] in 0 … 1.
        probabilities: float [B,C].
        gamma_positive: γ₊, at least 0.
        gamma_negative: γ₋, at least 0.
        margin: m in 0 … 1; a negative of a probability up to m costs nothing.
        weights: float [B,C], or None.

    Returns:
        Scalar, in nats a video.
    """
    p = _clipped(probabilities)
    shifted = ops.maximum(p - margin, 0)
    positive = ops.power(1 - p, gamma_positive) * ops.log(p)
    # Below γ₋ = 1 the power has no finite slope at 0, where all easy negatives are; the logarithm
    # is 0 there, so the bound changes the slope alone.
    negative = ops.power(ops.maximum(shifted, EPSILON), gamma_negative) * ops.log1p(-shifted)
    return _loss(labels, positive, negative, weights)


def smoothed(labels: Any, smoothing: float) -> Any:
    """Labels moved towards ½: y (1 − ε) + ε/2, as `keras.losses.BinaryCrossentropy`.

    Args:
        labels: [B,C] in 0 … 1.
        smoothing: ε in 0 … 1; 0 changes nothing.

    Returns:
        float [B,C].
    """
    return _wide(labels) * (1 - smoothing) + smoothing / 2


def make_loss(training: TrainingConfig) -> Callable[..., Any]:
    """The class loss that a configuration asks for, its label smoothing included.

    Args:
        training: has `loss` (of `LOSSES`), `label_smoothing`, `focal_gamma`, `focal_alpha`,
            `asymmetric_gamma_positive`, `asymmetric_gamma_negative`, `asymmetric_margin`.

    Returns:
        Function of labels [B,C], probabilities [B,C] and, if wanted, weights [B,C]: scalar, in nats
        a video.

    Raises:
        ValueError: `loss` is none of `LOSSES`.
    """
    options: dict[str, float] = {}
    loss: Callable[..., Any] = cross_entropy
    if training.loss == "focal":
        loss = focal
        options = {"gamma": training.focal_gamma, "alpha": training.focal_alpha}
    elif training.loss == "asymmetric":
        loss = asymmetric
        options = {
            "gamma_positive": training.asymmetric_gamma_positive,
            "gamma_negative": training.asymmetric_gamma_negative,
            "margin": training.asymmetric_margin,
        }
    elif training.loss != "cross_entropy":
        raise ValueError(f"expected loss of {', '.join(LOSSES)}, received {training.loss!r}")
    smoothing = training.label_smoothing

    def class_loss(labels: Any, probabilities: Any, weights: Any = None) -> Any:
        return loss(smoothed(labels, smoothing), probabilities, weights=weights, **options)

    return class_loss


def vertical_targets(labels: Any, class_verticals: Any) -> Any:
    """The verticals of videos, from their classes: min(1, labels · class_verticals).

    For hard labels it is multi-hot: 1 where a video has any class of the vertical. Of soft labels
    it is the sum over the vertical's classes, at most 1: two mixed videos that share a vertical
    have it whole, and several soft classes of one video can add up to more than its share.

    Args:
        labels: [B,C] in 0 … 1, before any smoothing (its ε/2 a class would add up).
        class_verticals: [C,V], 1 where a class is of a vertical, else 0.

    Returns:
        float [B,V] in 0 … 1.
    """
    labels = _wide(labels)
    return ops.minimum(ops.matmul(labels, ops.cast(class_verticals, labels.dtype)), 1)


def training_loss(
    class_loss: Callable[..., Any],
    labels: Any,
    outputs: Any,
    class_verticals: Any = None,
    weights: Any = None,
) -> Any:
    """The whole loss of a model's outputs, but for its regularisers.

    Branches are trained on the labels beside their mixture, as the on-the-fly native ensemble of
    Lan, Zhu, Gong, arXiv 1806.04606, section 3, without its distillation term. With verticals the
    loss has two parts:

        cross_entropy(vertical targets, verticals) + CLASS_WEIGHT · (mixture + Σ_m branch m)

    With weights only some classes of a video are known, and so none of its verticals: the first
    part is left out then.

    Args:
        class_loss: of labels and probabilities, both [B,C]; see `make_loss`.
        labels: float [B,C] in 0 … 1, not smoothed.
        outputs: probabilities, float [B,C]; or a dictionary of `probabilities` and, if the model
            has them, `branches`, float [B,M,C], and `verticals`, float [B,V].
        class_verticals: [C,V] of 0 and 1, for `vertical_targets`; needed with `verticals`.
        weights: float [B,C] of the pairs of video and class, or None: all count.

    Returns:
        Scalar, in nats a video.

    Raises:
        ValueError: `verticals` without class_verticals.
    """
    # Only where there are any: a class loss need not know of weights.
    weighted = {} if weights is None else {"weights": weights}
    if not isinstance(outputs, dict):
        return class_loss(labels, outputs, **weighted)
    if "verticals" in outputs and class_verticals is None:
        raise ValueError("expected class_verticals for the output 'verticals', received None")
    loss = class_loss(labels, outputs["probabilities"], **weighted)
    if "branches" in outputs:
        for branch in range(outputs["branches"].shape[1]):
            loss = loss + class_loss(labels, outputs["branches"][:, branch], **weighted)
    if "verticals" in outputs:
        loss = CLASS_WEIGHT * loss
        if weights is None:
            targets = vertical_targets(labels, class_verticals)
            loss = cross_entropy(targets, outputs["verticals"]) + loss
    return loss


def _loss(labels: Any, positive: Any, negative: Any, weights: Any) -> Any:
    """Minus the label-weighted mean of two log-likelihoods [B,C], summed and averaged."""
    y = ops.cast(labels, positive.dtype)
    terms = y * positive + (1 - y) * negative
    if weights is not None:
        terms = terms * ops.cast(weights, terms.dtype)
    return -ops.mean(ops.sum(terms, axis=-1))


def _clipped(probabilities: Any) -> Any:
    return ops.clip(_wide(probabilities), EPSILON, 1 - EPSILON)


def _wide(values: Any) -> Any:
    """As float32; float64 stays."""
    values = ops.convert_to_tensor(values)
    is_double = keras.backend.standardize_dtype(values.dtype) == "float64"
    return values if is_double else ops.cast(values, "float32")
