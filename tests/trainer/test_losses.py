"""The losses: worked by hand, and against plain loops."""

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy
from keras.ops import convert_to_tensor as tensor

from trainer import losses
from trainer.losses import (
    asymmetric,
    cross_entropy,
    focal,
    make_loss,
    smoothed,
    training_loss,
    vertical_targets,
)

LN2, LN4, LN5 = math.log(2), math.log(4), math.log(5)

TRAINING = {
    "loss": "cross_entropy", "label_smoothing": 0.0, "focal_gamma": 1.0, "focal_alpha": 0.6,
    "asymmetric_gamma_positive": 1.0, "asymmetric_gamma_negative": 3.0, "asymmetric_margin": 0.1,
}  # fmt: skip


def settings(**changes):
    return SimpleNamespace(**TRAINING | changes)


def slow_loss(labels, probabilities, positive, negative):
    """Video by video and class by class; `positive` and `negative` are costs of a probability."""
    videos = []
    for ys, ps in zip(labels, probabilities, strict=True):
        cost = 0.0
        for y, p in zip(ys, ps, strict=True):
            cost += float(y) * positive(float(p)) + (1 - float(y)) * negative(float(p))
        videos.append(cost)
    return sum(videos) / len(videos)


def slow_cross_entropy(labels, probabilities):
    return slow_loss(labels, probabilities, lambda p: -math.log(p), lambda p: -math.log(1 - p))


def slow_focal(labels, probabilities, gamma, alpha):
    return slow_loss(
        labels,
        probabilities,
        lambda p: -alpha * (1 - p) ** gamma * math.log(p),
        lambda p: -(1 - alpha) * p**gamma * math.log(1 - p),
    )


def slow_asymmetric(labels, probabilities, gamma_positive, gamma_negative, margin):
    def negative(p):
        shifted = p - margin
        return -(shifted**gamma_negative) * math.log(1 - shifted) if shifted > 0 else 0.0

    return slow_loss(
        labels, probabilities, lambda p: -((1 - p) ** gamma_positive) * math.log(p), negative
    )


@pytest.fixture(params=["hard", "soft"])
def batch(request, rng):
    """Labels and probabilities, float64 [5,7]."""
    labels = rng.random((5, 7))
    if request.param == "hard":
        labels = (labels < 0.3).astype("float64")
    return labels, rng.uniform(0.001, 0.999, (5, 7))


def test_cross_entropy_by_hand():
    # ln 4 + ln 2 and ln 5 + ln 2 (a half label at ½), averaged
    labels, probabilities = [[1.0, 0.0], [0.0, 0.5]], [[0.25, 0.5], [0.8, 0.5]]
    loss = to_numpy(cross_entropy(tensor(labels), tensor(probabilities)))
    np.testing.assert_allclose(loss, (LN4 + LN2 + LN5 + LN2) / 2, rtol=1e-6)


def test_focal_by_hand():
    # A positive at ¼: ¼ · (¾)² · ln 4. A negative at ½: ¾ · (½)² · ln 2.
    loss = to_numpy(focal(tensor([[1.0, 0.0]]), tensor([[0.25, 0.5]])))
    np.testing.assert_allclose(loss, 9 / 64 * LN4 + 3 / 16 * LN2, rtol=1e-6)
    # A half label at ½ is the mean of the two: ½ · (¼ + ¾) · (½)² · ln 2
    loss = to_numpy(focal(tensor([[0.5]]), tensor([[0.5]])))
    np.testing.assert_allclose(loss, LN2 / 8, rtol=1e-6)


def test_asymmetric_by_hand():
    # A positive at ¼ costs ln 4. Negatives: at 0.55 it is (½)⁴ ln 2; at 0.04 nothing.
    labels, probabilities = tensor([[1.0, 0.0, 0.0]]), tensor([[0.25, 0.55, 0.04]])
    np.testing.assert_allclose(
        to_numpy(asymmetric(labels, probabilities)), LN4 + LN2 / 16, rtol=1e-6
    )
    # γ₊ = 2, γ₋ = 1, m = 0.3: (¾)² ln 4, ¼ ln(4/3), 0
    np.testing.assert_allclose(
        to_numpy(asymmetric(labels, probabilities, 2.0, 1.0, 0.3)),
        9 / 16 * LN4 + math.log(4 / 3) / 4,
        rtol=1e-6,
    )
    assert float(asymmetric(tensor([[0.0, 0.0]]), tensor([[0.0, 0.05]]))) == 0


def test_smoothed_by_hand():
    np.testing.assert_allclose(to_numpy(smoothed([[0, 1]], 0.2)), [[0.1, 0.9]], rtol=1e-6)
    labels = np.array([[0.0, 0.3, 1.0]], "float32")
    np.testing.assert_array_equal(to_numpy(smoothed(labels, 0.0)), labels)


