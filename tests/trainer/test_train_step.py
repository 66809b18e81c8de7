"""The step: what it adds up, clips, averages and compiles, on one device and on two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import TINY_MODEL
from trainer import records, train_step
from trainer.config import ModelConfig, TrainingConfig
from trainer.errors import InputError
from trainer.losses import make_loss
from trainer.models import build_model
from trainer.train_step import GRADIENT_NORM, LOSS, SAVE, STOP, TrainStep

ROOT = Path(__file__).resolve().parents[2]
CLASSES, VIDEOS, RATE = 5, 8, 0.5


class Case:
    """A logistic model on video-level features: its gradient can be written down."""

    def __init__(self, **training):
        keras.utils.set_random_seed(4)
        name = training.pop("name", "logistic")
        self.training = TrainingConfig(**{"clip_norm": 1e9} | training)
        policy = self.training.precision
        keras.config.set_dtype_policy(policy if policy == "float32" else f"mixed_{policy}")
        config = ModelConfig(**TINY_MODEL | {"name": name, "dropout": 0.0, "classifier_l2": 0.0})
        self.model = build_model(config, CLASSES, records.VIDEO)
        keras.config.set_dtype_policy("float32")
        optimizer = keras.optimizers.SGD(RATE)
        optimizer.build(self.model.trainable_variables)
        self.step = TrainStep(self.model, optimizer, make_loss(self.training), self.training)
        rng = np.random.default_rng(1)
        self.features = {
            "mean_rgb": rng.standard_normal((VIDEOS, 1024)).astype(np.float32),
            "mean_audio": rng.standard_normal((VIDEOS, 128)).astype(np.float32),
        }
        self.labels = rng.integers(0, 2, (VIDEOS, CLASSES)).astype(np.float32)
        self.weights = None

    def run(self, scale=1.0, signals=(0.0, 0.0)):
        features = {name: tf.constant(value * scale) for name, value in self.features.items()}
        weights = None if self.weights is None else tf.constant(self.weights)
        return self.step(features, tf.constant(self.labels), weights, tf.constant(signals)).numpy()

    def values(self):
        return [weight.numpy() for weight in self.model.trainable_variables]

    def gradient(self):
        """Of kernel [1152,C] and bias [C], by hand: xᵀ(p − y)/B and Σ(p − y)/B, float64."""
        kernel, bias = (value.astype(np.float64) for value in self.values())
        x = np.concatenate([self.features["mean_rgb"], self.features["mean_audio"]], axis=1)
        x = x.astype(np.float64)
        x *= np.sqrt(x.shape[1]) / np.linalg.norm(x, axis=1, keepdims=True)
        error = 1 / (1 + np.exp(-(x @ kernel + bias))) - self.labels
        error *= 1 if self.weights is None else self.weights
        return x.T @ error / VIDEOS, error.sum(axis=0) / VIDEOS


def norm_of(gradients):
    return np.sqrt(sum(np.square(one).sum() for one in gradients))


@pytest.mark.parametrize("clip_norm", [1e9, 0.1])
@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("jit", ["auto", "on"])
def test_the_update_by_hand(clip_norm, parts, jit):
    case = Case(clip_norm=clip_norm, accumulation_steps=parts, jit=jit)
    before, gradient = case.values(), case.gradient()
    result = case.run()
    norm = norm_of(gradient)
    assert result[GRADIENT_NORM] == pytest.approx(norm, rel=1e-5)
    factor = RATE * min(1, clip_norm / norm)
    for old, new, one in zip(before, case.values(), gradient, strict=True):
        np.testing.assert_allclose(new, old - factor * one, atol=1e-6)


def test_pairs_without_weight_do_not_count():
    case = Case()
    case.weights = np.zeros_like(case.labels)
    case.weights[1, 2] = case.weights[5, 0] = 1
    before, gradient = case.values(), case.gradient()
    case.run()
    for old, new, one in zip(before, case.values(), gradient, strict=True):
        np.testing.assert_allclose(new, old - RATE * one, atol=1e-6)


def test_signals_come_back():
    result = Case().run(signals=(1.0, 0.0))
    assert (result[SAVE], result[STOP]) == (1, 0)
    result = Case().run(signals=(0.0, 1.0))
    assert (result[SAVE], result[STOP]) == (0, 1)


def test_averages_of_the_weights_by_hand():
    case = Case(ema_decay=0.4)
    averages = case.values()
    for number in range(1, 7):
        case.run()
        decay = min(0.4, (1 + number) / (10 + number))
        averages = [
            decay * average + (1 - decay) * value
            for average, value in zip(averages, case.values(), strict=True)
        ]
        for average, expected in zip(case.step.averages, averages, strict=True):
            np.testing.assert_allclose(average.numpy(), expected, atol=1e-6)
    assert Case().step.averages == []


def test_a_compiled_update_moves_the_weights_alike(monkeypatch):
    plain = Case(name="mlp", ema_decay=0.9)
    start = plain.values()
    monkeypatch.setattr(train_step, "COMPILED_UPDATE", 0)
    compiled = Case(name="mlp", ema_decay=0.9)
    for _ in range(2):
        plain.run()
        compiled.run()
    for before, one, other in zip(start, plain.values(), compiled.values(), strict=True):
        assert np.abs(one - before).max() > 1e-5
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 0.03), ("float16", 0.005)])
def test_half_precision_learns_about_the_same(precision, error):
    half, single = Case(name="mlp", precision=precision), Case(name="mlp")
    first, expected = half.run(), single.run()
    np.testing.assert_allclose(first, expected, rtol=error)
    assert all(weight.dtype == "float32" for weight in half.model.weights)
    for _ in range(20):
        last, other = half.run(), single.run()
    assert last[LOSS] == pytest.approx(other[LOSS], rel=0.1, abs=0.05)
    assert last[LOSS] < 0.8 * first[LOSS]


def test_a_gradient_that_overflows_in_float16_is_left_out(monkeypatch):
    case = Case(name="mlp", precision="float16")
    case.run()
    before = case.values()
    case.step.loss_scale.assign(1e30)
    result = case.run()
    assert np.isfinite(result[LOSS])
    assert not np.isfinite(result[GRADIENT_NORM])
    for old, new in zip(before, case.values(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert case.step.loss_scale.numpy() == np.float32(5e29)
    assert case.step.finite_steps.numpy() == 0
    case.step.loss_scale.assign(64.0)
    assert np.isfinite(case.run()[GRADIENT_NORM])
    assert (case.step.finite_steps.numpy(), case.step.loss_scale.numpy()) == (1, 64)
    case.step.finite_steps.assign(train_step.LOSS_SCALE_STEPS - 1)
    case.run()
    assert (case.step.finite_steps.numpy(), case.step.loss_scale.numpy()) == (0, 128)


def test_other_precisions_scale_nothing():
    case = Case(precision="bfloat16")
    case.run()
    assert case.step.loss_scale.numpy() == 1


class TwoReplicas:
    """As much of a strategy as is looked at before anything is made."""

    num_replicas_in_sync = 2


def test_several_replicas_are_not_compiled_whole():
    case = Case()
    with pytest.raises(InputError, match=r"training.jit is 'on', expected 'auto' or 'off' on 2"):
        TrainStep(case.model, case.step.optimizer, None, TrainingConfig(jit="on"), TwoReplicas())


def curves_of(names):
    """What `replica_curves` prints of its cases."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.replica_curves", *names],
        cwd=ROOT, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["in parts, averaged"], marks=pytest.mark.slow),
        pytest.param(
            ["adam", "sgd", "sgd, not clipped", "weight decay", "mixture", "verticals"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_replicas_have_the_curve_of_one(names):
    """Fifty steps, for what is summed over parts or replicas."""
    curves = curves_of(names)
    assert list(curves) == names
    for name, (alone, mirrored, furthest) in curves.items():
        assert alone[-1] < 0.9 * alone[0], name
        np.testing.assert_allclose(mirrored, alone, rtol=1e-4, err_msg=name)
        assert furthest < 1e-3, name


@pytest.mark.slow
def test_two_replicas_have_about_the_curve_of_one_in_float16():
    """Ten steps, each batch twice, which is as far as rounding has not added up.

    Products are rounded to float16, a gradient's after all videos on one device and after half of
    them on each of two: off by 2⁻¹¹ at most. The loss is a mean over many of those, and what
    gradients changed in it is less than all of it: it shall be no farther off than one rounding.
    """
    ((alone, mirrored, _),) = curves_of(["float16"]).values()
    first, second = np.split(np.array(alone[:10]), 2)
    assert (second < 0.9 * first).all()  # no step was left out
    np.testing.assert_allclose(mirrored[:10], alone[:10], rtol=2**-11)
