"""From stored features to the network's input scale, inside the model."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from trainer import records

NORMALIZATIONS = ("youtube8m_l2", "scaled_l2", "none")


@keras.saving.register_keras_serializable("nextvlad")
class FeatureNormalization(keras.layers.Layer):
    """Dequantise codes and normalise the 1,152 values of a frame or video.

    Part of the model, so that training, evaluation and serving can not disagree about it.

    Args:
        normalization: "youtube8m_l2": to unit L2 norm over rgb and audio together, as
            google/youtube-8m; "scaled_l2": the same times √1152, so that a value's mean square is
            1; "none": dequantised values as they are, as the NeXtVLAD author without the
            reverse whitening.
        quantised: whether the inputs are 8-bit codes (frame level) or floats (video level).

    Call arguments:
        inputs: (rgb [B,…,1024], audio [B,…,128]): uint8 if quantised, else float.

    Returns:
        float [B,…,1152], rgb first.
    """

    def __init__(
        self, normalization: str = "youtube8m_l2", quantised: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"expected normalization of {', '.join(NORMALIZATIONS)}, received {normalization!r}"
            )
        self.normalization = normalization
        self.quantised = quantised
        # Codes arrive as integers; Keras must not cast them to the compute type on the way in.
        self.autocast = False

    def call(self, inputs: tuple[Any, Any]) -> Any:
        features = ops.cast(ops.concatenate(inputs, axis=-1), "float32")
        if self.quantised:
            step, lowest = (float(value) for value in _dequantisation())
            features = features * step + lowest
        if self.normalization != "none":
            square = ops.sum(ops.square(features), axis=-1, keepdims=True)
            features = features * ops.rsqrt(ops.maximum(square, 1e-12))
        if self.normalization == "scaled_l2":
            features = features * float(records.FEATURE_SIZE) ** 0.5
        return ops.cast(features, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        rgb, audio = input_shape
        return (*rgb[:-1], rgb[-1] + audio[-1])

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {
            "normalization": self.normalization,
            "quantised": self.quantised,
        }


def _dequantisation() -> tuple[float, float]:
    """Factor and offset of `records.dequantise`, which is linear in the code."""
    lowest, second = records.dequantise([0, 1]).astype("float64")
    return second - lowest, lowest
