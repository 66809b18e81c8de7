"""The optimiser and its learning rate."""

from __future__ import annotations

from typing import Any

import keras

from trainer.config import TrainingConfig


def make_optimizer(
    training: TrainingConfig, model: keras.Model, steps: int
) -> keras.optimizers.Optimizer:
    """Adam, or AdamW that spares biases and batch norms, built for the model's weights.

    Args:
        training: the section of the configuration.
        model: whose trainable weights it will move.
        steps: of the whole training.
    """
    common = {
        "learning_rate": learning_rate_schedule(training, steps),
        "global_clipnorm": training.clip_norm,
    }
    if training.weight_decay:
        optimizer = keras.optimizers.AdamW(weight_decay=training.weight_decay, **common)
        optimizer.exclude_from_weight_decay(
            [variable for variable in model.trainable_variables if len(variable.shape) < 2]
        )
    else:
        optimizer = keras.optimizers.Adam(**common)
    optimizer.build(model.trainable_variables)
    return optimizer


def learning_rate_schedule(training: TrainingConfig, steps: int) -> Any:
    """The learning rate by step, or a constant; `steps` are those of the whole training."""
    if training.schedule == "cosine":
        warmup = round(training.warmup * steps)
        return keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else training.learning_rate,
            max(1, steps - warmup),
            warmup_target=training.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    if training.schedule == "staircase":
        return keras.optimizers.schedules.ExponentialDecay(
            training.learning_rate,
            max(1, training.decay_examples // training.batch_size),
            training.decay,
            staircase=True,
        )
    return training.learning_rate
