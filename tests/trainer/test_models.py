import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from tests.conftest import ROOT, TINY_MODEL
from trainer import records
from trainer.config import MODEL_NAMES, ModelConfig, TrainingConfig
from trainer.errors import InputError
from trainer.layers import feature_normalization, nextvlad
from trainer.losses import LOSSES, make_loss, training_loss
from trainer.models import (
    INITIAL_BIAS,
    MODELS,
    build_model,
    class_verticals,
    load_author_weights,
    load_model,
    probabilities,
)

VERTICALS = (("Arts", "Games", "Sports"), ((0,), (1,), (1, 2), (2,), (0, 1), (2,), (0,)))


def inputs_of(level, rng, batch=3, frames=4):
    if level == records.VIDEO:
        shape = lambda size: rng.standard_normal((batch, size)).astype("float32")  # noqa: E731
        return {"mean_rgb": shape(1024), "mean_audio": shape(128)}
    return {
        "rgb": rng.integers(0, 256, (batch, frames, 1024), dtype=np.uint8),
        "audio": rng.integers(0, 256, (batch, frames, 128), dtype=np.uint8),
        "num_frames": np.array([frames, 1, 2], np.int32),
    }


CASES = [(name, level) for name in MODELS for level in (records.FRAME, records.VIDEO)
         if level == records.FRAME or not MODELS[name].frame_level_only]  # fmt: skip


@pytest.mark.parametrize(("name", "level"), CASES)
def test_every_model_predicts_saves_and_loads(name, level, rng, tmp_path):
    config = ModelConfig(**TINY_MODEL | {"name": name, "branches": 2})
    model = build_model(config, 7, level, 4)
    batch = inputs_of(level, rng)
    scores = to_numpy(probabilities(model(batch)))
    assert scores.shape == (3, 7)
    assert scores.dtype == np.float32
    assert ((scores > 0) & (scores < 1)).all()
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(probabilities(loaded(batch))), scores)


@pytest.mark.parametrize("name", MODELS)
def test_what_lies_beyond_num_frames_changes_nothing(name, rng):
    model = build_model(ModelConfig(**TINY_MODEL | {"name": name}), 7, records.FRAME, 4)
    batch = inputs_of(records.FRAME, rng)
    before = to_numpy(probabilities(model(batch)))
    batch["rgb"][1, 1:] = 255
    batch["audio"][2, 2:] = 0
    np.testing.assert_allclose(to_numpy(probabilities(model(batch))), before, atol=1e-6)


def classifier(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][-1]


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_the_classifier_starts_at_the_class_frequencies(name, rng):
    priors = np.array([0.5, 0.1, 0.0])
    config = ModelConfig(**TINY_MODEL | {"name": name})
    model = build_model(config, 3, records.VIDEO, priors=priors)
    bias = classifier(model).bias.numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), [0.5, 0.1, 5e-6], rtol=1e-4)
    plain = build_model(config, 3, records.VIDEO)
    np.testing.assert_array_equal(classifier(plain).bias.numpy(), [INITIAL_BIAS] * 3)


def test_nextvlad_has_the_author_s_number_of_parameters():
    """89 M, as the paper's repository states for 8 groups, 128 clusters, 2,048 hidden units."""
    model = build_model(ModelConfig(), 3862, records.FRAME, 300)
    assert round(model.count_params() / 1e6) == 89


def test_the_configuration_knows_the_models():
    assert tuple(MODELS) == MODEL_NAMES


