"""The layer against a slow reference, written with loops from the equation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from trainer.layers.netvlad import NetVLAD

B, T, D, K = 3, 5, 6, 4


def slow_netvlad(layer, x, mask, training):
    """The paper's equation, a loop for every index; batch norm with epsilon 1e-3."""
    kernel, centers = to_numpy(layer.kernel), to_numpy(layer.centers)
    norm = layer.cluster_norm
    logits = x @ kernel
    if training:
        used = logits[mask] if layer.batch_norm_rows == "valid" else logits.reshape(-1, K)
        mean, variance = used.mean(axis=0), used.var(axis=0)
    else:
        mean, variance = to_numpy(norm.moving_mean), to_numpy(norm.moving_variance)
    logits = (logits - mean) / np.sqrt(variance + 1e-3) * to_numpy(norm.gamma)
    logits = logits + to_numpy(norm.beta)
    output = np.zeros((len(x), D, K))
    for b in range(len(x)):
        for t in range(x.shape[1]):
            if not mask[b, t]:
                continue
            assignment = np.exp(logits[b, t]) / np.exp(logits[b, t]).sum()
            for k in range(K):
                for f in range(D):
                    output[b, f, k] += assignment[k] * (x[b, t, f] - centers[f, k])
        for k in range(K):
            output[b, :, k] /= max(np.linalg.norm(output[b, :, k]), 1e-6)
        output[b] /= max(np.linalg.norm(output[b]), 1e-6)
    return output.reshape(len(x), -1)


@pytest.fixture
def case(rng):
    x = rng.standard_normal((B, T, D))
    mask = np.arange(T) < np.array([5, 2, 4])[:, None]
    x[~mask] = rng.standard_normal(D)  # what padding holds must not matter where it is masked
    return x, mask


def make(rows="valid", **arguments):
    layer = NetVLAD(K, batch_norm_rows=rows, **{"dtype": "float64"} | arguments)
    layer.build((None, None, D))
    values = np.random.default_rng(11)
    norm = layer.cluster_norm
    for variable in (layer.kernel, layer.centers, norm.gamma, norm.beta, norm.moving_mean):
        variable.assign(values.standard_normal(variable.shape) * 0.7)
    norm.moving_variance.assign(values.uniform(0.5, 2, K))
    return layer


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rows", ["valid", "all"])
def test_it_is_the_reference(training, rows, case):
    x, mask = case
    layer = make(rows)
    expected = slow_netvlad(layer, x, mask, training)
    np.testing.assert_allclose(
        to_numpy(layer(x, mask=mask, training=training)), expected, atol=1e-10
    )


def test_without_a_mask_every_frame_exists(case):
    x, _ = case
    layer = make()
    expected = slow_netvlad(layer, x, np.ones((B, T), bool), False)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-10)


def test_one_frame_two_clusters_by_hand():
    """Equal assignment: y_k = ½ (x − c_k), then unit length, then the two together: by √2."""
    layer = NetVLAD(cluster_size=2, dtype="float64")
    layer.build((1, 1, 2))
    layer.kernel.assign(np.zeros((2, 2)))
    layer.centers.assign([[1.0, 0.0], [0.0, 0.0]])  # c_1 = (1, 0), c_2 = (0, 0)
    y = to_numpy(layer(np.array([[[4.0, 4.0]]])))
    # (3, 4) and (4, 4), normalised; flattened with the feature outside, the cluster inside
    expected = np.array([[0.6, np.sqrt(0.5), 0.8, np.sqrt(0.5)]]) / np.sqrt(2)
    np.testing.assert_allclose(y, expected, atol=1e-12)


def test_the_assignment_weighs_the_frames_by_hand():
    """One feature, 0 centers: y_1 = ¾·2 − ¼·1 > 0 and y_2 = ¼·2 − ¾·1 < 0."""
    layer = NetVLAD(cluster_size=2, dtype="float64")
    layer.build((1, 2, 1))
    layer.centers.assign(np.zeros((1, 2)))
    layer.cluster_norm.moving_mean.assign([0.5, 0.0])
    # (2 − ½) w and (−1 − ½) w, by √1.001 of the batch norm, are ± ln 3: softmax ¾ and ¼
    layer.kernel.assign([[1.0, 0.0]])
    layer.cluster_norm.gamma.assign([np.log(3) / 1.5 * np.sqrt(1.001), 1.0])
    y = to_numpy(layer(np.array([[[2.0], [-1.0]]])))
    np.testing.assert_allclose(y, [[np.sqrt(0.5), -np.sqrt(0.5)]], atol=1e-12)


