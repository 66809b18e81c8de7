"""The step: alone or with replicas, its update compiled or not, it moves the weights alike."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import TINY_MODEL
from trainer import records, train_step
from trainer.config import ModelConfig, TrainingConfig
from trainer.losses import make_loss
from trainer.models import build_model
from trainer.optimizer import make_optimizer


def weights_after_two_steps(strategy=None):
    keras.utils.set_random_seed(4)
    scope = strategy.scope() if strategy else tf.init_scope()
    with scope:
        model = build_model(ModelConfig(**TINY_MODEL | {"name": "logistic"}), 5, records.VIDEO)
        optimizer = make_optimizer(TrainingConfig(), model, 10)
        step = train_step.make_train_step(model, optimizer, make_loss(TrainingConfig()))
    rng = np.random.default_rng(1)
    features = {
        "mean_rgb": tf.constant(rng.standard_normal((4, 1024)), tf.float32),
        "mean_audio": tf.constant(rng.standard_normal((4, 128)), tf.float32),
    }
    labels = tf.constant(rng.integers(0, 2, (4, 5)), tf.float32)
    for _ in range(2):
        if strategy:
            strategy.run(step, args=(features, labels))
        else:
            step(features, labels)
    return [weight.numpy() for weight in model.weights]


@pytest.mark.parametrize("how", ["compiled", "one replica"])
def test_the_weights_are_the_same(how, monkeypatch):
    expected = weights_after_two_steps()
    monkeypatch.setattr(train_step, "COMPILED_UPDATE", 0)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0") if how == "one replica" else None
    for one, other in zip(expected, weights_after_two_steps(strategy), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
