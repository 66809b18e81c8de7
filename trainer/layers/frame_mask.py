"""Which frames of a padded batch exist."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("nextvlad")
class FrameMask(keras.layers.Layer):
    """True for the first num_frames of the T frames.

    Call arguments:
        inputs: (frames [B,T,D] of any type, num_frames int [B]).

    Returns:
        bool [B,T].
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.autocast = False

    def call(self, inputs: tuple[Any, Any]) -> Any:
        codes, num_frames = inputs
        frames = codes.shape[1] or ops.shape(codes)[1]
        return ops.arange(frames, dtype="int32")[None] < ops.cast(num_frames, "int32")[:, None]

    def compute_output_spec(self, inputs: tuple[Any, Any]) -> keras.KerasTensor:
        return keras.KerasTensor(inputs[0].shape[:2], "bool")


def check_mask(inputs: Any, mask: Any) -> None:
    """Whether mask, if there is one, is [...] of inputs [...,D]; open dimensions match any.

    A mask of another shape that broadcasts would give a wrong result in silence.

    Raises:
        ValueError: it is not.
    """
    if mask is None:
        return
    received = tuple(mask.shape if hasattr(mask, "shape") else np.shape(mask))
    expected = tuple(inputs.shape[:-1])
    if len(received) != len(expected) or any(
        one is not None and other is not None and one != other
        for one, other in zip(expected, received, strict=True)
    ):
        raise ValueError(
            f"expected a mask of shape [...] = {expected} for inputs of shape "
            f"{tuple(inputs.shape)}, received a mask of shape {received}"
        )