def test_smoothing_is_that_of_keras(batch):
    labels, probabilities = (values.astype("float32") for values in batch)
    theirs = keras.losses.BinaryCrossentropy(label_smoothing=0.1)(labels, probabilities)
    ours = make_loss(settings(label_smoothing=0.1))(labels, probabilities)
    # Keras takes the mean over the 7 classes.
    np.testing.assert_allclose(to_numpy(ours), 7 * to_numpy(theirs), rtol=1e-5)


def test_cross_entropy_is_the_slow_one(batch):
    np.testing.assert_allclose(
        to_numpy(cross_entropy(*batch)), slow_cross_entropy(*batch), rtol=1e-12
    )


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (0.5, 0.9), (3.0, 1.0)])
def test_focal_is_the_slow_one(batch, gamma, alpha):
    np.testing.assert_allclose(
        to_numpy(focal(*batch, gamma, alpha)), slow_focal(*batch, gamma, alpha), rtol=1e-12
    )


@pytest.mark.parametrize("options", [(0.0, 4.0, 0.05), (1.0, 2.0, 0.0), (0.5, 0.5, 0.4)])
def test_asymmetric_is_the_slow_one(batch, options):
    np.testing.assert_allclose(
        to_numpy(asymmetric(*batch, *options)), slow_asymmetric(*batch, *options), rtol=1e-12
    )


def test_without_focus_they_are_the_cross_entropy(batch):
    expected = to_numpy(cross_entropy(*batch))
    np.testing.assert_allclose(to_numpy(focal(*batch, 0.0, 0.5)), expected / 2, rtol=1e-12)
    np.testing.assert_array_equal(to_numpy(asymmetric(*batch, 0.0, 0.0, 0.0)), expected)


@pytest.mark.parametrize(
    "loss",
    [
        cross_entropy,
        focal,
        lambda y, p: focal(y, p, 0.5),
        asymmetric,
        lambda y, p: asymmetric(y, p, 0.0, 0.0, 0.0),
        # Powers below 1 have an endless slope at 0.
        lambda y, p: asymmetric(y, p, 0.5, 0.5, 0.0),
        lambda y, p: asymmetric(y, p, 0.5, 0.5, 0.05),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_saturated_probabilities_have_finite_losses_and_gradients(loss, dtype):
    p = tf.constant([[0.0, 1.0, 0.0, 1.0, 0.05, 0.0]], dtype)
    labels = tf.constant([[0.0, 0.0, 1.0, 1.0, 0.0, 0.5]])
    with tf.GradientTape() as tape:
        tape.watch(p)
        value = loss(labels, p)
    gradient = tape.gradient(value, p)
    assert np.isfinite(float(value))
    assert float(value) > 0
    assert gradient.dtype == p.dtype
    assert np.isfinite(to_numpy(tf.cast(gradient, "float64"))).all()


def test_gradients_lower_what_is_wrong():
    labels, p = tf.constant([[1.0, 0.0]]), tf.constant([[0.4, 0.6]])
    for loss in (cross_entropy, focal, asymmetric):
        with tf.GradientTape() as tape:
            tape.watch(p)
            value = loss(labels, p)
        np.testing.assert_array_equal(np.sign(tape.gradient(value, p)), [[-1, 1]])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float32", "float32"),
     ("float64", "float64")],
)  # fmt: skip
@pytest.mark.parametrize("loss", [cross_entropy, focal, asymmetric])
def test_the_probabilities_decide_on_the_precision(loss, dtype, expected):
    p = tf.cast(tf.fill((1, 1000), 2.0**-10), dtype)  # that all four types can hold
    labels = np.zeros((1, 1000))  # float64
    value = loss(labels, p)
    assert keras.backend.standardize_dtype(value.dtype) == expected
    np.testing.assert_allclose(
        to_numpy(value), to_numpy(loss(labels, tf.cast(p, "float64"))), rtol=1e-5
    )


def test_make_loss_picks_the_loss_and_its_parameters(batch):
    for changes, expected in (
        ({"loss": "cross_entropy"}, slow_cross_entropy(*batch)),
        ({"loss": "focal"}, slow_focal(*batch, 1.0, 0.6)),
        ({"loss": "asymmetric"}, slow_asymmetric(*batch, 1.0, 3.0, 0.1)),
    ):
        np.testing.assert_allclose(
            to_numpy(make_loss(settings(**changes))(*batch)), expected, rtol=1e-12
        )


@pytest.mark.parametrize("name", losses.LOSSES)
def test_make_loss_smooths_the_labels(batch, name):
    labels, probabilities = batch
    np.testing.assert_allclose(
        to_numpy(make_loss(settings(loss=name, label_smoothing=0.2))(labels, probabilities)),
        to_numpy(make_loss(settings(loss=name))(labels * 0.8 + 0.1, probabilities)),
        rtol=1e-12,
    )


