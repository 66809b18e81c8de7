"""Weights of half the bytes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.cases import batch_of, every_case
from trainer.errors import InputError
from trainer.half_weights import HalfWeights
from trainer.inference_model import inference_model
from trainer.models import probabilities

CASES, _ = every_case()


@pytest.fixture
def dense():
    """One weight and one bias."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="head")])
    model.set_weights([np.array([[1 / 3]], np.float32), np.array([2049.0], np.float32)])
    return model


def test_weights_are_the_nearest_of_float16(dense):
    """Around 1/3 float16 has a number every 2⁻¹², around 2,049 every other whole one."""
    half = HalfWeights(dense)
    kernel, bias = dense.get_weights()
    assert kernel.dtype == np.float32
    assert kernel.tolist() == [[1365 / 4096]]
    assert bias.tolist() == [2048.0]
    # What is stored counts, not what the model in memory has by now.
    dense.set_weights([np.zeros((1, 1)), np.zeros(1)])
    assert half.network()(np.array([[4096.0]], np.float32)).numpy().tolist() == [[1365 + 2048.0]]


@pytest.mark.parametrize("value", [70000.0, -65520.0, np.nan, np.inf])
def test_a_weight_that_it_has_no_number_for(dense, value):
    dense.set_weights([np.array([[value]], np.float32), np.zeros(1)])
    with pytest.raises(InputError, match=rf"head/kernel has a weight of {value:g}, expected"):
        HalfWeights(dense)
    assert dense.get_weights()[0].item() == pytest.approx(value, nan_ok=True)


def test_the_largest_is_taken(dense):
    dense.set_weights([np.array([[65504.0]], np.float32), np.zeros(1)])
    HalfWeights(dense)
    assert dense.get_weights()[0].tolist() == [[65504.0]]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_model_is_computed_from_what_is_stored(case):
    served = inference_model(case.build())
    inputs, _ = batch_of(case.level)
    half = HalfWeights(served)
    found = tf.function(lambda features: probabilities(half.network()(features)))(inputs)
    np.testing.assert_allclose(found, probabilities(served(inputs)), atol=1e-6)
