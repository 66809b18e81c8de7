"""One training step: loss, gradients, update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainer.losses import training_loss
from trainer.models import class_verticals

COMPILED_UPDATE = 10_000_000
"""Weights from which XLA compiles the update: one pass over them instead of fifteen takes a third
of the time, which in a small model the seconds of compiling would outweigh."""


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    class_loss: Callable[[Any, Any], Any],
) -> Callable[[dict[str, Any], Any], Any]:
    """A compiled step that trains the model on a batch.

    Args:
        model: of `trainer.models`; its regularisers and the losses that its layers add count.
        optimizer: built for the model's trainable weights.
        class_loss: of labels and probabilities [B,C], see `trainer.losses.make_loss`.

    Returns:
        Function of the model's inputs and labels float [B,C]: the loss on the labels, a scalar.
    """
    verticals = class_verticals(model)

    @tf.function(jit_compile=model.count_params() >= COMPILED_UPDATE)
    def update(gradients: Any) -> None:
        optimizer.apply(gradients, model.trainable_variables)

    @tf.function
    def train_step(features: dict[str, Any], labels: Any) -> Any:
        with tf.GradientTape() as tape:
            outputs = model(features, training=True)
            loss = training_loss(class_loss, labels, outputs, verticals)
            total = tf.add_n([loss, *model.losses])
        update(tape.gradient(total, model.trainable_variables))
        return loss

    step: Callable[[dict[str, Any], Any], Any] = train_step
    return step