def test_padding_changes_nothing_in_inference(case):
    x, mask = case
    layer = make()
    padded = np.concatenate([x, 9 * np.ones((B, 3, D))], axis=1)
    longer = np.concatenate([mask, np.zeros((B, 3), bool)], axis=1)
    np.testing.assert_allclose(
        to_numpy(layer(padded, mask=longer)), to_numpy(layer(x, mask=mask)), atol=1e-12
    )


def test_a_video_without_frames_is_nothing(case):
    x, mask = case
    mask[1] = False
    y = to_numpy(make()(x, mask=mask))
    assert not y[1].any()
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), [1, 0, 1])


@pytest.mark.parametrize("training", [False, True])
def test_gradients_reach_every_weight(training, case, rng):
    x, mask = case
    layer, direction = make(), tf.constant(rng.standard_normal((B, D * K)))
    with tf.GradientTape() as tape:
        output = tf.reduce_sum(layer(x, mask=mask, training=training) * direction)
    weights = layer.trainable_weights
    assert len(weights) == 4
    for weight, gradient in zip(weights, tape.gradient(output, weights), strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0, weight.path


def test_it_survives_saving(tmp_path, case):
    x, mask = case
    inputs = keras.Input((None, D)), keras.Input((None,), dtype="bool")
    layer = make("all", dtype="float32", batch_norm_momentum=0.9)
    output = layer(inputs[0], mask=inputs[1])
    assert output.shape == (None, D * K)
    model = keras.Model(inputs, output)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].get_config() == layer.get_config()
    batch = [x.astype("float32"), mask]
    np.testing.assert_array_equal(to_numpy(loaded(batch)), to_numpy(model(batch)))


def test_the_configuration_is_complete():
    layer = NetVLAD(5, "all", 0.9, name="frames")
    again = NetVLAD.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.cluster_size, again.batch_norm_rows, again.batch_norm_momentum) == (5, "all", 0.9)
    assert keras.saving.get_registered_name(NetVLAD) == "nextvlad>NetVLAD"


def test_half_precision_stays_near(case):
    x, mask = case
    exact = to_numpy(make()(x, mask=mask))
    output = make(dtype="mixed_bfloat16")(x.astype("float32"), mask=mask)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert np.abs(to_numpy(keras.ops.cast(output, "float32")) - exact).max() < 0.02


def test_half_precision_does_not_overflow():
    """A sum over 300 frames of 100 is 30 000: its square is past float16."""
    layer = NetVLAD(2, dtype="mixed_float16")
    output = to_numpy(layer(100 * np.ones((1, 300, 2), "float32"))).astype("float32")
    np.testing.assert_allclose(np.linalg.norm(output), 1, atol=1e-3)


def test_a_video_without_frames_does_not_overflow_float16(rng):
    """What is 0 has no direction: one over its length, times a loss scale, is past float16."""
    layer = NetVLAD(K, dtype="mixed_float16")
    x = tf.constant(rng.standard_normal((B, T, D)), tf.float16)
    mask = np.arange(T) < np.array([T, 0, 2])[:, None]
    with tf.GradientTape() as tape:
        output = tf.cast(layer(x, mask=mask, training=True), tf.float32)
        loss = 2.0**10 * tf.reduce_sum(output * rng.standard_normal(output.shape))
    for gradient in tape.gradient(loss, [weight.value for weight in layer.trainable_weights]):
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cluster_size": 1}, "cluster_size of at least 2, received 1"),
        ({"batch_norm_rows": "some"}, "expected batch_norm_rows .* received 'some'"),
    ],
)
def test_parameters_that_can_not_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        NetVLAD(**arguments)


def test_inputs_that_can_not_be():
    with pytest.raises(ValueError, match=r"expected inputs of shape \[B, T, D\], received"):
        NetVLAD(K).build((None, D))


@pytest.mark.parametrize("shape", [(B, T + 1), (B, 1), (1, T), (B, T, 1)])
def test_a_mask_of_another_shape_is_an_error(shape, case):
    with pytest.raises(ValueError, match="expected a mask of shape") as error:
        make()(case[0], mask=np.ones(shape, bool))
    assert f"= {(B, T)}" in str(error.value)
    assert f"received a mask of shape {shape}" in str(error.value)