def test_branches_differ(rng):
    config = ModelConfig(**TINY_MODEL | {"name": "mlp", "branches": 3})
    kernels = [layer.kernel.numpy() for layer in build_model(config, 5, records.VIDEO).layers
               if isinstance(layer, keras.layers.Dense) and layer.units == 16]  # fmt: skip
    assert len(kernels) == 3
    assert not np.array_equal(kernels[0], kernels[1])


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"name": "nextvald"}, records.FRAME, "did you mean nextvlad"),
        ({"name": "nextvlad"}, records.VIDEO, "needs frame-level records"),
        ({"groups": 3}, records.FRAME, "the 3 groups of rgb do not divide its 1 · 1024"),
        ({"groups": 512}, records.FRAME, "the 256 groups of audio do not divide its 1 · 128"),
        ({"name": "mlp", "hidden_size": 0}, records.VIDEO, "model.hidden_size is 0"),
        ({"name": "nextvlad_mixture", "classifier": "moe"}, records.FRAME, "expected 'logistic'"),
        ({"name": "nextvlad_mixture", "groups": 3}, records.FRAME, "do not divide"),
        ({"classifier": "vertical_attention"}, records.FRAME, "two or more verticals"),
        ({"name": "vlad"}, records.FRAME, "did you mean netvlad or nextvlad"),
        ({"groups": 0}, records.FRAME, "model.groups is 0, expected at least 2"),
        ({"classifier": "foo"}, records.FRAME, "model.classifier is 'foo', expected one of"),
        ({"name": "mlp", "branches": 0}, records.VIDEO, "model.branches is 0, expected at least 1"),
        ({}, "frames", "level is 'frames', expected 'frame' or 'video'"),
    ],
)
def test_models_that_can_not_be(changes, level, words):
    with pytest.raises(InputError, match=re.escape(words)):
        build_model(ModelConfig(**TINY_MODEL | changes), 5, level)


