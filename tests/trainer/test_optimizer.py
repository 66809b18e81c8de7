"""Optimisers by name and their learning rate, against plain Python."""

import fractions
import inspect
import json
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import OPTIMIZERS, TrainingConfig
from trainer.errors import InputError
from trainer.optimizer import (
    CLASSES,
    ELSEWHERE,
    LIMITS,
    ExamplesStaircase,
    check_optimizer,
    learning_rate_schedule,
    make_optimizer,
)

TRAINING = TrainingConfig(schedule="constant", learning_rate=0.1)
GRADIENTS = ([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]], [0.2, -0.1])


def with_(**changes):
    return TrainingConfig(**{"schedule": "constant", "learning_rate": 0.1} | changes)


def tiny_model(weights=None):
    """A kernel [3,2] and a bias [2]."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, bias_initializer="ones")])
    if weights is not None:
        model.set_weights(weights)
    return model


def after_a_step(training, weights=None):
    """Kernel and bias after one step on `GRADIENTS`."""
    model = tiny_model(weights)
    optimizer = make_optimizer(training, model, 10)
    optimizer.apply([keras.ops.convert_to_tensor(one) for one in GRADIENTS])
    return model.get_weights()


def by_hand(schedule, steps, rate=0.1, decay=0.7, warmup=0.25, every=97, batch=8):
    """The learning rate of each step, in exact or double numbers."""

    def cosine(step):
        warm = round(warmup * steps)
        if step < warm:
            return rate * step / warm
        return rate * (1 + math.cos(math.pi * min(1, (step - warm) / (steps - warm)))) / 2

    def staircase(step):
        stairs = 0
        while (stairs + 1) * every <= step * batch:
            stairs += 1
        return float(fractions.Fraction(rate) * fractions.Fraction(decay) ** stairs)

    return {"constant": lambda _: rate, "cosine": cosine, "staircase": staircase}[schedule]


@pytest.mark.parametrize("warmup", [0.0, 0.25])
@pytest.mark.parametrize("schedule", ["constant", "staircase", "cosine"])
def test_schedules_are_their_formulas_at_every_step(schedule, warmup):
    steps = 150
    training = with_(
        schedule=schedule, decay=0.7, decay_examples=97, batch_size=8, warmup=warmup
    )  # 97 examples are 12.125 steps
    rate = learning_rate_schedule(training, steps)
    expected = by_hand(schedule, steps, warmup=warmup)
    for step in range(steps + 5):
        found = float(rate(step)) if callable(rate) else rate
        assert found == pytest.approx(expected(step), rel=2e-6, abs=1e-8), step


def test_the_author_s_first_stair_is_at_its_very_step():
    rate = learning_rate_schedule(TrainingConfig(batch_size=1600, learning_rate=2e-4), 10**6)
    found = [float(rate(step)) for step in (0, 1249, 1250, 2499, 2500)]
    expected = [2e-4, 2e-4, 2e-4 * 0.8, 2e-4 * 0.8, 2e-4 * 0.64]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("batch", "every"),
    [(160, 2_000_000), (163, 2_000_000), (1024, 2_000_000), (65_536, 1_999_999), (7, 3)],
)
def test_stairs_are_exact_far_out(batch, every):
    """Each stair starts at the first step that has all of its examples, in Python's integers."""
    rate = ExamplesStaircase(1.0, 0.5, every, batch)
    for stair in (1, 2, 3, 20, 100):
        first = -(-stair * every // batch)
        found = [float(rate(step)) for step in (first - 1, first)]
        stairs = [(first - 1) * batch // every, first * batch // every]
        assert found == [0.5**one for one in stairs]
    # Examples that neither int32 nor the integers of float64 reach, and no common factor.
    step = 2**53 // batch + 1
    late = ExamplesStaircase(1.0, 0.5, step * batch - 1, batch)
    assert [float(late(one)) for one in (step - 1, step)] == [1.0, 0.5]


def test_stairs_that_never_come():
    rate = ExamplesStaircase(0.25, 0.5, 10**30, 8)
    assert float(rate(10**9)) == 0.25


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("schedule", ["constant", "staircase", "cosine"])
def test_schedules_run_inside_a_compiled_step(schedule, jit):
    """SGD on a gradient of 1 moves a weight by the learning rate."""
    training = with_(
        optimizer="sgd", schedule=schedule, decay=0.7, decay_examples=20, batch_size=8, warmup=0.25
    )
    model = tiny_model()
    optimizer = make_optimizer(training, model, 12)

    @tf.function(jit_compile=jit)
    def step():
        optimizer.apply([tf.ones_like(one) for one in model.trainable_variables])

    expected = by_hand(schedule, 12, every=20)
    for number in range(12):
        before = model.get_weights()
        step()
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_allclose(one - other, expected(number), atol=2e-7)
    assert int(optimizer.iterations) == 12


def test_a_schedule_is_serialised():
    schedules = keras.optimizers.schedules
    rate = ExamplesStaircase(0.1, 0.5, 97, 8)
    content = json.loads(json.dumps(schedules.serialize(rate)))
    assert content["registered_name"] == "nextvlad>ExamplesStaircase"
    again = schedules.deserialize(content)
    assert [float(again(step)) for step in range(60)] == [float(rate(step)) for step in range(60)]


def test_every_name_is_keras_s():
    assert tuple(CLASSES) == OPTIMIZERS
    for name, kind in CLASSES.items():
        assert type(make_optimizer(with_(optimizer=name), tiny_model(), 10)) is kind
        assert kind is getattr(keras.optimizers, kind.__name__)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_moves_every_weight(name):
    start = tiny_model().get_weights()
    model = tiny_model()
    optimizer = make_optimizer(with_(optimizer=name), model, 10)
    assert optimizer.built
    variables = len(optimizer.variables)
    optimizer.apply([keras.ops.convert_to_tensor(one) for one in GRADIENTS])
    assert len(optimizer.variables) == variables
    for before, after in zip(start, model.get_weights(), strict=True):
        assert np.isfinite(after).all()
        assert (np.abs(after - before) > 1e-5).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_shrinks_matrices_alone_and_first(name):
    """A step with it is one without it from a kernel that is smaller by rate × decay."""
    kernel, bias = tiny_model().get_weights()
    found = after_a_step(with_(optimizer=name, weight_decay=0.5))
    expected = after_a_step(with_(optimizer=name), [kernel * (1 - 0.1 * 0.5), bias])
    plain = after_a_step(with_(optimizer=name))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found[1], plain[1])
    assert np.abs(found[0] - plain[0]).max() > 1e-5


def test_no_weight_decay_is_none_with_adamw_too():
    for one, other in zip(
        after_a_step(with_(optimizer="adamw")), after_a_step(with_(optimizer="adam")), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_gradients_are_not_clipped():
    model = tiny_model()
    optimizer = make_optimizer(with_(optimizer="sgd", clip_norm=0.01), model, 10)
    kernel, bias = model.get_weights()
    optimizer.apply([100 * keras.ops.ones_like(one) for one in model.trainable_variables])
    np.testing.assert_allclose(model.get_weights()[0], kernel - 10, rtol=1e-6)
    np.testing.assert_allclose(model.get_weights()[1], bias - 10, rtol=1e-6)
    for limit in (optimizer.clipnorm, optimizer.clipvalue, optimizer.global_clipnorm):
        assert limit is None


def test_arguments_reach_keras():
    training = with_(optimizer_arguments='{"beta_2": 0.98, "beta_1": 0, "amsgrad": true}')
    check_optimizer(training)
    optimizer = make_optimizer(training, tiny_model(), 10)
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.amsgrad) == (0.0, 0.98, True)
    # The momentum of SGD by hand: the second step has the first one's share too.
    training = with_(optimizer="sgd", optimizer_arguments='{"momentum": 0.5}')
    model = tiny_model()
    optimizer = make_optimizer(training, model, 10)
    bias = model.get_weights()[1]
    for _ in range(2):
        optimizer.apply([keras.ops.ones_like(one) for one in model.trainable_variables])
    np.testing.assert_allclose(model.get_weights()[1], bias - 0.1 - (0.1 + 0.5 * 0.1), rtol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "arguments", "words"),
    [
        ("adam", "{", "training.optimizer_arguments is '{', expected a JSON object such as"),
        ("adam", "", "training.optimizer_arguments is '', expected a JSON object such as"),
        ("adam", "[1]", "training.optimizer_arguments is '[1]', expected a JSON object such as"),
        (
            "adam",
            '{"beta2": 0.9}',
            "training.optimizer_arguments: adam has no argument 'beta2', expected one of beta_1, "
            "beta_2, epsilon, amsgrad; did you mean beta_2",
        ),
        ("sgd", '{"beta_2": 0.9}', "sgd has no argument 'beta_2', expected one of momentum, neste"),
        ("adam", '{"self": 1}', "adam has no argument 'self'"),
        ("adam", '{"kwargs": 1}', "adam has no argument 'kwargs'"),
        ("adam", '{"beta_1": "a"}', "beta_1 is 'a' (str), expected a number"),
        ("adam", '{"beta_1": null}', "beta_1 is None (NoneType), expected a number"),
        ("adam", '{"beta_1": 1}', "optimizer_arguments: beta_1 is 1.0, expected at most 0.999999"),
        ("adam", '{"beta_1": NaN}', "beta_1 is nan, expected a finite number"),
        ("adam", '{"epsilon": 0}', "epsilon is 0.0, expected more than 0"),
        ("adam", '{"amsgrad": 1}', "amsgrad is 1 (int), expected true or false"),
        ("lion", '{"beta_1": 0}', "beta_1 is 0.0, expected more than 0"),
        ("lion", '{"beta_1": 1.5}', "beta_1 is 1.5, expected at most 1"),
        ("sgd", '{"momentum": -1}', "momentum is -1.0, expected at least 0"),
        ("sgd", '{"momentum": 1.5}', "momentum is 1.5, expected at most 1"),
        ("ftrl", '{"initial_accumulator_value": -1}', "expected at least 0"),
        ("ftrl", '{"learning_rate_power": 0.5}', "expected at most 0"),
        ("ftrl", '{"l1_regularization_strength": -1}', "expected at least 0"),
        ("ftrl", '{"l2_regularization_strength": -1}', "expected at least 0"),
        ("ftrl", '{"l2_shrinkage_regularization_strength": -1}', "expected at least 0"),
    ],
)
def test_arguments_that_can_not_be(optimizer, arguments, words):
    training = with_(optimizer=optimizer, optimizer_arguments=arguments)
    with pytest.raises(InputError, match=re.escape(words)) as error:
        check_optimizer(training)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=re.escape(words)):
        make_optimizer(training, tiny_model(), 10)


