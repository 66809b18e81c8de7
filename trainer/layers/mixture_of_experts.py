"""Mixture of experts: a small committee of logistic experts for each class."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from trainer.layers.batch_normalization import at_least_float32


@keras.saving.register_keras_serializable("nextvlad")
class MixtureOfExperts(keras.layers.Layer):
    """Per-class mixture with one extra gate that switches the class off.

    Jordan, Jacobs, "Hierarchical mixtures of experts", 1994, in google/youtube-8m's form
    (`MoeModel`): p_c = Σ_m softmax_m(gates)_cm · sigmoid(experts)_cm over m = 1 … M, where the
    softmax has M + 1 terms.

    Args:
        num_classes: C.
        num_mixtures: M.
        l2: penalty on the kernels of gates and experts.
        bias: initial bias of the experts, one number a class; None: 0.

    Call arguments:
        inputs: float [B,H].

    Returns:
        float32 probabilities [B,C].
    """

    def __init__(
        self,
        num_classes: int,
        num_mixtures: int = 2,
        l2: float = 0.0,
        bias: list[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_classes < 1 or num_mixtures < 1:
            raise ValueError(
                "expected num_classes and num_mixtures of at least 1, "
                f"received {num_classes} and {num_mixtures}"
            )
        if bias is not None and len(bias) != num_classes:
            raise ValueError(f"expected {num_classes} initial biases, received {len(bias)}")
        self.num_classes = num_classes
        self.num_mixtures = num_mixtures
        self.l2 = l2
        self.bias = bias

    def build(self, input_shape: tuple[int | None, int]) -> None:
        width, classes, mixtures = input_shape[-1], self.num_classes, self.num_mixtures
        regularizer = keras.regularizers.L2(self.l2) if self.l2 else None
        self.gates = self.add_weight(
            name="gates",
            shape=(width, classes * (mixtures + 1)),
            initializer="glorot_uniform",
            regularizer=regularizer,
        )
        self.experts = self.add_weight(
            name="experts",
            shape=(width, classes * mixtures),
            initializer="glorot_uniform",
            regularizer=regularizer,
        )
        self.expert_bias = self.add_weight(
            name="expert_bias", shape=(classes * mixtures,), initializer="zeros", autocast=False
        )
        if self.bias is not None:
            self.expert_bias.assign(
                ops.repeat(ops.convert_to_tensor(self.bias, self.expert_bias.dtype), mixtures)
            )

    def call(self, inputs: Any) -> Any:
        classes, mixtures = self.num_classes, self.num_mixtures
        gates = at_least_float32(ops.matmul(inputs, self.gates))
        gates = ops.softmax(ops.reshape(gates, (-1, classes, mixtures + 1)), axis=-1)
        experts = at_least_float32(ops.matmul(inputs, self.experts)) + self.expert_bias
        experts = ops.sigmoid(ops.reshape(experts, (-1, classes, mixtures)))
        return ops.cast(ops.sum(gates[..., :mixtures] * experts, axis=-1), "float32")

    def compute_output_shape(self, input_shape: tuple[int | None, int]) -> tuple[int | None, int]:
        return (input_shape[0], self.num_classes)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        # Keras would promise compute_dtype; the probabilities are float32 under every policy.
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), "float32")

    def get_config(self) -> dict[str, Any]:
        # The initial bias is not part of it: a loaded layer has its weights.
        config: dict[str, Any] = super().get_config()
        return config | {
            "num_classes": self.num_classes,
            "num_mixtures": self.num_mixtures,
            "l2": self.l2,
        }
