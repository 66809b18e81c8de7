"""The optimiser and its learning rate. Gradients are clipped by the train step, not here."""

from __future__ import annotations

import inspect
import json
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from trainer.config import TrainingConfig
from trainer.errors import InputError
from trainer.parameter import check_value, nearest, parameter

CLASSES = {
    one.__name__.lower(): one
    for one in (
        keras.optimizers.Adam,
        keras.optimizers.AdamW,
        keras.optimizers.Lion,
        keras.optimizers.SGD,
        keras.optimizers.RMSprop,
        keras.optimizers.Adagrad,
        keras.optimizers.Adadelta,
        keras.optimizers.Adafactor,
        keras.optimizers.Adamax,
        keras.optimizers.Nadam,
        keras.optimizers.Ftrl,
        keras.optimizers.Lamb,
    )
}
"""Keras's optimisers by their names in the configuration."""

ELSEWHERE = {
    "learning_rate": "training.learning_rate",
    "weight_decay": "training.weight_decay",
    "clipnorm": "training.clip_norm",
    "clipvalue": "training.clip_norm",
    "global_clipnorm": "training.clip_norm",
    "use_ema": "training.ema_decay",
    "ema_momentum": "training.ema_decay",
    "ema_overwrite_frequency": "training.ema_decay",
    "loss_scale_factor": "training.precision",
    "gradient_accumulation_steps": "training.accumulation_steps",
    "name": "training.optimizer",
}
"""Arguments of all of Keras's optimisers that parameters of ours stand for."""

# An average of share 1 would never move, and Adam's would be divided by 1 - 1.
_SHARE = {"minimum": 0, "maximum": 0.999999}
LIMITS: dict[str, dict[str, Any]] = {
    "beta_1": _SHARE,
    "beta_2": _SHARE,
    "rho": _SHARE,
    "momentum": {"minimum": 0, "maximum": 1},
    "epsilon": {"above": 0},
    "epsilon_1": {"above": 0},
    "epsilon_2": {"minimum": 0},
    "beta_2_decay": {"maximum": 0},
    "clip_threshold": {"above": 0},
    "initial_accumulator_value": {"minimum": 0},
    "learning_rate_power": {"maximum": 0},
    "l1_regularization_strength": {"minimum": 0},
    "l2_regularization_strength": {"minimum": 0},
    "l2_shrinkage_regularization_strength": {"minimum": 0},
    "beta": {"minimum": 0},
    "lion.beta_1": {"above": 0, "maximum": 1},
}
"""Ranges of the numbers among the arguments, of all optimisers or of one: Keras's own where it
checks, and what its update divides by or takes the root of."""


def make_optimizer(
    training: TrainingConfig, model: keras.Model, steps: int
) -> keras.optimizers.Optimizer:
    """The optimiser of the configuration, built for the model's trainable weights.

    Its weight decay is apart from the gradient (Loshchilov and Hutter, arXiv 1711.05101): before
    each update a matrix loses learning rate × decay × itself. Biases and batch norms, of fewer than
    two dimensions, lose nothing. It clips nothing.

    Args:
        training: the section of the configuration.
        model: whose trainable weights it will move.
        steps: of the whole training.

    Raises:
        InputError: see `check_optimizer`.
    """
    arguments = _arguments(training)
    try:
        optimizer = CLASSES[training.optimizer](
            learning_rate=learning_rate_schedule(training, steps),
            weight_decay=training.weight_decay,
            name=training.optimizer,
            **arguments,
        )
    except (ValueError, TypeError) as error:
        raise InputError(
            f"training.optimizer_arguments is {training.optimizer_arguments!r}, which Keras's "
            f"{training.optimizer} does not take: {error}"
        ) from None
    # Without a decay no weight has one: AdamW takes 0 for it, but not None.
    optimizer.exclude_from_weight_decay(
        [
            variable
            for variable in model.trainable_variables
            if not training.weight_decay or len(variable.shape) < 2
        ]
    )
    optimizer.build(model.trainable_variables)
    return optimizer


def check_optimizer(training: TrainingConfig) -> None:
    """Whether the optimiser takes its arguments; makes no variable and needs no device.

    Raises:
        InputError: `training.optimizer_arguments` is no JSON object, or has an argument that the
            optimiser does not have, that has a parameter of its own, or that is out of range.
    """
    _arguments(training)


def _arguments(training: TrainingConfig) -> dict[str, Any]:
    """The checked arguments for the class of the optimiser."""
    parameter_name, text = "training.optimizer_arguments", training.optimizer_arguments
    expected = f'{parameter_name} is {text!r}, expected a JSON object such as {{"beta_2": 0.98}}'
    try:
        arguments = json.loads(text)
    except ValueError as error:
        raise InputError(f"{expected} ({error})") from None
    if not isinstance(arguments, dict):
        raise InputError(expected)
    signature = inspect.signature(CLASSES[training.optimizer].__init__).parameters
    defaults = {
        name: one.default
        for name, one in signature.items()
        if one.default is not inspect.Parameter.empty and name not in ELSEWHERE
    }
    checked = {}
    for name, value in arguments.items():
        if name in ELSEWHERE:
            raise InputError(
                f"{parameter_name}: {name} is the parameter {ELSEWHERE[name]}; set that"
            )
        if name not in defaults:
            raise InputError(
                f"{parameter_name}: {training.optimizer} has no argument {name!r}, expected one of "
                f"{', '.join(defaults)}{nearest(name, defaults)}"
            )
        limits = LIMITS.get(f"{training.optimizer}.{name}", LIMITS.get(name, {}))
        field = parameter(defaults[name], "", **limits)
        checked[name] = check_value(f"{parameter_name}: {name}", field, type(defaults[name]), value)
    return checked


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
        return ExamplesStaircase(
            training.learning_rate, training.decay, training.decay_examples, training.batch_size
        )
    return training.learning_rate


@keras.saving.register_keras_serializable("nextvlad")
class ExamplesStaircase(keras.optimizers.schedules.LearningRateSchedule):
    """rate × decay ^ floor(step × batch size / decay examples).

    The stairs are counted in integers: Keras's `ExponentialDecay` counts in steps, of which
    decay examples need be no multiple, and divides float32.

    Args:
        learning_rate: before the first stair.
        decay: factor of a stair.
        decay_examples: examples between two stairs.
        batch_size: examples a step.
    """

    def __init__(
        self, learning_rate: float, decay: float, decay_examples: int, batch_size: int
    ) -> None:
        self.learning_rate, self.decay = learning_rate, decay
        self.decay_examples, self.batch_size = decay_examples, batch_size

    def __call__(self, step: Any) -> Any:
        """The learning rate, a float32 scalar, of a step, an integer scalar from 0 on."""
        # "int" is int64 in TensorFlow; in JAX it is int32, which the reduced fraction fits longer.
        dtype = keras.backend.standardize_dtype("int")
        common = math.gcd(self.batch_size, self.decay_examples)
        batch = ops.cast(self.batch_size // common, dtype)
        every = ops.cast(min(self.decay_examples // common, np.iinfo(dtype).max), dtype)
        stairs = ops.floor_divide(ops.multiply(ops.cast(step, dtype), batch), every)
        decay = ops.cast(self.decay, "float32")
        return ops.multiply(
            ops.cast(self.learning_rate, "float32"),
            ops.power(decay, ops.cast(stairs, "float32")),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "decay": self.decay,
            "decay_examples": self.decay_examples,
            "batch_size": self.batch_size,
        }
