"""The network as it is served: the same function as the trained one, with fewer operations."""

from __future__ import annotations

import functools
from typing import Any

import keras

from trainer.layers import FoldedNeXtVLAD, NeXtVLAD
from trainer.record_format import MAX_FRAMES


def inference_model(model: keras.Model, most_frames: int = MAX_FRAMES) -> keras.Model:
    """A float32 model of the same inputs, outputs and layers' names, for inference alone.

    NeXtVLAD layers become `FoldedNeXtVLAD`. Whatever precision the others were trained in, they
    compute in float32 here.

    Args:
        model: of `trainer.models.build_model`, its weights as they are to be served.
        most_frames: of a video, which may have fewer; the form of NeXtVLAD goes by it.
    """
    served = keras.models.clone_model(
        model, clone_function=functools.partial(_counterpart, most_frames=most_frames)
    )
    for trained, layer in zip(model.layers, served.layers, strict=True):
        if isinstance(layer, FoldedNeXtVLAD):
            layer.fold(trained)
        else:
            layer.set_weights(trained.get_weights())
    return served


def _counterpart(layer: Any, most_frames: int) -> Any:
    if isinstance(layer, NeXtVLAD):
        return FoldedNeXtVLAD(
            layer.cluster_size, layer.groups, layer.expansion, most_frames=most_frames,
            name=layer.name,
        )  # fmt: skip
    config = layer.get_config()
    # The inputs' own type is no precision: codes stay uint8.
    if "dtype" in config and not isinstance(layer, keras.layers.InputLayer):
        config["dtype"] = "float32"
    return type(layer).from_config(config)
