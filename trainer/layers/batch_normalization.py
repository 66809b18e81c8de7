"""Batch normalisation over the rows that exist, the same on one device and on many."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from trainer.layers.frame_mask import check_mask


@keras.saving.register_keras_serializable("nextvlad")
class BatchNormalization(keras.layers.Layer):
    """Batch normalisation (Ioffe, Szegedy, arXiv 1502.03167) with a mask and over all replicas.

    Keras's own layer leaves the replicas out as soon as it is given a mask, and adds 1e-7 to the
    number of rows. Here a mean is the sum over all rows of all replicas by their number, whatever
    the number is on each; the variance is taken around it in a second pass. The moving statistics
    are those of the batch as they are, without Bessel's correction.

    Args:
        momentum: share of the moving statistics that a step keeps.
        epsilon: added to the variance; tf.contrib.slim's is 1e-3.

    Call arguments:
        inputs: float [..., D].
        mask: bool [...], true for the rows that count in the statistics; None: all.
        training: whether to normalise by the batch's statistics and to update the moving ones.

    Returns:
        float [..., D].

    Raises:
        ValueError: a mask whose shape is not that of the rows.
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= momentum <= 1 or epsilon <= 0:
            raise ValueError(
                "expected momentum from 0 to 1 and epsilon over 0, "
                f"received {momentum} and {epsilon}"
            )
        self.momentum = momentum
        self.epsilon = epsilon
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (input_shape[-1],)
        # Statistics are never held in half precision.
        self.gamma = self.add_weight(shape, "ones", name="gamma", autocast=False)
        self.beta = self.add_weight(shape, "zeros", name="beta", autocast=False)
        self.moving_mean = self.add_weight(
            shape, "zeros", trainable=False, name="moving_mean", autocast=False
        )
        self.moving_variance = self.add_weight(
            shape, "ones", trainable=False, name="moving_variance", autocast=False
        )

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> Any:
        check_mask(inputs, mask)
        values = at_least_float32(inputs)
        if self.uses_batch(training):
            weights = None if mask is None else ops.cast(mask, values.dtype)[..., None]
            mean, count = row_mean(values, weights)
            values = values - mean
            variance = replica_mean(square_sum(values, weights)) / count
            self.update(mean, variance)
        else:
            values = values - ops.cast(self.moving_mean, values.dtype)
            variance = self.moving_variance
        outputs = values * self.scale(variance) + self.beta
        return ops.cast(outputs, self.compute_dtype)

    def uses_batch(self, training: bool | None) -> bool:
        """Whether a call takes the batch's statistics: a frozen layer keeps to its own."""
        return bool(training) and self.trainable

    def scale(self, variance: Any) -> Any:
        """γ / √(σ² + ε) [D]: what a centred value is multiplied by."""
        return self.gamma * ops.rsqrt(variance + self.epsilon)

    def update(self, mean: Any, variance: Any) -> None:
        """Move the moving statistics towards a batch's mean [D] and variance [D]."""
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            step = ops.cast(value, moving.dtype) * (1.0 - self.momentum)
            moving.assign(moving * self.momentum + step)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return config | {"momentum": self.momentum, "epsilon": self.epsilon}


def at_least_float32(values: Any) -> Any:
    """The same values, in float32 if they came in half precision."""
    return ops.cast(values, keras.backend.result_type(values.dtype, "float32"))


def row_mean(values: Any, weights: Any = None) -> tuple[Any, Any]:
    """Mean [D] over the rows of all replicas, and the mean number of rows a replica (scalar).

    Args:
        values: float [..., D].
        weights: float [..., 1], 1 for the rows that count, else 0; None: all count.
    """
    axes = tuple(range(len(values.shape) - 1))
    if weights is None:
        count = ops.cast(ops.size(values) // values.shape[-1], values.dtype)
        total = ops.sum(values, axis=axes)
    else:
        count = ops.sum(weights)
        total = ops.sum(values * weights, axis=axes)
    # One call for both: each is three reductions.
    both = replica_mean(ops.concatenate([total, count[None]]))
    # A batch can be without a single row that counts.
    count = ops.maximum(both[-1], 1e-12)
    return both[:-1] / count, count


def square_sum(values: Any, weights: Any = None) -> Any:
    """Sum of squares [D] of values [..., D] over this replica's rows."""
    squares = ops.square(values)
    if weights is not None:
        squares = squares * weights
    return ops.sum(squares, axis=tuple(range(len(values.shape) - 1)))


def replica_mean(value: Any) -> Any:
    """Mean of a tensor over the replicas of TensorFlow's strategy in scope, with its gradient.

    A ratio of two of these is the ratio of the sums over all replicas. Keras's only collective is
    the one inside `moments`; under JAX an array spans all devices and needs none.
    """
    if keras.config.backend() != "tensorflow":
        return value
    return ops.moments(value[None], axes=[0], synchronized=True)[0]