def test_a_loss_that_can_not_be():
    with pytest.raises(ValueError, match=r"expected loss of cross_entropy, .* received 'hinge'$"):
        make_loss(settings(loss="hinge"))


def test_vertical_targets_by_hand():
    class_verticals = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], "uint8")
    labels = [[1, 1, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_array_equal(
        to_numpy(vertical_targets(labels, class_verticals)), [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    )
    # Soft labels add up, to 1 at most.
    soft = to_numpy(vertical_targets([[0.75, 0.5, 0.25]], class_verticals))
    np.testing.assert_array_equal(soft, [[1, 0.75, 0]])


def test_hard_labels_have_multi_hot_verticals(rng):
    labels = (rng.random((20, 30)) < 0.1).astype("float32")
    class_verticals = (rng.random((30, 6)) < 0.2).astype("float32")
    expected = [
        [float(any(y and row[v] for y, row in zip(video, class_verticals, strict=True)))
         for v in range(6)]
        for video in labels
    ]  # fmt: skip
    np.testing.assert_array_equal(to_numpy(vertical_targets(labels, class_verticals)), expected)


def test_training_loss_by_hand():
    labels, half = tensor([[1.0, 0.0]]), tensor([[0.5, 0.5]])
    outputs = {
        "probabilities": half,  # 2 ln 2
        "branches": tensor([[[0.25, 0.5], [0.5, 0.75]]]),  # ln 4 + ln 2 and ln 2 + ln 4: 6 ln 2
        "verticals": tensor([[0.2, 0.5]]),  # targets 1 and 0: ln 5 + ln 2
    }
    class_verticals = [[1, 0], [0, 1]]

    def loss_of(*names):
        some = {name: outputs[name] for name in ("probabilities", *names)}
        return to_numpy(training_loss(cross_entropy, labels, some, class_verticals))

    plain = to_numpy(training_loss(cross_entropy, labels, half))
    np.testing.assert_allclose(plain, 2 * LN2, rtol=1e-6)
    np.testing.assert_allclose(loss_of(), 2 * LN2, rtol=1e-6)
    np.testing.assert_allclose(loss_of("branches"), 8 * LN2, rtol=1e-6)
    np.testing.assert_allclose(loss_of("verticals"), LN5 + LN2 + 2 * 2 * LN2, rtol=1e-6)
    np.testing.assert_allclose(loss_of("branches", "verticals"), LN5 + LN2 + 2 * 8 * LN2, rtol=1e-6)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_training_loss_is_the_slow_one(batch, name, rng):
    labels, probabilities = batch
    branches = rng.uniform(0.001, 0.999, (5, 3, 7))
    verticals = rng.uniform(0.001, 0.999, (5, 4))
    class_verticals = (rng.random((7, 4)) < 0.4).astype("float64")

    def slow_class_loss(p):
        y = labels * 0.9 + 0.05
        if name == "focal":
            return slow_focal(y, p, 1.0, 0.6)
        if name == "asymmetric":
            return slow_asymmetric(y, p, 1.0, 3.0, 0.1)
        return slow_cross_entropy(y, p)

    targets = np.zeros((5, 4))
    for b in range(5):
        for v in range(4):
            targets[b, v] = min(1.0, sum(labels[b, c] * class_verticals[c, v] for c in range(7)))
    expected = slow_class_loss(probabilities)
    for m in range(3):
        expected += slow_class_loss([video[m] for video in branches])
    expected = slow_cross_entropy(targets, verticals) + 2 * expected

    outputs = {"probabilities": probabilities, "branches": branches, "verticals": verticals}
    class_loss = make_loss(settings(loss=name, label_smoothing=0.1))
    loss = training_loss(class_loss, labels, outputs, class_verticals)
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=1e-12)


def test_training_loss_of_a_compiled_step(rng):
    """With a batch size that is not known, as in training."""
    labels = (rng.random((4, 7)) < 0.3).astype("float32")
    outputs = {
        name: rng.uniform(0.01, 0.99, shape).astype("float32")
        for name, shape in (
            ("probabilities", (4, 7)), ("branches", (4, 3, 7)), ("verticals", (4, 2)),
        )
    }  # fmt: skip
    class_verticals = (rng.random((7, 2)) < 0.5).astype("float32")
    class_loss = make_loss(settings(loss="asymmetric"))

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 7)),
            {name: tf.TensorSpec((None, *value.shape[1:])) for name, value in outputs.items()},
        ]
    )
    def step(labels, outputs):
        return training_loss(class_loss, labels, outputs, class_verticals)

    np.testing.assert_allclose(
        step(labels, outputs),
        to_numpy(training_loss(class_loss, labels, outputs, class_verticals)),
        rtol=1e-5,
    )


def test_verticals_without_their_classes():
    half = tensor([[0.5]])
    with pytest.raises(ValueError, match=r"expected class_verticals .* received None$"):
        training_loss(cross_entropy, half, {"probabilities": half, "verticals": half})
