"""The models by name: `build_model(config, …)`.

A frame-level model takes `rgb` uint8 [B,T,1024], `audio` uint8 [B,T,128] and `num_frames` int32
[B]; a video-level one `mean_rgb` float32 [B,1024] and `mean_audio` float32 [B,128]. All return
float32 probabilities [B,C].
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from trainer import records
from trainer.config import ModelConfig, nearest
from trainer.errors import InputError
from trainer.layers import (
    ContextGating,
    FeatureNormalization,
    MaskedMean,
    MixtureOfExperts,
    NeXtVLAD,
)

Builder = Callable[[ModelConfig, Any, Any, int, Any], Any]
"""(config, features [B,T,1152] or [B,1152], mask [B,T] or None, C, bias [C]) → outputs [B,C]."""

INITIAL_BIAS = -6.0
"""Log-odds that a classifier starts at where no class frequencies are used."""


def build_model(
    config: ModelConfig,
    num_classes: int,
    level: records.Level,
    max_frames: int | None = None,
    priors: NDArray[np.floating] | None = None,
) -> keras.Model:
    """A new model.

    Args:
        config: the network.
        num_classes: C.
        level: of the records that it will see.
        max_frames: T, frame level only; None leaves it open.
        priors: float [C], share of the videos that have each class; the classifier starts at
            their log-odds. None: at `INITIAL_BIAS`.

    Raises:
        InputError: no model of that name (the nearest is named), or it can not read this level.
    """
    check_model(config, level)
    bias = np.full(num_classes, INITIAL_BIAS)
    if priors is not None:
        # A class without a single positive would start at −∞: as if it had half of one in 10⁵.
        share = np.clip(np.asarray(priors, np.float64), 5e-6, 1 - 5e-6)
        bias = np.log(share / (1 - share))
    if level == records.VIDEO:
        inputs = {
            records.MEAN_RGB_KEY: keras.Input((records.RGB_SIZE,), name=records.MEAN_RGB_KEY),
            records.MEAN_AUDIO_KEY: keras.Input((records.AUDIO_SIZE,), name=records.MEAN_AUDIO_KEY),
        }
        features = FeatureNormalization(config.normalization, quantised=False)(
            (inputs[records.MEAN_RGB_KEY], inputs[records.MEAN_AUDIO_KEY])
        )
        mask = None
    else:
        inputs = {
            "rgb": keras.Input((max_frames, records.RGB_SIZE), name="rgb", dtype="uint8"),
            "audio": keras.Input((max_frames, records.AUDIO_SIZE), name="audio", dtype="uint8"),
            "num_frames": keras.Input((), name="num_frames", dtype="int32"),
        }
        features = FeatureNormalization(config.normalization)((inputs["rgb"], inputs["audio"]))
        mask = _FrameMask()((features, inputs["num_frames"]))
    outputs = MODELS[config.name](config, features, mask, num_classes, bias)
    return keras.Model(inputs, outputs, name=config.name)


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Load a trained `.keras` file.

    Raises:
        InputError: no such file, or no Keras model.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such model")
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, TypeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: is no model that can be loaded ({first_line})") from error


def check_model(config: ModelConfig, level: records.Level) -> None:
    """Whether `build_model` can build it, before anything long is begun.

    Raises:
        InputError: no model of that name (the nearest is named), or it can not be on this level.
    """
    if config.name not in MODELS:
        raise InputError(
            f"model.name is {config.name!r}, expected one of {', '.join(MODELS)}"
            f"{nearest(config.name, MODELS)}"
        )
    if level == records.VIDEO and config.name in FRAME_LEVEL_ONLY:
        others = ", ".join(name for name in MODELS if name not in FRAME_LEVEL_ONLY)
        raise InputError(
            f"model {config.name} needs frame-level records, these are video-level: expected one "
            f"of {others}"
        )
    if config.name == "mlp" and not config.hidden_size:
        raise InputError("model.hidden_size is 0, expected at least 1 for mlp")
    if config.name == "nextvlad":
        for feature, size, groups in (
            ("rgb", records.RGB_SIZE, config.groups),
            ("audio", records.AUDIO_SIZE, max(1, config.groups // 2)),
        ):
            if config.expansion * size % groups:
                raise InputError(
                    f"model.groups is {config.groups}: the {groups} groups of {feature} do not "
                    f"divide its {config.expansion} · {size} expanded features"
                )


@keras.saving.register_keras_serializable("nextvlad")
class _FrameMask(keras.layers.Layer):
    """bool [B,T], true for the first num_frames [B] of the frames of features [B,T,D]."""

    def call(self, inputs: tuple[Any, Any]) -> Any:
        features, num_frames = inputs
        frames = features.shape[1] or ops.shape(features)[1]
        return ops.arange(frames, dtype="int32")[None] < ops.cast(num_frames, "int32")[:, None]

    def compute_output_spec(self, inputs: tuple[Any, Any]) -> keras.KerasTensor:
        return keras.KerasTensor(inputs[0].shape[:2], "bool")


def _nextvlad(config: ModelConfig, features: Any, mask: Any, classes: int, bias: Any) -> Any:
    common: dict[str, Any] = {
        "expansion": config.expansion,
        "form": config.form,
        "batch_norm_rows": config.batch_norm_rows,
        "batch_norm_momentum": config.batch_norm_momentum,
    }
    video = NeXtVLAD(config.cluster_size, config.groups, name="video_vlad", **common)(
        features[..., : records.RGB_SIZE], mask=mask
    )
    audio = NeXtVLAD(
        max(2, config.cluster_size // 2), max(1, config.groups // 2), name="audio_vlad", **common
    )(features[..., records.RGB_SIZE :], mask=mask)
    aggregated = keras.layers.Concatenate(name="aggregated")([video, audio])
    return _gated_classifier(config, aggregated, classes, bias)


def _mean_pooling(config: ModelConfig, features: Any, mask: Any, classes: int, bias: Any) -> Any:
    """The network of `nextvlad` with the mean for its aggregation, and nothing else changed."""
    pooled = MaskedMean(name="aggregated")(features, mask=mask)
    return _gated_classifier(config, pooled, classes, bias)


def _gated_classifier(config: ModelConfig, aggregated: Any, classes: int, bias: Any) -> Any:
    """Dropout, hidden layer, SE context gating, classifier: what follows the aggregation."""
    hidden = keras.layers.Dropout(config.dropout)(aggregated)
    if config.hidden_size:
        hidden = keras.layers.Dense(config.hidden_size, use_bias=False, name="hidden")(hidden)
        hidden = _batch_norm(config, "hidden_norm")(hidden)
    hidden = ContextGating(
        config.gating_reduction, config.batch_norm_momentum, name="context_gating"
    )(hidden)
    return _classifier(config, config.classifier, hidden, classes, bias)


def _linear(kind: str) -> Builder:
    """google/youtube-8m's LogisticModel and MoeModel: a classifier on the (mean) features."""

    def build(config: ModelConfig, features: Any, mask: Any, classes: int, bias: Any) -> Any:
        features = _dropped_mean(config, features, mask)
        return _classifier(config, kind, features, classes, bias)

    return build


