"""A mixture of networks that teaches its own branches."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from trainer.layers.batch_normalization import at_least_float32


@keras.saving.register_keras_serializable("nextvlad")
class DistilledMixture(keras.layers.Layer):
    """Gated sum of the branches' logits, distilled back into each branch while it trains.

    Lin, Xiao, Fan, arXiv 1811.05014, section 3.4, after Lan, Zhu, Gong, "Knowledge Distillation by
    On-the-Fly Native Ensemble", arXiv 1806.04606. With gates w [B,M] and logits z [B,M,C]:

        z̄ = Σ_m w_m z_m
        loss = weight · mean_B Σ_m KL(softmax(z̄/τ) ‖ softmax(z_m/τ))

    The loss is added in training; its gradient reaches the mixture too, as in the author's code.

    Args:
        weight: of the distillation; 0: none.
        temperature: τ.

    Call arguments:
        inputs: (logits float [B,M,C], gates float [B,M], which add up to 1).
        training: whether the loss is added.

    Returns:
        {"probabilities": float32 [B,C], "branches": float32 [B,M,C]}.
    """

    def __init__(self, weight: float = 1.0, temperature: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if weight < 0 or temperature <= 0:
            raise ValueError(
                f"expected weight of at least 0 and temperature over 0, received {weight} and "
                f"{temperature}"
            )
        self.weight = weight
        self.temperature = temperature

    def call(self, inputs: tuple[Any, Any], training: bool | None = None) -> dict[str, Any]:
        logits, gates = (at_least_float32(value) for value in inputs)
        mixed = ops.sum(logits * gates[..., None], axis=1)
        if training and self.weight:
            teacher = ops.log_softmax(mixed / self.temperature, axis=-1)[:, None]
            students = ops.log_softmax(logits / self.temperature, axis=-1)
            divergence = ops.sum(ops.exp(teacher) * (teacher - students), axis=(1, 2))
            self.add_loss(self.weight * ops.mean(divergence))
        return {"probabilities": ops.sigmoid(mixed), "branches": ops.sigmoid(logits)}

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {"weight": self.weight, "temperature": self.temperature}
