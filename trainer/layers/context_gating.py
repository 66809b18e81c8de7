"""Squeeze-and-excitation context gating."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from trainer.layers.batch_normalization import BatchNormalization


@keras.saving.register_keras_serializable("nextvlad")
class ContextGating(keras.layers.Layer):
    """`h · sigmoid(W₂ relu(BN(W₁ h)))`, the NeXtVLAD author's gate.

    Context gating: Miech, Laptev, Sivic, arXiv 1706.06905, eq. 5; with the bottleneck of
    squeeze-and-excitation: Hu, Shen, Sun, arXiv 1709.01507, eq. 3.

    Args:
        reduction: the bottleneck has H / reduction units, at least one.
        batch_norm_momentum: of the batch norm.

    Call arguments:
        inputs: float [B,H].
        training: whether batch norm uses the batch's statistics.

    Returns:
        float [B,H].
    """

    def __init__(
        self, reduction: int = 8, batch_norm_momentum: float = 0.99, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if reduction < 1:
            raise ValueError(f"expected reduction of at least 1, received {reduction}")
        self.reduction = reduction
        self.batch_norm_momentum = batch_norm_momentum

    def build(self, input_shape: tuple[int | None, int]) -> None:
        width = input_shape[-1]
        narrow = max(1, width // self.reduction)
        self.squeeze = keras.layers.Dense(
            narrow, use_bias=False, dtype=self.dtype_policy, name="squeeze"
        )
        self.norm = BatchNormalization(
            self.batch_norm_momentum, dtype=self.dtype_policy, name="norm"
        )
        self.excite = keras.layers.Dense(
            width, use_bias=False, dtype=self.dtype_policy, name="excite"
        )
        self.squeeze.build(input_shape)
        self.norm.build((input_shape[0], narrow))
        self.excite.build((input_shape[0], narrow))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        narrow = ops.relu(self.norm(self.squeeze(inputs), training=training))
        return inputs * ops.sigmoid(self.excite(narrow))

    def compute_output_shape(self, input_shape: tuple[int | None, int]) -> tuple[int | None, int]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {
            "reduction": self.reduction,
            "batch_norm_momentum": self.batch_norm_momentum,
        }
