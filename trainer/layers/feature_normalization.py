"""From stored features to the network's input scale, inside the model."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from trainer import record_format as form
from trainer.layers.frame_mask import check_mask

NORMALIZATIONS = ("youtube8m_l2", "scaled_l2", "reverse_whitening", "none")
PADDINGS = ("zero", "author")


@keras.saving.register_keras_serializable("nextvlad")
class FeatureNormalization(keras.layers.Layer):
    """Dequantise codes and normalise the 1,152 values of a frame or video.

    Part of the model, so that training, evaluation and serving can not disagree about it.

    Args:
        normalization: "youtube8m_l2": to unit L2 norm over rgb and audio together, as
            google/youtube-8m; "scaled_l2": the same times √1152, so that a value's mean square is
            1; "reverse_whitening": rgb back to the scale that it had before the whitening of its
            PCA, (rgb − 4/512) · (√eigenvalue + 1e-4), and audio as it is, as the NeXtVLAD author;
            "none": dequantised values as they are.
        quantised: whether the inputs are 8-bit codes (frame level) or floats (video level).
        padding: what frames become that frame_mask excludes. "zero": 0 after normalisation.
            "author": 0 before it, as the author's reader pads; the reverse whitening makes
            −4/512 · (√eigenvalue + 1e-4) of them, which a batch norm over all rows then sees.

    Call arguments:
        inputs: (rgb [B,…,1024], audio [B,…,128]): uint8 if quantised, else float.
        frame_mask: bool [B,…], true for the frames that exist; None: all.

    Returns:
        float [B,…,1152], rgb first.

    Raises:
        ValueError: a parameter that is none of the above, or a reverse whitening of rgb that has
            not 1,024 values.
    """

    def __init__(
        self,
        normalization: str = "youtube8m_l2",
        quantised: bool = True,
        padding: str = "zero",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if normalization not in NORMALIZATIONS or padding not in PADDINGS:
            raise ValueError(
                f"expected normalization of {', '.join(NORMALIZATIONS)} and padding of "
                f"{', '.join(PADDINGS)}, received {normalization!r} and {padding!r}"
            )
        self.normalization = normalization
        self.quantised = quantised
        self.padding = padding
        # Codes arrive as integers; Keras must not cast them to the compute type on the way in.
        self.autocast = False

    def build(self, input_shape: Any) -> None:
        rgb = input_shape[0][-1]
        if self.normalization == "reverse_whitening" and rgb != form.RGB_SIZE:
            raise ValueError(f"expected rgb of {form.RGB_SIZE} values a frame, received {rgb}")

    def call(self, inputs: tuple[Any, Any], frame_mask: Any = None) -> Any:
        check_mask(inputs[0], frame_mask)
        features = ops.cast(ops.concatenate(inputs, axis=-1), "float32")
        exists = None if frame_mask is None else ops.cast(frame_mask, "float32")[..., None]
        if self.normalization in ("youtube8m_l2", "scaled_l2"):
            features = self._of_unit_length(features, exists)
        else:
            features = self._dequantised(features, exists)
        return ops.cast(features, self.compute_dtype)

    def _of_unit_length(self, features: Any, exists: Any) -> Any:
        """L2-normalised values [B,…,1152]; where no frame exists 0, as either padding has it.

        A length does not depend on the codes' step: they are shifted, and scaled once.
        """
        step = 1.0
        if self.quantised:
            step = form.STEP
            features = features + (form.BIAS + form.QUANTISED_MIN) / step
        square = ops.sum(ops.square(features), axis=-1, keepdims=True)
        scale = ops.rsqrt(ops.maximum(square, 1e-12 / step**2))
        if self.normalization == "scaled_l2":
            scale = scale * float(form.FEATURE_SIZE) ** 0.5
        return features * (scale if exists is None else scale * exists)

    def _dequantised(self, features: Any, exists: Any) -> Any:
        """Values [B,…,1152] as they are, or rgb with its whitening reversed."""
        if self.quantised:
            features = features * form.STEP + (form.BIAS + form.QUANTISED_MIN)
        if exists is not None and self.padding == "author":
            features = features * exists
        if self.normalization == "reverse_whitening":
            rgb = (features[..., : form.RGB_SIZE] - form.BIAS) * whitening_scale()
            features = ops.concatenate([rgb, features[..., form.RGB_SIZE :]], axis=-1)
        if exists is not None and self.padding == "zero":
            features = features * exists
        return features

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        rgb, audio = input_shape
        return (*rgb[:-1], rgb[-1] + audio[-1])

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {
            "normalization": self.normalization,
            "quantised": self.quantised,
            "padding": self.padding,
        }


@functools.cache
def whitening_scale() -> NDArray[np.float32]:
    """float32 [1024]: √eigenvalue + 1e-4, by which the whitening had divided each value of rgb."""
    path = Path(__file__).with_name("pca_eigenvalues.csv")
    eigenvalues = np.loadtxt(path, dtype=np.float32, comments="#", skiprows=3)
    scale: NDArray[np.float32] = np.sqrt(eigenvalues) + np.float32(1e-4)
    return scale