def _mlp(config: ModelConfig, features: Any, mask: Any, classes: int, bias: Any) -> Any:
    """Hidden layer and classifier, in branches that train independently and are averaged.

    Averaging the probabilities of networks that differ by their random initial weights is a deep
    ensemble (Lakshminarayanan, Pritzel, Blundell, arXiv 1612.01474), here in one model.
    """
    outputs = []
    for _ in range(config.branches):
        hidden = _dropped_mean(config, features, mask)
        hidden = keras.layers.Dense(config.hidden_size, use_bias=False)(hidden)
        hidden = keras.layers.ReLU()(_batch_norm(config)(hidden))
        hidden = keras.layers.Dropout(config.dropout)(hidden)
        outputs.append(_classifier(config, config.classifier, hidden, classes, bias))
    return keras.layers.Average()(outputs) if len(outputs) > 1 else outputs[0]


def _dropped_mean(config: ModelConfig, features: Any, mask: Any) -> Any:
    if mask is not None:
        features = MaskedMean()(features, mask=mask)
    return keras.layers.Dropout(config.input_dropout)(features)


def _batch_norm(config: ModelConfig, name: str | None = None) -> keras.layers.Layer:
    return keras.layers.BatchNormalization(
        momentum=config.batch_norm_momentum, epsilon=1e-3, name=name
    )


def _classifier(config: ModelConfig, kind: str, features: Any, classes: int, bias: Any) -> Any:
    if kind == "moe":
        return MixtureOfExperts(classes, config.num_mixtures, config.classifier_l2, bias.tolist())(
            features
        )
    regularizer = keras.regularizers.L2(config.classifier_l2) if config.classifier_l2 else None
    layer = keras.layers.Dense(
        classes, activation="sigmoid", kernel_regularizer=regularizer, dtype="float32"
    )  # fmt: skip
    outputs = layer(features)
    layer.bias.assign(bias)
    return outputs


MODELS: dict[str, Builder] = {
    "nextvlad": _nextvlad,
    "mean_pooling": _mean_pooling,
    "logistic": _linear("logistic"),
    "moe": _linear("moe"),
    "mlp": _mlp,
}
FRAME_LEVEL_ONLY = frozenset({"nextvlad", "mean_pooling"})
