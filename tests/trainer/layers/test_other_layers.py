"""The small layers, each by hand."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy
from keras.ops import convert_to_tensor as tensor

from trainer import records
from trainer.layers import ContextGating, FeatureNormalization, MaskedMean, MixtureOfExperts


def test_context_gating_by_hand():
    layer = ContextGating(reduction=2, dtype="float64")
    layer.build((None, 2))
    layer.squeeze.kernel.assign([[1.0], [1.0]])
    layer.excite.kernel.assign([[0.0, np.log(3.0) * np.sqrt(1.001)]])
    # squeeze(1, 0) = 1, batch norm at its start divides by √1.001; gates σ(0) and σ(ln 3) = ¾
    np.testing.assert_allclose(to_numpy(layer(tensor([[1.0, 4.0]])))[0, 0], 0.5)
    np.testing.assert_allclose(to_numpy(layer(tensor([[1.0, 0.0]]))), [[0.5, 0.0]], atol=1e-12)
    np.testing.assert_allclose(to_numpy(layer(tensor([[0.0, 1.0]]))), [[0.0, 0.75]], atol=1e-12)
    # Nothing negative comes through the bottleneck: both gates are σ(0).
    np.testing.assert_allclose(to_numpy(layer(tensor([[-1.0, -2.0]]))), [[-0.5, -1.0]])


def test_masked_mean_by_hand():
    x = np.array([[[1.0], [3.0], [100.0]], [[5.0], [100.0], [100.0]]], "float32")
    mask = np.array([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(to_numpy(MaskedMean()(x, mask=mask)), [[2], [5]])
    np.testing.assert_allclose(to_numpy(MaskedMean()(x[:1, :2])), [[2]])


def test_mixture_of_experts_by_hand():
    layer = MixtureOfExperts(2, num_mixtures=2, bias=[0.0, np.log(3)])
    layer.build((None, 1))
    layer.gates.assign(np.zeros(layer.gates.shape))
    layer.experts.assign(np.zeros(layer.experts.shape))
    # Three equal gates, one of them off: ⅔ of σ(0) = ½ and of σ(ln 3) = ¾
    np.testing.assert_allclose(to_numpy(layer(tensor([[1.0]]))), [[1 / 3, 1 / 2]], rtol=1e-6)
    layer.gates.assign([[0.0, 0.0, -50.0, 0.0, 0.0, 0.0]])  # class 0: off gate closed
    np.testing.assert_allclose(to_numpy(layer(tensor([[1.0]]))), [[1 / 2, 1 / 2]], rtol=1e-6)


@pytest.mark.parametrize(("name", "length"), [("youtube8m_l2", 1.0), ("scaled_l2", 1152**0.5)])
def test_normalised_frames_have_their_length(name, length, rng):
    rgb = rng.integers(0, 256, (2, 3, 1024), dtype=np.uint8)
    audio = rng.integers(0, 256, (2, 3, 128), dtype=np.uint8)
    output = to_numpy(FeatureNormalization(name)((rgb, audio)))
    np.testing.assert_allclose(np.linalg.norm(output, axis=-1), length, rtol=1e-5)
    plain = records.dequantise(np.concatenate([rgb, audio], -1))
    expected = length * plain / np.linalg.norm(plain, axis=-1, keepdims=True)
    np.testing.assert_allclose(output, expected, atol=1e-6 * length)


def test_without_normalisation_codes_are_dequantised_alone():
    codes = np.arange(256, dtype=np.uint8)[None]
    output = to_numpy(FeatureNormalization("none")((codes, codes)))
    np.testing.assert_allclose(output[0, :256], records.dequantise(codes[0]), atol=2e-6)
    means = np.ones((1, 4), "float32")
    output = FeatureNormalization("none", quantised=False)((means, 2 * means))
    np.testing.assert_array_equal(to_numpy(output), [[1, 1, 1, 1, 2, 2, 2, 2]])


@pytest.mark.parametrize(
    "make",
    [
        lambda: MixtureOfExperts(0),
        lambda: MixtureOfExperts(2, bias=[0.0]),
        lambda: ContextGating(0),
        lambda: FeatureNormalization("l3"),
    ],
)
def test_parameters_that_can_not_be(make):
    with pytest.raises(ValueError, match=r"expected .* received"):
        make()


def test_configurations_are_complete():
    for layer in (
        ContextGating(4, 0.9),
        FeatureNormalization("scaled_l2", quantised=False),
        MaskedMean(),
        MixtureOfExperts(5, 3, 1e-4),
    ):
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        assert keras.saving.get_registered_name(type(layer)).startswith("nextvlad>")
