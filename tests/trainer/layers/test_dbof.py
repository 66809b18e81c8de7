"""The layer against a slow reference, written with loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from trainer.layers.dbof import DBoF

B, T, D, K = 3, 5, 6, 4


def slow_batch_norm(norm, values, rows, training):
    """Batch norm of [B,T,N] with epsilon 1e-3; in training over the rows [B,T]."""
    if training:
        mean, variance = values[rows].mean(axis=0), values[rows].var(axis=0)
    else:
        mean, variance = to_numpy(norm.moving_mean), to_numpy(norm.moving_variance)
    values = (values - mean) / np.sqrt(variance + 1e-3)
    return values * to_numpy(norm.gamma) + to_numpy(norm.beta)


def slow_dbof(layer, x, mask, training):
    rows = mask if layer.batch_norm_rows == "valid" else np.ones_like(mask)
    frames = slow_batch_norm(layer.input_norm, x, rows, training) @ to_numpy(layer.kernel)
    frames = slow_batch_norm(layer.cluster_norm, frames, rows, training)
    output = np.zeros((len(x), K))
    for b in range(len(x)):
        for k in range(K):
            found = [min(max(frames[b, t, k], 0), 6) for t in range(x.shape[1]) if mask[b, t]]
            output[b, k] = max(found) if layer.pooling == "max" else sum(found) / len(found)
    return output


@pytest.fixture
def case(rng):
    x = rng.standard_normal((B, T, D))
    mask = np.arange(T) < np.array([5, 2, 4])[:, None]
    x[~mask] = rng.standard_normal(D)  # what padding holds must not matter where it is masked
    return x, mask


def make(pooling="max", rows="valid", **arguments):
    layer = DBoF(K, pooling, rows, **{"dtype": "float64"} | arguments)
    layer.build((None, None, D))
    values = np.random.default_rng(11)
    for norm in (layer.input_norm, layer.cluster_norm):
        for variable in (norm.beta, norm.moving_mean):
            variable.assign(values.standard_normal(variable.shape))
        for variable in (norm.gamma, norm.moving_variance):
            variable.assign(values.uniform(0.5, 2, variable.shape))
    layer.kernel.assign(2 * values.standard_normal((D, K)))  # so that the 6 cuts some
    return layer


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rows", ["valid", "all"])
def test_it_is_the_reference(pooling, training, rows, case):
    x, mask = case
    layer = make(pooling, rows)
    expected = slow_dbof(layer, x, mask, training)
    found = to_numpy(layer(x, mask=mask, training=training))
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_without_a_mask_every_frame_exists(pooling, case):
    x, _ = case
    layer = make(pooling)
    expected = slow_dbof(layer, x, np.ones((B, T), bool), True)
    np.testing.assert_allclose(to_numpy(layer(x, training=True)), expected, atol=1e-10)


@pytest.mark.parametrize("rows", ["valid", "all"])
def test_a_mask_that_the_inputs_carry_is_the_mask(rows, case):
    x, mask = case
    x[~mask] = 0
    layer = make("average", rows)
    expected = slow_dbof(layer, x, mask, True)
    carrying = keras.layers.Masking(dtype="float64")(x)
    np.testing.assert_allclose(to_numpy(layer(carrying, training=True)), expected, atol=1e-10)


@pytest.mark.parametrize(("pooling", "expected"), [("max", [6, 3]), ("average", [3, 1.5])])
def test_one_feature_two_clusters_by_hand(pooling, expected):
    """Both batch norms at their start divide by √1.001: the kernel undoes it."""
    layer = DBoF(2, pooling, dtype="float64")
    layer.build((1, 3, 1))
    layer.kernel.assign([[2.002, -1.001]])
    # 2x is 8 and −6, of which ReLU6 leaves 6 and 0; −x is −4 and 3, of which it leaves 0 and 3.
    x = np.array([[[4.0], [-3.0], [-99.0]]])
    mask = np.array([[True, True, False]])
    np.testing.assert_allclose(to_numpy(layer(x, mask=mask)), [expected], atol=1e-12)


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_padding_changes_nothing_in_inference(pooling, case):
    x, mask = case
    layer = make(pooling)
    padded = np.concatenate([x, 9 * np.ones((B, 3, D)), -9 * np.ones((B, 1, D))], axis=1)
    longer = np.concatenate([mask, np.zeros((B, 4), bool)], axis=1)
    np.testing.assert_allclose(
        to_numpy(layer(padded, mask=longer)), to_numpy(layer(x, mask=mask)), atol=1e-12
    )


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_a_video_without_frames_is_nothing(pooling, case):
    x, mask = case
    mask[1] = False
    output = to_numpy(make(pooling)(x, mask=mask))
    assert not output[1].any()
    assert output[0].any()


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_reach_every_weight(pooling, training, case, rng):
    x, mask = case
    layer, direction = make(pooling), tf.constant(rng.standard_normal((B, K)))
    with tf.GradientTape() as tape:
        output = tf.reduce_sum(layer(x, mask=mask, training=training) * direction)
    weights = layer.trainable_weights
    assert len(weights) == 5
    for weight, gradient in zip(weights, tape.gradient(output, weights), strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0, weight.path


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_it_survives_saving(pooling, tmp_path, case):
    x, mask = case
    inputs = keras.Input((None, D)), keras.Input((None,), dtype="bool")
    layer = make(pooling, "all", dtype="float32", batch_norm_momentum=0.9)
    output = layer(inputs[0], mask=inputs[1])
    assert output.shape == (None, K)
    model = keras.Model(inputs, output)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].get_config() == layer.get_config()
    batch = [x.astype("float32"), mask]
    np.testing.assert_array_equal(to_numpy(loaded(batch)), to_numpy(model(batch)))


def test_the_configuration_is_complete():
    layer = DBoF(5, "average", "all", 0.9, name="frames")
    again = DBoF.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.cluster_size, again.pooling) == (5, "average")
    assert (again.batch_norm_rows, again.batch_norm_momentum) == ("all", 0.9)
    assert keras.saving.get_registered_name(DBoF) == "nextvlad>DBoF"


@pytest.mark.parametrize("pooling", ["max", "average"])
def test_half_precision_stays_near(pooling, case):
    x, mask = case
    exact = to_numpy(make(pooling)(x, mask=mask))
    output = make(pooling, dtype="mixed_bfloat16")(x.astype("float32"), mask=mask)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert np.abs(to_numpy(keras.ops.cast(output, "float32")) - exact).max() < 0.1


@pytest.mark.parametrize("masked", [False, True])
def test_a_mean_of_many_frames_in_half_precision(masked):
    """A running sum of 1s in bfloat16 stops at 256."""
    layer = DBoF(1, "average", dtype="mixed_bfloat16")
    layer.build((1, 600, 1))
    layer.cluster_norm.beta.assign([1.0])
    mask = np.ones((1, 600), bool) if masked else None
    output = keras.ops.cast(layer(np.zeros((1, 600, 1), "float32"), mask=mask), "float32")
    np.testing.assert_array_equal(to_numpy(output), [[1]])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cluster_size": 0}, "cluster_size of at least 1, received 0"),
        ({"pooling": "sum"}, "expected pooling of max, average, received 'sum'"),
        ({"batch_norm_rows": "some"}, "expected batch_norm_rows of valid, all, received 'some'"),
    ],
)
def test_parameters_that_can_not_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        DBoF(**arguments)


def test_inputs_that_can_not_be():
    with pytest.raises(ValueError, match=r"expected inputs of shape \[B, T, D\], received"):
        DBoF(K).build((None, D))


@pytest.mark.parametrize("shape", [(B, T + 1), (B, 1), (B, T, 1)])
def test_a_mask_of_another_shape_is_an_error(shape, case):
    with pytest.raises(ValueError, match=r"expected a mask of shape .* received a mask of shape"):
        make()(case[0], mask=np.ones(shape, bool))
