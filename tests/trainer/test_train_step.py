"""The step: its update compiled or not, it moves the weights alike."""

import keras
import numpy as np
import tensorflow as tf

from tests.conftest import TINY_MODEL
from trainer import records, train_step
from trainer.config import ModelConfig, TrainingConfig
from trainer.losses import make_loss
from trainer.models import build_model
from trainer.optimizer import make_optimizer


def weights_after_two_steps():
    keras.utils.set_random_seed(4)
    model = build_model(ModelConfig(**TINY_MODEL | {"name": "logistic"}), 5, records.VIDEO)
    optimizer = make_optimizer(TrainingConfig(), model, 10)
    start = [weight.numpy() for weight in model.weights]
    step = train_step.make_train_step(model, optimizer, make_loss(TrainingConfig()))
    rng = np.random.default_rng(1)
    features = {
        "mean_rgb": tf.constant(rng.standard_normal((4, 1024)), tf.float32),
        "mean_audio": tf.constant(rng.standard_normal((4, 128)), tf.float32),
    }
    labels = tf.constant(rng.integers(0, 2, (4, 5)), tf.float32)
    for _ in range(2):
        step(features, labels)
    return start, [weight.numpy() for weight in model.weights]


def test_a_compiled_update_moves_the_weights_alike(monkeypatch):
    start, expected = weights_after_two_steps()
    monkeypatch.setattr(train_step, "COMPILED_UPDATE", 0)
    for before, one, other in zip(start, expected, weights_after_two_steps()[1], strict=True):
        assert np.abs(one - before).max() > 1e-5
        np.testing.assert_allclose(one, other, atol=1e-6)
