"""The models by name: `build_model(config, …)`.

A frame-level model takes `rgb` uint8 [B,T,1024], `audio` uint8 [B,T,128] and `num_frames` int32
[B]; a video-level one `mean_rgb` float32 [B,1024] and `mean_audio` float32 [B,128]. All return
float32 probabilities [B,C], or a dict that has them as "probabilities" beside what only their
training needs; `probabilities` takes them out of either.

A new model is a file of its name in `trainer/architectures/` and its name in
`trainer.config.MODEL_NAMES`.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainer import record_format
from trainer.architectures.architecture import Architecture
from trainer.architectures.head import Head, Verticals
from trainer.config import MODEL_NAMES, ModelConfig
from trainer.errors import InputError
from trainer.layers import (
    FeatureNormalization,
    FrameMask,
    MixtureOfExperts,
    VerticalAttention,
    author_weights,
)
from trainer.parameter import check_value, nearest

MODELS: dict[str, Architecture] = {
    name: importlib.import_module(f"trainer.architectures.{name}").ARCHITECTURE
    for name in MODEL_NAMES
}

INITIAL_BIAS = -6.0
"""Log-odds that a classifier starts at where no class frequencies are used."""


def build_model(
    config: ModelConfig,
    num_classes: int,
    level: record_format.Level,
    max_frames: int | None = None,
    priors: NDArray[np.floating] | None = None,
    verticals: Verticals | None = None,
) -> keras.Model:
    """A new model.

    Args:
        config: the network.
        num_classes: C.
        level: of the records that it will see.
        max_frames: T, frame level only; None leaves it open.
        priors: float [C], share of the videos that have each class; the classifier starts at
            their log-odds. None: at `INITIAL_BIAS`.
        verticals: names [V], and for each class the indices of its own, as
            `Vocabulary.vertical_indices` gives them; only the vertical attention needs them.

    Raises:
        InputError: no model of that name (the nearest is named), it can not read this level, or
            it needs verticals.
    """
    check_model(config, level, verticals)
    bias = np.full(num_classes, INITIAL_BIAS)
    if priors is not None:
        if len(priors) != num_classes:
            raise InputError(f"priors has {len(priors)} classes, expected {num_classes}")
        # A class without a single positive would start at −∞: as if it had half of one in 10⁵.
        share = np.clip(np.asarray(priors, np.float64), 5e-6, 1 - 5e-6)
        bias = np.log(share / (1 - share))
    inputs = model_inputs(level, max_frames)
    if level == record_format.VIDEO:
        mask = None
        features = FeatureNormalization(config.normalization, quantised=False)(
            (inputs[record_format.MEAN_RGB_KEY], inputs[record_format.MEAN_AUDIO_KEY])
        )
    else:
        mask = FrameMask()((inputs["rgb"], inputs["num_frames"]))
        features = FeatureNormalization(config.normalization, padding=config.padding)(
            (inputs["rgb"], inputs["audio"]), frame_mask=mask
        )
    head = Head(config, num_classes, bias, verticals)
    outputs = MODELS[config.name].build(config, features, mask, head)
    return keras.Model(inputs, outputs, name=config.name)


def model_inputs(
    level: record_format.Level, max_frames: int | None = None
) -> dict[str, keras.KerasTensor]:
    """The symbolic inputs of every model of a level."""
    if level == record_format.VIDEO:
        sizes = {
            record_format.MEAN_RGB_KEY: record_format.RGB_SIZE,
            record_format.MEAN_AUDIO_KEY: record_format.AUDIO_SIZE,
        }
        return {name: keras.Input((size,), name=name) for name, size in sizes.items()}
    codes = {"rgb": record_format.RGB_SIZE, "audio": record_format.AUDIO_SIZE}
    inputs = {
        name: keras.Input((max_frames, size), name=name, dtype="uint8")
        for name, size in codes.items()
    }
    return inputs | {"num_frames": keras.Input((), name="num_frames", dtype="int32")}


def probabilities(outputs: Any) -> Any:
    """Class probabilities [B,C] of what a model returned."""
    return outputs["probabilities"] if isinstance(outputs, dict) else outputs


def class_verticals(model: keras.Model) -> Any:
    """0/1 [C,V] of a model that predicts verticals too, else None."""
    for layer in model.layers:
        if isinstance(layer, VerticalAttention):
            return layer.class_verticals
    return None


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Load a trained `.keras` file.

    Raises:
        InputError: no such file, or no Keras model.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such model")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # of a damaged file Keras raises what its readers do: anything
        words = [*str(error).strip().splitlines(), type(error).__name__]
        raise InputError(f"{path}: is no model that can be loaded ({words[0]})") from error


def load_author_weights(model: keras.Model, variables: Mapping[str, Any]) -> None:
    """Set the weights of a `nextvlad` model from the variables of the author's `NeXtVLADModel`.

    Args:
        model: of `build_model`, with the logistic or the moe classifier.
        variables: arrays by the author's names: those of `trainer.layers.nextvlad` below
            `video_VLAD/` and `audio_VLAD/`, `hidden1_weights`, `hidden1_bn/…`,
            `gating_weights_1`, `gating_bn/…`, `gating_weights_2`; the logistic head's
            `fully_connected/{weights,biases}` (or `fully_connected_1/…` and so on), or the mixture
            of experts' `gates/weights` and `experts/{weights,biases}`. One scope before all of
            them is taken off.

    Raises:
        ValueError: not such a model, or a variable is missing, unknown or of another shape;
            nothing is set then.
    """
    layers = {layer.name: layer for layer in model.layers}
    if model.name != "nextvlad" or "hidden" not in layers:
        raise ValueError(
            "expected a nextvlad model with a hidden layer (hidden_size over 0), received the "
            f"model {model.name!r} {'with' if 'hidden' in layers else 'without'} one"
        )
    found = author_weights.without_scope(variables, "hidden1_weights")
    gating = layers["context_gating"]
    targets = {
        "hidden1_weights": layers["hidden"].kernel,
        **author_weights.batch_norm_variables("hidden1_bn", layers["hidden_norm"]),
        "gating_weights_1": gating.squeeze.kernel,
        **author_weights.batch_norm_variables("gating_bn", gating.norm),
        "gating_weights_2": gating.excite.kernel,
    }
    for scope, layer in (("video_VLAD", "video_vlad"), ("audio_VLAD", "audio_vlad")):
        of_layer = author_weights.nextvlad_variables(layers[layer])
        targets |= {f"{scope}/{name}": variable for name, variable in of_layer.items()}
    heads = [layer for layer in model.layers if isinstance(layer, VerticalAttention)]
    if heads:
        raise ValueError("expected the classifier logistic or moe, received vertical_attention")
    classifiers = [layer for layer in model.layers if isinstance(layer, MixtureOfExperts)]
    if classifiers:
        targets["gates/weights"] = classifiers[0].gates
        targets["experts/weights"] = classifiers[0].experts
        targets["experts/biases"] = classifiers[0].expert_bias
    else:
        dense = [one for one in model.layers if isinstance(one, keras.layers.Dense)]
        # slim numbers the scopes of layers without a name: the head's is the one that is left.
        left = {name.rpartition("/")[0] for name in found if name not in targets}
        numbered = [name for name in left if re.fullmatch(r"fully_connected_\d+", name)]
        scope = numbered[0] if len(left) == len(numbered) == 1 else "fully_connected"
        targets[f"{scope}/weights"] = dense[-1].kernel
        targets[f"{scope}/biases"] = dense[-1].bias
    author_weights.assign(targets, found)


def check_model(
    config: ModelConfig, level: record_format.Level, verticals: Verticals | None = None
) -> None:
    """Whether `build_model` can build it, before anything long is begun.

    Raises:
        InputError: no model of that name (the nearest is named), it can not be on this level, or
            it needs verticals.
    """
    if config.name not in MODELS:
        raise InputError(
            f"model.name is {config.name!r}, expected one of {', '.join(MODELS)}"
            f"{nearest(config.name, MODELS)}"
        )
    kinds = typing.get_type_hints(ModelConfig)
    for field in dataclasses.fields(config):
        check_value(f"model.{field.name}", field, kinds[field.name], getattr(config, field.name))
    if level not in (record_format.FRAME, record_format.VIDEO):
        raise InputError(f"level is {level!r}, expected 'frame' or 'video'")
    architecture = MODELS[config.name]
    if level == record_format.VIDEO and architecture.frame_level_only:
        others = ", ".join(name for name in MODELS if not MODELS[name].frame_level_only)
        raise InputError(
            f"model {config.name} needs frame-level records, these are video-level: expected one "
            f"of {others}"
        )
    architecture.check(config)
    if config.classifier == "vertical_attention" and (not verticals or len(verticals[0]) < 2):
        raise InputError(
            "model.classifier is 'vertical_attention', expected a vocabulary.csv with two or more "
            "verticals beside the data"
        )
