"""The layer's three forms against one slow reference, written with loops from the equations."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from trainer.layers.nextvlad import NeXtVLAD, training_multiply_adds

B, T, D, G, K, EXPANSION = 3, 5, 6, 2, 4, 2


def slow_nextvlad(weights, x, mask, training, groups, clusters, rows):
    """The paper's equations, a loop for every index; batch norm with epsilon 1e-3."""
    videos, frames, _ = x.shape
    expanded = x @ weights["expansion_kernel"] + weights["expansion_bias"]
    features = expanded.shape[-1] // groups
    logits = expanded @ weights["cluster_kernel"]
    if training:
        used = logits[mask] if rows == "valid" else logits.reshape(-1, logits.shape[-1])
        mean, variance = used.mean(axis=0), used.var(axis=0)
    else:
        mean, variance = weights["moving_mean"], weights["moving_variance"]
    logits = (logits - mean) / np.sqrt(variance + 1e-3) * weights["gamma"] + weights["beta"]
    y = np.zeros((videos, features, clusters))
    for b in range(videos):
        for t in range(frames):
            if not mask[b, t]:
                continue
            for g in range(groups):
                score = expanded[b, t] @ weights["attention_kernel"][:, g]
                attention = 1 / (1 + np.exp(-(score + weights["attention_bias"][g])))
                group_logits = logits[b, t, g * clusters : (g + 1) * clusters]
                assignment = np.exp(group_logits) / np.exp(group_logits).sum()
                for k in range(clusters):
                    for f in range(features):
                        residual = expanded[b, t, g * features + f] - weights["centers"][f, k]
                        y[b, f, k] += attention * assignment[k] * residual
    for b in range(videos):
        for k in range(clusters):
            y[b, :, k] /= max(np.linalg.norm(y[b, :, k]), 1e-6)
    flat = y.reshape(videos, -1)
    if training:
        return (flat - flat.mean(axis=0)) / np.sqrt(flat.var(axis=0) + 1e-3)
    return flat / np.sqrt(1 + 1e-3)


@pytest.fixture
def case(rng):
    x = rng.standard_normal((B, T, D))
    mask = np.arange(T) < np.array([5, 2, 4])[:, None]
    x[~mask] = rng.standard_normal(D)  # what padding holds must not matter where it is masked
    return x, mask


def make(form, rng, rows="valid"):
    layer = NeXtVLAD(K, G, EXPANSION, form=form, batch_norm_rows=rows, dtype="float64")
    layer.build((B, T, D))
    values = np.random.default_rng(11)
    for variable in (*layer.weights[:6], *layer.cluster_norm.trainable_weights):
        variable.assign(values.standard_normal(variable.shape) * 0.7)
    layer.cluster_norm.moving_mean.assign(values.standard_normal(G * K))
    layer.cluster_norm.moving_variance.assign(values.uniform(0.5, 2, G * K))
    return layer


def weights_of(layer):
    names = ("expansion_kernel", "expansion_bias", "attention_kernel", "attention_bias",
             "cluster_kernel", "centers")  # fmt: skip
    found = {name: to_numpy(getattr(layer, name)) for name in names}
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    return found | {name: to_numpy(getattr(layer.cluster_norm, name)) for name in norm}


