"""The layer's three forms against one slow reference, written with loops from the equations."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from trainer.layers import nextvlad
from trainer.layers.nextvlad import NeXtVLAD, load_author_weights

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
    np.testing.assert_allclose(found, expected, atol=1e-10)


def everything(form, rows, training, dtype, x, mask, weights):
    """Output, every gradient and every variable after one call, by name."""
    layer = NeXtVLAD(K, G, EXPANSION, form=form, batch_norm_rows=rows, dtype=dtype)
    layer.build(x.shape)
    layer.set_weights(weights)
    inputs = tf.Variable(x.astype(dtype))
    with tf.GradientTape() as tape:
        output = layer(inputs, mask=mask, training=training)
        direction = np.random.default_rng(5).standard_normal(output.shape).astype(dtype)
        total = tf.reduce_sum(output * direction)
    gradients = tape.gradient(total, [inputs, *layer.trainable_weights])
    names = ["inputs", *(weight.path for weight in layer.trainable_weights)]
    moving = {weight.path: weight.numpy() for weight in layer.non_trainable_weights}
    found = {name: to_numpy(g) for name, g in zip(names, gradients, strict=True)}
    return [to_numpy(output), *found.values(), *moving.values()]


@pytest.mark.parametrize("form", ["folded", "fast"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rows", ["valid", "all"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
def test_values_gradients_and_moving_statistics_are_those_of_the_direct_form(
    form, training, rows, dtype, tolerance, case, rng
):
    x, mask = case
    weights = make("direct", rng).get_weights()
    one = everything("direct", rows, training, dtype, x, mask, weights)
    other = everything(form, rows, training, dtype, x, mask, weights)
    assert len(one) == 1 + 1 + 10 + 4
    for a, b in zip(one, other, strict=True):
        scale = max(np.abs(a).max(), 1e-12)
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance)


@pytest.mark.parametrize("form", ["folded", "fast"])
def test_float32_agrees_at_a_real_size(form, rng):
    """T=60, D=256, 8 groups of 32 clusters."""
    keras.utils.set_random_seed(2)
    x = rng.standard_normal((6, 60, 256)).astype("float32")
    mask = np.arange(60) < np.array([60, 31, 8, 1, 45, 59])[:, None]
    found = []
    layer = NeXtVLAD(32, 8)
    layer.build(x.shape)
    direction = rng.standard_normal(layer.compute_output_shape(x.shape)).astype("float32")
    for name in ("direct", form):
        other = NeXtVLAD(32, 8, form=name)
        other.build(x.shape)
        other.set_weights(layer.get_weights())
        inputs = tf.Variable(x)
        with tf.GradientTape() as tape:
            output = other(inputs, mask=mask, training=True)
            total = tf.reduce_sum(output * direction)
        found.append([output, *tape.gradient(total, [inputs, *other.trainable_weights])])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4 * np.abs(a).max())


@pytest.mark.parametrize("form", ["folded", "fast"])
def test_float32_agrees_where_the_mean_frame_is_large(form, rng):
    """Frames at a distance of ten standard deviations from 0, as unscaled features can be."""
    x = rng.standard_normal((4, 40, 32)) + 10
    mask = np.arange(40) < np.array([40, 17, 31, 2])[:, None]
    keras.utils.set_random_seed(1)
    layer = NeXtVLAD(K, G, EXPANSION)
    layer.build(x.shape)
    exact = everything("direct", "valid", True, "float64", x, mask, layer.get_weights())
    found = everything(form, "valid", True, "float32", x, mask, layer.get_weights())
    for a, b in zip(exact, found, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-3 * np.abs(a).max())


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


def test_auto_takes_what_the_measurements_say(monkeypatch, case, rng):
    asked = []

    def fastest(shape, device, precision):
        asked.append((shape, device, precision))
        return "folded"

    monkeypatch.setattr(nextvlad.nextvlad_forms, "fastest", fastest)
    x, mask = case
    layer = make("auto", rng)
    expected = to_numpy(make("folded", rng)(x, mask=mask, training=True))
    np.testing.assert_array_equal(to_numpy(layer(x, mask=mask, training=True)), expected)
    shape, device, precision = asked[0]
    assert (shape.batch, shape.frames, shape.dimensions, shape.training) == (B, T, D, True)
    assert (shape.groups, shape.clusters, shape.expansion) == (G, K, EXPANSION)
    assert (device, precision) == ("cpu", "float64")


def author_variables(layer, scope=""):
    norms = {"cluster_bn": layer.cluster_norm, "vlad_bn": layer.output_norm}
    values = {
        "fully_connected/weights": layer.expansion_kernel,
        "fully_connected/biases": layer.expansion_bias,
        "fully_connected_1/weights": layer.attention_kernel,
        "fully_connected_1/biases": layer.attention_bias,
        "cluster_weights": layer.cluster_kernel,
        "cluster_weights2": layer.centers,
    } | {
        f"{norm}/{name}": getattr(norms[norm], name)
        for norm in norms
        for name in ("beta", "gamma", "moving_mean", "moving_variance")
    }
    values = {scope + name: to_numpy(value) for name, value in values.items()}
    values[f"{scope}cluster_weights2"] = values[f"{scope}cluster_weights2"][None]
    return values


@pytest.mark.parametrize("scope", ["", "tower/video_VLAD/"])
def test_the_author_s_variables_have_their_counterparts(scope, case, rng):
    x, mask = case
    layer = make("direct", rng, "all")
    variables = author_variables(layer, scope)
    variables["global_step"] = np.int64(5)
    variables[f"{scope}cluster_weights/Adam_1"] = np.zeros(3)
    other = NeXtVLAD(K, G, EXPANSION, batch_norm_rows="all", dtype="float64")
    load_author_weights(other, variables)  # builds it
    np.testing.assert_allclose(
        to_numpy(other(x, mask=mask)), to_numpy(layer(x, mask=mask)), atol=1e-12
    )
    for one, same in zip(layer.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), same.numpy())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.pop("vlad_bn/gamma"), "missing: vlad_bn/gamma"),
        (lambda v: v.update(other=np.zeros(2)), "unknown: other"),
        (
            lambda v: v.update(cluster_weights=np.zeros((12, 12))),
            r"cluster_weights of shape \(12, 8\), received \(12, 12\)",
        ),
        (lambda v: v.clear(), "missing: cluster_bn/beta.* and 9 more; unknown: none"),
        (lambda v: v.update(cluster_weights=v["cluster_weights"] * np.nan), "finite numbers in"),
    ],
)
def test_weights_of_another_configuration(change, words, rng):
    layer = make("direct", rng)
    variables = author_variables(layer)
    before = layer.get_weights()
    for name in variables:
        variables[name] = variables[name] + 1
    change(variables)
    with pytest.raises(ValueError, match=words):
        load_author_weights(layer, variables)
    for one, other in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    new = NeXtVLAD(K, G, EXPANSION)
    with pytest.raises(ValueError, match="expected"):
        load_author_weights(new, variables)
    assert not new.built


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


@pytest.mark.parametrize("form", ["direct", "folded", "fast"])
def test_a_video_without_frames_does_not_overflow_float16(form, rng):
    """What is 0 has no direction: one over its length, times a loss scale, is past float16."""
    layer = NeXtVLAD(K, G, EXPANSION, form=form, dtype="mixed_float16")
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
        ({"groups": 5}, "groups must divide"),
        ({"cluster_size": 1}, "cluster_size of at least 2"),
        ({"form": "slow"}, "received 'slow'"),
        ({"batch_norm_rows": "some"}, "batch_norm_rows of valid, all, received 'some'"),
    ],
)
def test_parameters_that_can_not_be(arguments, words):
    with pytest.raises(ValueError, match=words):
        NeXtVLAD(**{"cluster_size": K, "groups": G} | arguments).build((None, T, D))


@pytest.mark.parametrize("shape", [(B, T + 1), (B, 1), (B,), (B, T, 1)])
def test_masks_of_another_shape(shape, case, rng):
    with pytest.raises(ValueError, match="mask of shape"):
        make("fast", rng)(case[0], mask=np.ones(shape, bool))
