"""Mean over the frames that exist."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from trainer.layers.batch_normalization import at_least_float32
from trainer.layers.frame_mask import check_mask


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
        check_mask(inputs, mask)
        # bfloat16 can not count to 257.
        wide = at_least_float32(inputs)
        if mask is None:
            return ops.cast(ops.mean(wide, axis=1), self.compute_dtype)
        weights = ops.cast(mask, wide.dtype)[..., None]
        count = ops.maximum(ops.sum(weights, axis=1), 1)
        return ops.cast(ops.sum(wide * weights, axis=1) / count, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[2])

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """The output has no frames, so it has no mask."""