@pytest.mark.parametrize("argument", ELSEWHERE)
def test_arguments_that_have_a_parameter(argument):
    training = with_(optimizer_arguments=json.dumps({argument: 1}))
    with pytest.raises(InputError, match=rf"{argument} is the parameter training\.\w+; set that$"):
        check_optimizer(training)


def test_what_keras_refuses_is_said_too(monkeypatch):
    """Were our ranges wider than its own."""
    monkeypatch.setitem(LIMITS, "momentum", {})
    training = with_(optimizer="sgd", optimizer_arguments='{"momentum": 2}')
    check_optimizer(training)
    with pytest.raises(
        InputError, match=r"momentum\": 2}', which Keras's sgd does not take: .*0, 1"
    ):
        make_optimizer(training, tiny_model(), 10)


def test_every_argument_of_keras_is_known():
    """A new one in another version of Keras is a parameter of ours, or gets a range."""
    numbers = set()
    for name, kind in CLASSES.items():
        arguments = {}
        for argument, one in inspect.signature(kind.__init__).parameters.items():
            if argument in ELSEWHERE or argument in ("self", "kwargs"):
                continue
            assert type(one.default) in (bool, float), (name, argument)
            arguments[argument] = one.default
            if type(one.default) is float:
                numbers.add(argument)
        # Its own defaults are in range.
        check_optimizer(with_(optimizer=name, optimizer_arguments=json.dumps(arguments)))
    assert numbers == {name for name in LIMITS if "." not in name}
