"""The classifier head against a slow reference, written with loops from the equations."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from trainer.layers.vertical_attention import VerticalAttention

B, H, C, V, E, A = 3, 5, 4, 3, 2, 6
CLASS_VERTICALS = [[0], [2, 0], [1], [0, 1, 2]]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_attention(layer, h):
    """Context [B,E], class probabilities [B,C], vertical probabilities [B,V]."""
    weights = {weight.name: to_numpy(weight) for weight in layer.weights}
    embeddings = weights["embeddings"]
    context = np.zeros((len(h), E))
    for b in range(len(h)):
        query = h[b] @ weights["hidden_kernel"] + weights["attention_bias"]
        scores = []
        for j in range(V):
            hidden = np.tanh(embeddings[j] @ weights["embedding_kernel"] + query)
            scores.append(np.exp(hidden @ weights["score_kernel"][:, 0] + weights["score_bias"][0]))
        for j in range(V):
            context[b] += scores[j] / sum(scores) * embeddings[j]
    both = np.concatenate([h, context], axis=1)
    classes = sigmoid(both @ weights["class_kernel"] + weights["class_bias"])
    verticals = sigmoid(h @ weights["vertical_kernel"] + weights["vertical_bias"])
    return context, classes, verticals


def make(**arguments):
    settings = {"embedding_size": E, "attention_size": A, "dtype": "float64"} | arguments
    layer = VerticalAttention(C, CLASS_VERTICALS, V, **settings)
    layer.build((None, H))
    values = np.random.default_rng(11)
    for variable in layer.trainable_weights:
        variable.assign(values.standard_normal(variable.shape))
    return layer


@pytest.fixture
def h(rng):
    return rng.standard_normal((B, H))


def test_it_is_the_reference(h):
    layer = make()
    context, classes, verticals = slow_attention(layer, h)
    np.testing.assert_allclose(
        to_numpy(layer._context(keras.ops.convert_to_tensor(h))), context, atol=1e-10
    )
    output = layer(h)
    assert set(output) == {"probabilities", "verticals"}
    # The outputs are float32 under every policy.
    np.testing.assert_allclose(to_numpy(output["probabilities"]), classes, rtol=1e-6)
    np.testing.assert_allclose(to_numpy(output["verticals"]), verticals, rtol=1e-6)
    assert {keras.backend.standardize_dtype(one.dtype) for one in output.values()} == {"float32"}


def test_two_verticals_by_hand():
    layer = VerticalAttention(1, [[1]], 2, embedding_size=1, attention_size=1)
    layer.build((None, 1))
    for weight in layer.trainable_weights:
        weight.assign(np.zeros(weight.shape))
    layer.vertical_kernel.assign([[np.log(3), 0.0]])
    layer.class_kernel.assign([[0.0], [np.log(3) / 6]])
    layer.embeddings.assign([[0.0], [8.0]])
    # Equal scores: the context is 4, the class σ(4 ln 3 / 6).
    output = layer(np.array([[1.0], [-1.0]], "float32"))
    np.testing.assert_allclose(to_numpy(output["verticals"]), [[3 / 4, 1 / 2], [1 / 4, 1 / 2]])
    expected = 3 ** (2 / 3) / (1 + 3 ** (2 / 3))
    np.testing.assert_allclose(to_numpy(output["probabilities"]), [[expected]] * 2, rtol=1e-6)
    # tanh(0) = 0, tanh(8·9) = 1: scores 0 and ln 3, weights ¼ and ¾, context 6, class σ(ln 3).
    layer.embedding_kernel.assign([[9.0]])
    layer.score_kernel.assign([[np.log(3)]])
    output = layer(np.array([[1.0]], "float32"))
    np.testing.assert_allclose(to_numpy(output["probabilities"]), [[3 / 4]], rtol=1e-6)
    # And of h: tanh(−99 h) and tanh(72 − 99 h) are both −1 at h = 1, equal again.
    layer.hidden_kernel.assign([[-99.0]])
    output = layer(np.array([[1.0]], "float32"))
    np.testing.assert_allclose(to_numpy(output["probabilities"]), [[expected]], rtol=1e-6)


def test_it_keeps_the_verticals_of_the_classes():
    layer = make()
    expected = [[1, 0, 0], [1, 0, 1], [0, 1, 0], [1, 1, 1]]
    np.testing.assert_array_equal(to_numpy(layer.class_verticals), expected)
    assert keras.backend.standardize_dtype(layer.class_verticals.dtype) == "float32"
    assert [weight.name for weight in layer.non_trainable_weights] == ["class_verticals"]


def test_it_starts_from_the_bias_and_from_different_embeddings():
    bias = [0.0, -1.0, -2.0, np.log(3)]
    layer = VerticalAttention(C, CLASS_VERTICALS, V, bias=bias)
    layer.build((None, H))
    np.testing.assert_allclose(to_numpy(layer.class_bias), bias, rtol=1e-6)
    assert 0.8 < np.std(to_numpy(layer.embeddings)) < 1.2


def test_the_penalty_is_that_of_both_heads(h):
    layer = make(l2=0.5)
    squares = [
        np.square(to_numpy(one)).sum() for one in (layer.vertical_kernel, layer.class_kernel)
    ]
    np.testing.assert_allclose(sum(to_numpy(one) for one in layer.losses), sum(squares) / 2)
    assert make().losses == []


def test_gradients_reach_every_weight(h, rng):
    layer, direction = make(), tf.constant(rng.standard_normal((B, C)), "float32")
    with tf.GradientTape() as tape:
        output = layer(h)
        loss = tf.reduce_sum(output["probabilities"] * direction)
        loss = loss + tf.reduce_sum(output["verticals"] * direction[:, :V])
    weights = layer.trainable_weights
    assert len(weights) == 10
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        assert gradient is not None, weight.path
        # The softmax over the verticals cancels a bias that is the same for each.
        if weight.name == "score_bias":
            np.testing.assert_allclose(gradient, [0], atol=1e-7)
        else:
            assert np.abs(gradient).max() > 1e-6, weight.path


@pytest.mark.parametrize("bias", [None, [0.1, 0.2, 0.3, 0.4]])
def test_it_survives_saving(bias, tmp_path, h):
    inputs = keras.Input((H,))
    layer = make(dtype="float32", l2=1e-3, bias=bias)
    output = layer(inputs)
    assert output["probabilities"].shape == (None, C)
    assert output["verticals"].shape == (None, V)
    model = keras.Model(inputs, output)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].get_config() == layer.get_config()
    batch = h.astype("float32")
    expected, found = model(batch), loaded(batch)
    for name in ("probabilities", "verticals"):
        np.testing.assert_array_equal(to_numpy(found[name]), to_numpy(expected[name]))
    np.testing.assert_array_equal(
        to_numpy(loaded.layers[-1].class_verticals), to_numpy(layer.class_verticals)
    )


def test_the_configuration_is_complete():
    rows = tuple(np.array(row) for row in CLASS_VERTICALS)
    layer = VerticalAttention(C, rows, V, 7, 8, 1e-3, name="head")
    config = layer.get_config()
    assert config["class_verticals"] == CLASS_VERTICALS
    assert {type(one) for row in config["class_verticals"] for one in row} == {int}
    again = VerticalAttention.from_config(config)
    assert again.get_config() == config
    assert (again.embedding_size, again.attention_size, again.l2) == (7, 8, 1e-3)
    name = keras.saving.get_registered_name(VerticalAttention)
    assert name == "nextvlad>VerticalAttention"


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_stays_near(policy, h):
    exact = make()(h)
    layer = make(dtype=policy)
    found = layer(h.astype("float32"))
    promised = layer(keras.KerasTensor((None, H)))
    for name, value in exact.items():
        assert keras.backend.standardize_dtype(found[name].dtype) == "float32"
        assert promised[name].dtype == "float32"
        assert np.abs(to_numpy(found[name]) - to_numpy(value)).max() < 0.02


def test_logits_are_not_rounded_to_half_precision():
    """σ(9.01): a logit of bfloat16 near 9 is a multiple of 1/16."""
    layer = VerticalAttention(1, [[0]], 2, bias=[9.01], dtype="mixed_bfloat16")
    layer.build((None, 1))
    layer.class_kernel.assign(np.zeros(layer.class_kernel.shape))
    output = to_numpy(layer(np.ones((1, 1), "float32"))["probabilities"])
    np.testing.assert_allclose(output, [[sigmoid(9.01)]], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_classes": 0}, "received 0, 3, 128, 512"),
        ({"num_verticals": 0}, "received 4, 0, 128, 512"),
        ({"embedding_size": 0}, "received 4, 3, 0, 512"),
        ({"attention_size": 0}, "received 4, 3, 128, 0"),
        ({"class_verticals": [[0]] * 3}, "expected class_verticals of 4 classes, received 3"),
        ({"class_verticals": [[0], [1], [], [2]]}, r"for class 2, received \[\]"),
        ({"class_verticals": [[0], [1, 3], [0], [2]]}, r"for class 1, received \[1, 3\]"),
        ({"class_verticals": [[-1], [1], [0], [2]]}, r"for class 0, received \[-1\]"),
        ({"class_verticals": [[1, 0, 0]] * 4}, r"each once, for class 0, received \[1, 0, 0\]"),
        ({"bias": [0.0]}, "expected 4 initial biases, received 1"),
    ],
)
def test_parameters_that_can_not_be(arguments, words):
    settings = {"num_classes": C, "class_verticals": CLASS_VERTICALS, "num_verticals": V}
    with pytest.raises(ValueError, match=words):
        VerticalAttention(**settings | arguments)
