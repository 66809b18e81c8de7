"""What is true of every model: each name on each level with each classifier that it takes."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy as to_numpy

from tests.trainer.cases import CLASSIFIERS, LEVELS, OWN_HEAD, B, C, Case, batch_of, every_case
from trainer import record_format
from trainer.config import MODEL_NAMES, TrainingConfig
from trainer.losses import make_loss
from trainer.models import MODELS, load_model, model_inputs, probabilities
from trainer.train_step import LOSS, TrainStep

CASES, REFUSED = every_case()
RATE, PENALTY = 1e-3, 100.0
SHRINKING = 1 - 2 * RATE * PENALTY
"""What a step of gradient descent leaves of a kernel whose squares are penalised."""
IDLE = ("score_bias", "input_norm/beta")
"""The softmax cancels the one, dbof's second batch norm the other."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model after one step of gradient descent, and what was before it."""

    case: Case
    model: keras.Model
    loss: float
    before: dict


def kernels(model):
    """The classifiers' penalised weights."""
    return [weight for weight in model.weights if getattr(weight, "regularizer", None)]


def train(case, class_loss=None, **changes):
    keras.utils.set_random_seed(5)
    model = case.build(**changes)
    before = {weight.path: weight.numpy() for weight in model.weights}
    optimizer = keras.optimizers.SGD(RATE)
    optimizer.build(model.trainable_variables)
    training = TrainingConfig(clip_norm=1e9)
    step = TrainStep(model, optimizer, class_loss or make_loss(training), training)
    inputs, labels = keras.tree.map_structure(ops.convert_to_tensor, batch_of(case.level))
    result = step(inputs, labels, None, ops.zeros(2))
    return Trained(case, model, float(result[LOSS]), before)


@pytest.fixture(scope="module", params=CASES, ids=str)
def trained(request):
    return train(request.param, classifier_l2=PENALTY)


def as_arrays(outputs):
    return {
        name: to_numpy(value)
        for name, value in (outputs if isinstance(outputs, dict) else {"": outputs}).items()
    }


def dtype_of(value):
    return keras.backend.standardize_dtype(value.dtype)


def test_what_can_not_be_built():
    assert {(dict(case.changes)["name"], case.level) for case in CASES} == {
        (name, level)
        for name in MODEL_NAMES
        for level in LEVELS
        if level == record_format.FRAME or not MODELS[name].frame_level_only
    }
    on_frames = {str(case) for case in REFUSED if case.level == record_format.FRAME}
    mixture = {f"nextvlad_mixture-{kind}-frame" for kind in CLASSIFIERS[1:]}
    assert on_frames == mixture
    for case in CASES:
        kind = dict(case.changes).get("classifier", "logistic")
        assert kind == "logistic" or dict(case.changes)["name"] not in OWN_HEAD


def test_the_symbolic_outputs_are_what_comes_out(trained):
    model = trained.model
    inputs, _ = batch_of(trained.case.level)
    outputs = model(inputs)
    again = model(model_inputs(trained.case.level))
    for promised in (model.output, again):
        keras.tree.assert_same_structure(promised, outputs)
        for symbol, value in zip(
            keras.tree.flatten(promised), keras.tree.flatten(outputs), strict=True
        ):
            assert symbol.shape == (None, *value.shape[1:])
            assert dtype_of(symbol) == dtype_of(value) == "float32"
    assert probabilities(outputs).shape == (B, C)
    for value in as_arrays(outputs).values():
        assert ((value > 0) & (value < 1)).all()


def test_a_training_step_moves_every_weight(trained):
    assert_every_weight_moved(trained)


def test_the_penalty_is_in_the_total_but_not_in_the_loss(trained):
    assert_the_penalty_shrank_the_classifier(trained)
    # Seven classes, most of them at a probability of σ(-6): the penalty alone is some hundreds.
    assert trained.loss < 60


def assert_every_weight_moved(trained):
    assert np.isfinite(trained.loss)
    for weight in trained.model.weights:
        path, value = weight.path, weight.numpy()
        assert np.isfinite(value).all(), path
        if path.endswith("class_verticals"):
            np.testing.assert_array_equal(value, trained.before[path])
        elif not path.endswith(IDLE):
            assert np.abs(value - trained.before[path]).max() > 0, path


def assert_the_penalty_shrank_the_classifier(trained):
    penalised = kernels(trained.model)
    assert penalised
    for weight in penalised:
        ratio = np.linalg.norm(weight.numpy()) / np.linalg.norm(trained.before[weight.path])
        np.testing.assert_allclose(ratio, SHRINKING, atol=0.02)


def test_it_survives_saving_after_training(trained, tmp_path):
    trained.model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    inputs, _ = batch_of(trained.case.level)
    found, expected = as_arrays(loaded(inputs)), as_arrays(trained.model(inputs))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    for one, same in zip(loaded.weights, trained.model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), same.numpy())
    assert len(kernels(loaded)) == len(kernels(trained.model))


@pytest.fixture
def in_bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_in_half_precision_the_probabilities_stay_float32_and_near(trained, in_bfloat16):
    half = trained.case.build(classifier_l2=PENALTY)
    half.set_weights(trained.model.get_weights())
    assert {dtype_of(weight) for weight in half.weights} == {"float32"}
    inputs, _ = batch_of(trained.case.level)
    found, expected = half(inputs), as_arrays(trained.model(inputs))
    for value in keras.tree.flatten(found):
        assert dtype_of(value) == "float32"
    for symbol in keras.tree.flatten(half.output):
        assert dtype_of(symbol) == "float32"
    for name, value in as_arrays(found).items():
        assert np.isfinite(value).all()
        np.testing.assert_allclose(value, expected[name], atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "level"),
    [("nextvlad", "frame"), ("nextvlad_mixture", "frame"), ("dbof", "frame"), ("mlp", "video")],
)
def test_a_training_step_in_half_precision(name, level, in_bfloat16):
    trained = train(Case(level, (("name", name),)), classifier_l2=PENALTY)
    assert_every_weight_moved(trained)
    assert_the_penalty_shrank_the_classifier(trained)


def no_loss(labels, scores):
    return ops.sum(scores) * 0


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.0, 1000.0])
def test_what_a_layer_adds_is_in_the_total_but_not_in_the_loss(weight):
    """Without any other loss: the divergence alone moves the weights, if it has a weight."""
    case = Case("frame", (("name", "nextvlad_mixture"),))
    trained = train(case, no_loss, classifier_l2=0.0, distillation_weight=weight)
    assert trained.loss == 0
    for variable in trained.model.trainable_variables:
        moved = np.abs(variable.numpy() - trained.before[variable.path]).max() > 0
        assert moved == (weight > 0), variable.path


def test_without_a_penalty_nothing_is_added():
    trained = train(Case("video", (("name", "moe"),)), no_loss, classifier_l2=0.0)
    assert not trained.model.losses
    for weight in trained.model.trainable_variables:
        np.testing.assert_array_equal(weight.numpy(), trained.before[weight.path])
