import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.ops import convert_to_numpy as to_numpy

from trainer.layers import DistilledMixture

TAU = 2.0
# One video, two branches, two classes; the mixture's softened softmax is (¾, ¼).
LOGITS = np.array([[[0.0, 0.0], [2 * TAU * np.log(3), 0.0]]])
GATES = np.array([[0.5, 0.5]])
# Of (½, ½) and of (9/10, 1/10).
DIVERGENCES = (
    0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5),
    0.75 * np.log(0.75 / 0.9) + 0.25 * np.log(0.25 / 0.1),
)


def loss_of(layer, logits=LOGITS, gates=GATES):
    layer((keras.ops.convert_to_tensor(logits), keras.ops.convert_to_tensor(gates)), training=True)
    (loss,) = layer.losses
    return loss


def test_gated_logits_by_hand():
    outputs = DistilledMixture(dtype="float64")((LOGITS, GATES))
    # σ(2 ln 3) = 9/10 and σ(4 ln 3) = 81/82
    np.testing.assert_allclose(to_numpy(outputs["probabilities"]), [[9 / 10, 1 / 2]])
    expected = [[[1 / 2, 1 / 2], [81 / 82, 1 / 2]]]
    np.testing.assert_allclose(to_numpy(outputs["branches"]), expected)
    outputs = DistilledMixture(dtype="float64")((LOGITS, np.array([[0.75, 0.25]])))
    np.testing.assert_allclose(to_numpy(outputs["probabilities"]), [[3 / 4, 1 / 2]])


def test_divergence_by_hand():
    layer = DistilledMixture(weight=3.0, temperature=TAU, dtype="float64")
    np.testing.assert_allclose(float(loss_of(layer)), 3 * sum(DIVERGENCES))


def test_the_divergence_is_a_mean_over_videos_and_none_where_branches_agree():
    agreed = np.array([[[5.0, -1.0], [5.0, -1.0]]])
    logits = np.concatenate([LOGITS, agreed])
    layer = DistilledMixture(dtype="float64")
    found = float(loss_of(layer, logits, np.repeat(GATES, 2, axis=0)))
    np.testing.assert_allclose(found, sum(DIVERGENCES) / 2)
    np.testing.assert_allclose(float(loss_of(layer, agreed)), 0, atol=1e-12)


def test_without_training_or_weight_there_is_no_loss():
    for layer, training in ((DistilledMixture(), False), (DistilledMixture(weight=0), True)):
        layer((LOGITS, GATES), training=training)
        assert not layer.losses


def test_the_gradient_reaches_the_mixture():
    """The gates are in the teacher alone: they have a gradient only if the teacher has one."""
    layer = DistilledMixture(temperature=TAU, dtype="float64")
    start = LOGITS, np.array([[0.75, 0.25]])  # at equal gates the sum of the divergences is least
    logits, gates = map(tf.constant, start)
    with tf.GradientTape() as tape:
        tape.watch((logits, gates))
        loss = loss_of(layer, logits, gates)
    for place, gradient in enumerate(tape.gradient(loss, (logits, gates))):
        assert np.abs(gradient).max() > 0.01
        for index in np.ndindex(*gradient.shape):
            values = []
            for step in (1e-6, -1e-6):
                moved = [start[0].copy(), start[1].copy()]
                moved[place][index] += step
                values.append(float(loss_of(layer, *moved)))
            slope = (values[0] - values[1]) / 2e-6
            np.testing.assert_allclose(gradient[index], slope, atol=1e-7)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_all_is_float32_in_half_precision(policy):
    layer = DistilledMixture(temperature=TAU, dtype=policy)
    outputs = layer((LOGITS.astype("float32"), GATES.astype("float32")), training=True)
    values = [*outputs.values(), *layer.losses]
    assert [value.dtype for value in values] == [tf.float32] * 3
    # 4 ln 3 is rounded, nothing after it.
    np.testing.assert_allclose(float(values[-1]), sum(DIVERGENCES), rtol=0.02)


@pytest.mark.parametrize("arguments", [{"weight": -1.0}, {"temperature": 0.0}])
def test_parameters_that_can_not_be(arguments):
    with pytest.raises(ValueError, match=r"expected weight .* received"):
        DistilledMixture(**arguments)