@pytest.mark.parametrize("form", ["direct", "folded", "fast"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rows", ["valid", "all"])
def test_every_form_is_the_reference(form, training, rows, case, rng):
    x, mask = case
    layer = make(form, rng, rows)
    expected = slow_nextvlad(weights_of(layer), x, mask, training, G, K, rows)
    found = to_numpy(layer(x, mask=mask, training=training))
    # Keras adds 1e-7 to the number of valid rows when it takes their mean; here there are 11.
    tolerance = 1e-7 if training and rows == "valid" else 1e-10
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize("form", ["folded", "fast"])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_those_of_the_direct_form(form, training, case, rng):
    x, mask = case
    direction = tf.constant(rng.standard_normal((B, EXPANSION * D // G * K)))
    gradients = []
    for name in ("direct", form):
        layer, inputs = make(name, rng), tf.Variable(x)
        with tf.GradientTape() as tape:
            output = tf.reduce_sum(layer(inputs, mask=mask, training=training) * direction)
        gradients.append(tape.gradient(output, [inputs, *layer.trainable_weights]))
    for one, other in zip(*gradients, strict=True):
        scale = max(float(tf.reduce_max(tf.abs(one))), 1e-12)
        np.testing.assert_allclose(one / scale, other / scale, atol=1e-10)


@pytest.mark.parametrize("form", ["direct", "folded", "fast"])
def test_padding_changes_nothing_in_inference(form, case, rng):
    x, mask = case
    layer = make(form, rng)
    padded = np.concatenate([x, 9 * np.ones((B, 3, D))], axis=1)
    longer = np.concatenate([mask, np.zeros((B, 3), bool)], axis=1)
    np.testing.assert_allclose(
        to_numpy(layer(padded, mask=longer)), to_numpy(layer(x, mask=mask)), atol=1e-12
    )


def test_one_frame_two_clusters_by_hand():
    """x̃ = x, equal assignment, attention σ(0) = ½: y_k = ¼ (x − c_k), then unit length."""
    layer = NeXtVLAD(cluster_size=2, groups=1, expansion=1, dtype="float64")
    layer.build((1, 1, 2))
    layer.expansion_kernel.assign(np.eye(2))
    for variable in (layer.attention_kernel, layer.cluster_kernel):
        variable.assign(np.zeros(variable.shape))
    layer.centers.assign([[1.0, 0.0], [0.0, 0.0]])  # c_1 = (1, 0), c_2 = (0, 0)
    y = to_numpy(layer(np.array([[[4.0, 4.0]]]))) * np.sqrt(1.001)  # undo the output's batch norm
    # ¼ (3, 4) and ¼ (4, 4), normalised; flattened with the feature outside, the cluster inside
    np.testing.assert_allclose(y, [[0.6, np.sqrt(0.5), 0.8, np.sqrt(0.5)]], atol=1e-12)


def test_auto_takes_the_cheaper_form():
    # By hand at T=1, D=2, G=1, K=2, λ=1: folded 2·1·2·2 + 3·1·2·2, fast 2·1·2·2 + 3·2·2·2
    assert training_multiply_adds(1, 2, 1, 2, 1) == (20, 32)
    layer = NeXtVLAD(64, 8, 2)
    assert layer._form(5, 1024) == "folded"
    assert layer._form(300, 1024) == "fast"


def test_it_survives_saving(tmp_path, case, rng):
    x, mask = case
    inputs = keras.Input((T, D)), keras.Input((T,), dtype="bool")
    layer = NeXtVLAD(K, G, EXPANSION, batch_norm_rows="all")
    model = keras.Model(inputs, layer(inputs[0], mask=inputs[1]))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    batch = [x.astype("float32"), mask]
    np.testing.assert_array_equal(to_numpy(loaded(batch)), to_numpy(model(batch)))


def test_half_precision_stays_near(case, rng):
    x, mask = case
    exact = to_numpy(make("fast", rng)(x, mask=mask))
    layer = NeXtVLAD(K, G, EXPANSION, form="fast", dtype="mixed_bfloat16")
    layer.build((B, T, D))
    layer.set_weights(make("fast", rng).get_weights())
    half = to_numpy(keras.ops.cast(layer(x.astype("float32"), mask=mask), "float32"))
    assert np.abs(half - exact).max() < 0.05


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"groups": 5}, "groups must divide"),
        ({"cluster_size": 1}, "cluster_size of at least 2"),
        ({"form": "slow"}, "received 'slow'"),
        ({"batch_norm_rows": "some"}, "received 'fast'|received 'auto' and 'some'"),
    ],
)
def test_parameters_that_can_not_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        NeXtVLAD(**{"cluster_size": K, "groups": G} | arguments).build((None, T, D))
