"""Mean over the frames that exist."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("nextvlad")
class MaskedMean(keras.layers.Layer):
    """Mean pooling, the aggregation that any other one has to beat.

    Call arguments:
        inputs: float [B,T,D].
        mask: bool [B,T], true for the frames that exist; None: all.

    Returns:
        float [B,D].
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is None:
            return ops.mean(inputs, axis=1)
        weights = ops.cast(mask, inputs.dtype)[..., None]
        count = ops.maximum(ops.sum(weights, axis=1), 1)
        return ops.sum(inputs * weights, axis=1) / count

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[2])

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """The output has no frames, so it has no mask."""