def author_variables(rng, classifier="logistic", hidden=16, classes=7):
    """Random variables of the author's whole model, by its names."""
    found, clusters, groups, expansion = {}, 4, 2, 2

    def norm(scope, width):
        found[f"{scope}/beta"] = rng.standard_normal(width)
        found[f"{scope}/gamma"] = rng.uniform(0.5, 1.5, width)
        found[f"{scope}/moving_mean"] = rng.standard_normal(width)
        found[f"{scope}/moving_variance"] = rng.uniform(0.5, 1.5, width)

    def matrix(name, *shape):
        found[name] = rng.standard_normal(shape) / np.sqrt(shape[-2])

    total = 0
    for scope, size, k, g in (
        ("video_VLAD", 1024, clusters, groups),
        ("audio_VLAD", 128, clusters // 2, groups // 2),
    ):
        expanded = expansion * size
        matrix(f"{scope}/fully_connected/weights", size, expanded)
        found[f"{scope}/fully_connected/biases"] = rng.standard_normal(expanded)
        matrix(f"{scope}/fully_connected_1/weights", expanded, g)
        found[f"{scope}/fully_connected_1/biases"] = rng.standard_normal(g)
        matrix(f"{scope}/cluster_weights", expanded, g * k)
        norm(f"{scope}/cluster_bn", g * k)
        matrix(f"{scope}/cluster_weights2", 1, expanded // g, k)
        norm(f"{scope}/vlad_bn", expanded // g * k)
        total += expanded // g * k
    matrix("hidden1_weights", total, hidden)
    norm("hidden1_bn", hidden)
    matrix("gating_weights_1", hidden, hidden // 4)
    norm("gating_bn", hidden // 4)
    matrix("gating_weights_2", hidden // 4, hidden)
    if classifier == "moe":
        matrix("gates/weights", hidden, classes * 3)
        matrix("experts/weights", hidden, classes * 2)
        found["experts/biases"] = rng.standard_normal(classes * 2)
    else:
        matrix("fully_connected/weights", hidden, classes)
        found["fully_connected/biases"] = rng.standard_normal(classes)
    return found


def author_model(v, features, mask, training, expansion=2):
    """The author's network in float64 NumPy, from its description: arXiv 1811.05014, figure 2."""

    def norm(x, scope):
        axes = tuple(range(x.ndim - 1))
        mean, variance = v[f"{scope}/moving_mean"], v[f"{scope}/moving_variance"]
        if training:
            mean, variance = x.mean(axes), x.var(axes)  # padded rows count
        return (x - mean) / np.sqrt(variance + 1e-3) * v[f"{scope}/gamma"] + v[f"{scope}/beta"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def vlad(x, scope):
        expanded = x @ v[f"{scope}/fully_connected/weights"] + v[f"{scope}/fully_connected/biases"]
        attention = expanded @ v[f"{scope}/fully_connected_1/weights"]
        attention = sigmoid(attention + v[f"{scope}/fully_connected_1/biases"]) * mask[..., None]
        groups = attention.shape[-1]
        logits = norm(expanded @ v[f"{scope}/cluster_weights"], f"{scope}/cluster_bn")
        logits = logits.reshape(*logits.shape[:2], groups, -1)
        assignment = np.exp(logits - logits.max(-1, keepdims=True))
        assignment /= assignment.sum(-1, keepdims=True)
        assignment *= attention[..., None]
        parts = expanded.reshape(*expanded.shape[:2], groups, -1)
        sums = np.einsum("btgk,btgf->bfk", assignment, parts)
        sums -= assignment.sum((1, 2))[:, None] * v[f"{scope}/cluster_weights2"]
        sums /= np.sqrt(np.maximum((sums**2).sum(1, keepdims=True), 1e-12))
        return norm(sums.reshape(len(sums), -1), f"{scope}/vlad_bn")

    video, audio = (
        vlad(features[..., :1024], "video_VLAD"),
        vlad(features[..., 1024:], "audio_VLAD"),
    )
    hidden = np.concatenate([video, audio], 1) @ v["hidden1_weights"]
    hidden = norm(hidden, "hidden1_bn")
    gates = np.maximum(norm(hidden @ v["gating_weights_1"], "gating_bn"), 0)
    hidden = hidden * sigmoid(gates @ v["gating_weights_2"])
    if "gates/weights" not in v:
        return sigmoid(hidden @ v["fully_connected/weights"] + v["fully_connected/biases"])
    # google/youtube-8m's MoeModel: [B·C, mixtures + 1] gates, the last one off
    experts = sigmoid(hidden @ v["experts/weights"] + v["experts/biases"])
    classes = experts.shape[1] // 2
    gates = np.exp((hidden @ v["gates/weights"]).reshape(len(hidden), classes, 3))
    gates /= gates.sum(-1, keepdims=True)
    return (gates[..., :2] * experts.reshape(len(hidden), classes, 2)).sum(-1)


def author_features(rgb, audio, mask, eigenvalues):
    """The author's reader: dequantise, pad with 0, then undo the whitening of rgb."""
    features = np.concatenate([rgb, audio], -1) * (4 / 255) + 4 / 512 - 2
    features = features * mask[..., None]
    if eigenvalues is not None:
        scale = np.sqrt(eigenvalues) + 1e-4
        features[..., :1024] = (features[..., :1024] - 4 / 512) * scale
    return features


@pytest.mark.parametrize("form", ["direct", "folded", "fast"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("normalization", "classifier"), [("none", "logistic"), ("reverse_whitening", "moe")]
)
def test_the_author_s_weights_give_the_author_s_scores(
    form, training, normalization, classifier, rng
):
    config = ModelConfig(
        cluster_size=4, groups=2, expansion=2, hidden_size=16, gating_reduction=4, dropout=0.0,
        form=form, normalization=normalization, batch_norm_rows="all", padding="author",
        classifier=classifier,
    )  # fmt: skip
    variables = author_variables(rng, classifier)
    model = build_model(config, 7, records.FRAME, 5)
    load_author_weights(model, {f"tower/{name}:0": value for name, value in variables.items()})
    rgb = rng.integers(0, 256, (4, 5, 1024), dtype=np.uint8)
    audio = rng.integers(0, 256, (4, 5, 128), dtype=np.uint8)
    num_frames = np.array([5, 1, 3, 4], np.int32)
    mask = (np.arange(5) < num_frames[:, None]).astype(float)
    eigenvalues = None
    if normalization == "reverse_whitening":
        table = Path(feature_normalization.__file__).with_name("pca_eigenvalues.csv")
        eigenvalues = np.array([float(line) for line in table.read_text().split("\n")[3:-1]])
        assert len(eigenvalues) == 1024
    expected = author_model(
        variables, author_features(rgb, audio, mask, eigenvalues), mask, training
    )
    found = model({"rgb": rgb, "audio": audio, "num_frames": num_frames}, training=training)
    np.testing.assert_allclose(to_numpy(found), expected, atol=5e-5)


def test_the_head_may_have_a_numbered_scope(rng):
    config = ModelConfig(cluster_size=4, groups=2, hidden_size=16, gating_reduction=4)
    variables = author_variables(rng)
    for name in ("weights", "biases"):
        variables[f"fully_connected_4/{name}"] = variables.pop(f"fully_connected/{name}")
    model = build_model(config, 7, records.FRAME, 5)
    load_author_weights(model, variables)
    for name, found in zip(("weights", "biases"), classifier(model).weights, strict=True):
        np.testing.assert_allclose(found.numpy(), variables[f"fully_connected_4/{name}"], rtol=1e-6)


def test_author_weights_of_another_model(rng):
    variables = author_variables(rng)
    config = ModelConfig(**TINY_MODEL | {"gating_reduction": 4})
    with pytest.raises(ValueError, match=r"expected hidden1_weights of shape .* received"):
        load_author_weights(build_model(config, 7, records.FRAME), variables)
    with pytest.raises(ValueError, match="received the model 'logistic'"):
        load_author_weights(build_model(ModelConfig(name="logistic"), 7, records.VIDEO), variables)
    config = ModelConfig(**TINY_MODEL | {"classifier": "vertical_attention"})
    with pytest.raises(ValueError, match="received vertical_attention"):
        load_author_weights(build_model(config, 7, records.FRAME, verticals=VERTICALS), variables)


@pytest.mark.parametrize("name", ["nextvlad", "mean_pooling", "mlp"])
def test_the_vertical_attention_head(name, rng, tmp_path):
    config = ModelConfig(**TINY_MODEL | {"name": name, "branches": 2} | {
        "classifier": "vertical_attention"})  # fmt: skip
    model = build_model(config, 7, records.FRAME, 4, verticals=VERTICALS)
    batch = inputs_of(records.FRAME, rng)
    outputs = {key: to_numpy(value) for key, value in model(batch).items()}
    assert outputs["verticals"].shape == (3, 3)
    assert outputs["probabilities"].shape == (3, 7)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    for key, value in loaded(batch).items():
        np.testing.assert_array_equal(to_numpy(value), outputs[key])
    np.testing.assert_array_equal(to_numpy(class_verticals(loaded))[2], [0, 1, 1])
    labels = np.eye(7, dtype="float32")[[2, 0, 1]]
    targets = np.array([[0, 1, 1], [1, 0, 0], [0, 1, 0]])
    v, p = outputs["verticals"].astype(float), outputs["probabilities"].astype(float)
    expected = -np.log(np.where(targets, v, 1 - v)).sum(1).mean()
    expected -= 2 * np.log(np.where(labels, p, 1 - p)).sum(1).mean()
    class_loss = make_loss(TrainingConfig())
    found = training_loss(class_loss, labels, model(batch), class_verticals(model))
    np.testing.assert_allclose(float(found), expected, rtol=1e-5)


def test_the_mixture_s_branches_are_distilled_in_training_alone(rng):
    config = ModelConfig(**TINY_MODEL | {
        "name": "nextvlad_mixture", "dropout": 0.0, "classifier_l2": 0.0})  # fmt: skip
    model = build_model(config, 7, records.FRAME, 4)
    batch = inputs_of(records.FRAME, rng)
    outputs = model(batch, training=False)
    assert outputs["branches"].shape == (3, 3, 7)
    assert not model.losses
    model(batch, training=True)
    assert len(model.losses) == 1
    assert float(model.losses[0]) > 0
    first, second = (to_numpy(outputs["branches"])[:, i] for i in (0, 1))
    assert np.abs(first - second).max() > 1e-6


def test_files_that_are_no_model(tmp_path):
    with pytest.raises(InputError, match="no such model"):
        load_model(tmp_path / "absent.keras")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(InputError, match=r"text\.keras: is no model that can be loaded"):
        load_model(tmp_path / "text.keras")


def test_priors_of_other_classes():
    with pytest.raises(InputError, match="priors has 2 classes, expected 3"):
        build_model(ModelConfig(name="logistic"), 3, records.VIDEO, priors=np.array([0.5, 0.1]))


@pytest.mark.slow
def test_a_model_loads_where_only_the_layers_are_imported(tmp_path):
    build_model(ModelConfig(**TINY_MODEL), 3, records.FRAME, 4).save(tmp_path / "model.keras")
    code = f"""
import keras, trainer.layers
assert keras.saving.load_model({str(tmp_path / "model.keras")!r}).count_params()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_parameters_and_layers_know_the_same_choices():
    choices = {field.name: field.metadata["choices"] for field in dataclasses.fields(ModelConfig)}
    assert choices["normalization"] == feature_normalization.NORMALIZATIONS
    assert choices["padding"] == feature_normalization.PADDINGS
    assert choices["form"] == nextvlad.FORMS
    loss = {field.name: field for field in dataclasses.fields(TrainingConfig)}["loss"]
    assert loss.metadata["choices"] == LOSSES
