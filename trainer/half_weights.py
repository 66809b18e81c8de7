"""Weights that are stored in half as many bytes and computed with as before."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.errors import InputError

LARGEST = float(np.finfo(np.float16).max)
"""Of float16, 65,504."""


class HalfWeights:
    """The float32 weights of a model, rounded to float16.

    The model itself gets the rounded values, so that in memory it is, in float32, what is stored.

    Args:
        model: whose weights are rounded in place.

    Raises:
        InputError: a weight that float16 has no number for; the message names the variable.
    """

    def __init__(self, model: keras.Model) -> None:
        for variable in model.variables:
            _check(variable)
        self._model = model
        self._stored = []
        for variable in model.variables:
            value = tf.convert_to_tensor(variable)
            if variable.dtype == "float32":
                value = tf.cast(value, tf.float16)
                variable.assign(tf.cast(value, tf.float32))
            self._stored.append(tf.Variable(value, trainable=False, name=variable.path))

    def network(self) -> Any:
        """A function like the model, of the stored weights as they are cast to float32 now."""
        values = {
            id(variable): tf.cast(stored, variable.dtype)
            for variable, stored in zip(self._model.variables, self._stored, strict=True)
        }
        trainable = [values[id(one)] for one in self._model.trainable_variables]
        others = [values[id(one)] for one in self._model.non_trainable_variables]

        def network(inputs: Any, training: bool = False) -> Any:
            outputs, _ = self._model.stateless_call(trainable, others, inputs, training=training)
            return outputs

        return network


def _check(variable: Any) -> None:
    if variable.dtype != "float32":
        return
    values = variable.numpy()
    with np.errstate(over="ignore"):
        bad = values[~np.isfinite(values.astype(np.float16))]
    if bad.size:
        raise InputError(
            f"export.weights is 'float16', but {variable.path} has a weight of {bad[0]:g}, "
            f"expected numbers within ±{LARGEST:,.0f}; export.weights 'float32' takes it"
        )
