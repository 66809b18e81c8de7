import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from trainer.layers import BatchNormalization

ROOT = Path(__file__).resolve().parents[3]
B, T, D = 4, 5, 3
LENGTHS = np.array([5, 2, 0, 3])
MASK = np.arange(T) < LENGTHS[:, None]


def make(dtype="float64", **arguments):
    layer = BatchNormalization(**arguments, dtype=dtype)
    layer.build((None, D))
    values = np.random.default_rng(11)
    layer.gamma.assign(values.uniform(0.5, 1.5, D))
    layer.beta.assign(values.standard_normal(D))
    layer.moving_mean.assign(values.standard_normal(D))
    layer.moving_variance.assign(values.uniform(0.5, 1.5, D))
    return layer


def everything(layer, x, mask, direction):
    """Output, gradients of inputs and weights, and the moving statistics after a training call."""
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = layer(inputs, mask=mask, training=True)
        loss = tf.reduce_sum(output * direction)
    gradients = tape.gradient(loss, [inputs, *layer.trainable_weights])
    moving = [weight.numpy() for weight in layer.non_trainable_weights]
    return [to_numpy(output), *map(to_numpy, gradients), *moving]


@pytest.fixture
def x(rng):
    return rng.standard_normal((B, T, D)) + 2


def test_two_rows_by_hand():
    layer = BatchNormalization(momentum=0.75, epsilon=5.0, dtype="float64")
    layer.build((None, 1))
    layer.gamma.assign([3.0])
    layer.beta.assign([1.0])
    rows = np.array([[1.0], [5.0]])
    # Mean 3, variance 4: ±2 / √(4 + 5), times 3, plus 1.
    np.testing.assert_allclose(to_numpy(layer(rows, training=True)), [[-1.0], [3.0]])
    np.testing.assert_allclose(layer.moving_mean.numpy(), [0.75 * 0 + 0.25 * 3])
    np.testing.assert_allclose(layer.moving_variance.numpy(), [0.75 * 1 + 0.25 * 4])
    layer.moving_mean.assign([-1.0])
    layer.moving_variance.assign([4.0])
    np.testing.assert_allclose(to_numpy(layer(rows)), [[3.0], [7.0]])
    np.testing.assert_allclose(layer.moving_mean.numpy(), [-1.0])


def test_a_masked_row_counts_for_nothing_by_hand():
    layer = BatchNormalization(momentum=0.5, epsilon=5.0, dtype="float64")
    rows = np.array([[[1.0], [5.0]], [[9.0], [100.0]]])
    mask = np.array([[True, True], [False, False]])
    output = to_numpy(layer(rows, mask=mask, training=True))
    np.testing.assert_allclose(output, [[[-2 / 3], [2 / 3]], [[2.0], [97 / 3]]])
    np.testing.assert_allclose(layer.moving_mean.numpy(), [1.5])
    np.testing.assert_allclose(layer.moving_variance.numpy(), [2.5])


def test_with_a_mask_all_is_as_with_the_rows_that_exist_alone(x, rng):
    direction = rng.standard_normal(x.shape) * MASK[..., None]
    padded = everything(make(), x, MASK, direction)
    alone = everything(make(), x[MASK], None, direction[MASK])
    for found, expected in zip(padded, alone, strict=True):
        if found.shape == x.shape:
            found = found[MASK]  # noqa: PLW2901
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_gradient_of_a_row_that_does_not_count_is_its_own(x, rng):
    """It is normalised too, by statistics that it has no part in."""
    layer = make()
    direction = rng.standard_normal(x.shape)
    _, gradient, *_ = everything(layer, x, MASK, direction)
    scale = to_numpy(layer.gamma) / np.sqrt(x[MASK].var(axis=0) + 1e-3)
    np.testing.assert_allclose(gradient[~MASK], (direction * scale)[~MASK], atol=1e-12)


@pytest.mark.parametrize("training", [False, True])
def test_without_a_mask_it_is_keras_s_layer(training, x):
    layer = make(momentum=0.9)
    other = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3, dtype="float64")
    other.build(x.shape)
    other.set_weights(layer.get_weights())
    expected = to_numpy(other(x, training=training))
    np.testing.assert_allclose(to_numpy(layer(x, training=training)), expected, atol=1e-12)
    for one, same in zip(layer.weights, other.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), same.numpy(), atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_float16"])
def test_without_a_single_row_all_is_finite(dtype, x):
    found = everything(make(dtype), x.astype("float32"), np.zeros((B, T), bool), 1)
    assert all(np.isfinite(value.astype("float64")).all() for value in found)


def test_a_frozen_layer_keeps_to_its_moving_statistics(x):
    layer = make()
    layer.trainable = False
    before = layer.get_weights()
    found = to_numpy(layer(x, mask=MASK, training=True))
    np.testing.assert_array_equal(found, to_numpy(make()(x, mask=MASK, training=False)))
    for one, same in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_bfloat16", 2e-2), ("mixed_float16", 2e-3)]
)
@pytest.mark.parametrize("mask", [None, MASK])
def test_statistics_are_not_in_half_precision(policy, tolerance, mask):
    """Sums of these 10,240 rows, and their squares, are beyond float16."""
    x = np.random.default_rng(2).standard_normal((B, T * 512, D)) * 300 + 500
    x = to_numpy(keras.ops.cast(x, policy.removeprefix("mixed_"))).astype("float64")
    mask = None if mask is None else np.repeat(mask, 512, axis=1)
    exact, half = make(momentum=0.0), make(policy, momentum=0.0)
    expected = to_numpy(exact(x, mask=mask, training=True))
    found = half(x.astype("float32"), mask=mask, training=True)
    assert keras.backend.standardize_dtype(found.dtype) == policy.removeprefix("mixed_")
    found = to_numpy(keras.ops.cast(found, "float64"))
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())
    for one, same in zip(half.weights, exact.weights, strict=True):
        assert keras.backend.standardize_dtype(one.dtype) == "float32"
        np.testing.assert_allclose(one.numpy(), same.numpy(), rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(B,), (B, T, D), (B, T, 1), (B, 1), (1, T), (B, T + 1)])
def test_masks_of_another_shape(shape, training, x):
    """One that broadcasts would count other rows than it lets through."""
    with pytest.raises(ValueError, match=r"expected a mask of shape .* received"):
        make()(x, mask=np.ones(shape, bool), training=training)


@pytest.mark.parametrize("arguments", [{"momentum": -0.1}, {"momentum": 1.1}, {"epsilon": 0.0}])
def test_parameters_that_can_not_be(arguments):
    with pytest.raises(ValueError, match=r"expected momentum .* received"):
        BatchNormalization(**arguments)


@pytest.mark.slow
def test_two_replicas_are_as_one_device():
    """Outputs, gradients and moving statistics, of this layer and of those that are made of it."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("two_replicas.py")],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    differences = json.loads(done.stdout)
    assert len(differences) == 10
    for case, quantities in differences.items():
        assert len(quantities) >= 8
        assert max(quantities.values()) < 1e-10, (case, quantities)
