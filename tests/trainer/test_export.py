"""The SavedModel answers as the model does."""

import dataclasses
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import TINY_MODEL, frame_video, mean_video
from trainer import records
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.export import any_frames, export_model, parsed, signatures, top_predictions
from trainer.half_weights import HalfWeights
from trainer.models import build_model, probabilities
from trainer.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    tuple(f"name {i}" for i in range(7)), tuple((f"vertical {i % 3}", "x") for i in range(7))
)


@pytest.mark.parametrize(
    ("name", "level", "make"),
    [("nextvlad", "frame", frame_video), ("mlp", "video", mean_video)],
)
def test_the_signature_answers_as_the_model(name, level, make, rng, tmp_path):
    model = build_model(ModelConfig(**TINY_MODEL | {"name": name}), 7, level, 6)
    export_model(model, level, 6, VOCABULARY, 3, tmp_path / "saved")
    payloads = [records.encode(make(rng)) for _ in range(5)]
    serve = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    answer = serve(examples=tf.constant(payloads))
    classes, scores = top_predictions(model, level, 6, payloads, 3)
    np.testing.assert_array_equal(answer["classes"], classes)
    np.testing.assert_allclose(answer["scores"], scores, atol=1e-6)
    assert (np.diff(answer["scores"], axis=1) <= 0).all()
    named = [[f"name {index}".encode() for index in row] for row in classes]
    assert answer["names"].numpy().tolist() == named
    verticals = [[f"vertical {index % 3}".encode() for index in row] for row in classes]
    assert answer["verticals"].numpy().tolist() == verticals


@pytest.mark.parametrize(
    ("name", "level", "make", "signature"),
    [
        ("nextvlad", "frame", frame_video, "features"),
        ("mlp", "video", mean_video, "video_level"),
    ],
)
def test_features_are_answered_as_their_records(name, level, make, signature, rng, tmp_path):
    model = build_model(ModelConfig(**TINY_MODEL | {"name": name}), 7, level, 6)
    export_model(model, level, 6, VOCABULARY, 3, tmp_path / "saved")
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    videos = [make(rng) for _ in range(4)]
    if level == "video":
        features = {
            "mean_rgb": np.stack([video.rgb for video in videos]),
            "mean_audio": np.stack([video.audio for video in videos]),
        }
    else:
        features = {
            "rgb": np.zeros((4, 6, 1024), np.uint8),
            "audio": np.zeros((4, 6, 128), np.uint8),
            "num_frames": np.zeros(4, np.int32),
        }
        for row, video in enumerate(videos):
            count = min(6, video.num_frames)
            features["rgb"][row, :count] = video.rgb[:count]
            features["audio"][row, :count] = video.audio[:count]
            features["num_frames"][row] = count
    by_record = loaded.signatures["serving_default"](
        examples=tf.constant([records.encode(video) for video in videos])
    )
    by_features = loaded.signatures[signature](
        **{key: tf.constant(value) for key, value in features.items()}
    )
    np.testing.assert_array_equal(by_record["classes"], by_features["classes"])
    np.testing.assert_allclose(by_record["scores"], by_features["scores"], atol=1e-6)


def test_what_is_expected_is_computed_in_batches(rng):
    model = build_model(ModelConfig(**TINY_MODEL | {"name": "mean_pooling"}), 7, "frame")
    sizes = []

    class Watched:
        input = model.input

        def __call__(self, inputs, training):
            sizes.append(len(inputs["rgb"]))
            return model(inputs, training=training)

    payloads = [records.encode(frame_video(rng, 2)) for _ in range(130)]
    classes, scores = top_predictions(Watched(), "frame", 6, payloads, 3)
    assert sizes == [64, 64, 2]
    batch = parsed(tf.constant(payloads), "frame", 6)
    inputs = {name: batch[name] for name in model.input}
    expected = tf.math.top_k(probabilities(model(inputs, training=False)), 3)
    np.testing.assert_array_equal(classes, expected.indices)
    np.testing.assert_allclose(scores, expected.values, atol=1e-6)


def test_exports_that_can_not_be(tmp_path):
    model = build_model(ModelConfig(name="logistic"), 7, "video")
    with pytest.raises(InputError, match=r"export\.top_k is 8, expected at most the 7 classes"):
        export_model(model, "video", 6, VOCABULARY, 8, tmp_path / "saved")
    with pytest.raises(InputError, match="exists; expected a folder to be made"):
        export_model(model, "video", 6, VOCABULARY, 3, tmp_path)


@pytest.mark.parametrize("name", ["nextvlad", "netvlad", "dbof", "logistic"])
def test_a_twin_that_takes_any_number_of_frames(name, rng):
    config = ModelConfig(**TINY_MODEL | {"name": name})
    model = build_model(config, 7, "frame", 6)
    twin = any_frames(model, config, VOCABULARY)
    payloads = [records.encode(frame_video(rng, 4)) for _ in range(3)]
    for one, other in zip(
        top_predictions(model, "frame", 6, payloads, 3),
        top_predictions(twin, "frame", 9, payloads, 3),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("step", [2, 5])
def test_the_timeline_is_the_model_on_each_window(rng, tmp_path, step):
    config = ModelConfig(**TINY_MODEL)
    model = build_model(config, 7, "frame", 12)
    window_model = any_frames(model, config, VOCABULARY)
    folder = tmp_path / "saved"
    export_model(window_model, "frame", 12, VOCABULARY, 3, folder, step)
    videos = [frame_video(rng, count) for count in (1, 5, 23, 300)]
    loaded = tf.saved_model.load(str(folder))
    answer = loaded.signatures["segments"](
        examples=tf.constant([records.encode(video) for video in videos])
    )
    starts = list(range(0, 300, step))
    assert answer["starts"].dtype == tf.int32
    assert answer["starts"].numpy().tolist() == [starts] * 4
    assert answer["scores"].shape == (4, len(starts), 3)
    for row, video in enumerate(videos):
        windows = [start for start in starts if start < video.num_frames]
        assert answer["windows"][row] == len(windows)
        payloads = [
            records.encode(
                dataclasses.replace(
                    video, rgb=video.rgb[start : start + 5], audio=video.audio[start : start + 5]
                )
            )
            for start in windows
        ]
        classes, scores = top_predictions(window_model, "frame", 5, payloads, 3)
        np.testing.assert_array_equal(answer["classes"][row, : len(windows)], classes)
        np.testing.assert_allclose(answer["scores"][row, : len(windows)], scores, atol=1e-6)
        assert not answer["scores"][row, len(windows) :].numpy().any()


def stored(folder):
    """Name, shape and type of each variable in a SavedModel's file."""
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    kinds = reader.get_variable_to_dtype_map()
    return [
        (name, tuple(shape), kinds[name])
        for name, shape in reader.get_variable_to_shape_map().items()
        if kinds[name] != tf.string
    ]


@pytest.mark.parametrize(("half", "kind"), [(False, tf.float32), (True, tf.float16)])
def test_each_weight_is_stored_once_and_in_its_type(rng, tmp_path, half, kind):
    config = ModelConfig(**TINY_MODEL)
    model = any_frames(build_model(config, 7, "frame", 6), config, VOCABULARY)
    weights = HalfWeights(model) if half else None
    export_model(model, "frame", 6, VOCABULARY, 3, tmp_path / "saved", 5, weights)
    found = [one for one in stored(tmp_path / "saved") if one[2] in (tf.float32, tf.float16)]
    expected = sorted(tuple(one.shape) for one in model.weights)
    assert sorted(shape for _, shape, _ in found) == expected
    assert {one for _, _, one in found} == {kind}


def test_float16_weights_answer_as_the_rounded_model(rng, tmp_path):
    config = ModelConfig(**TINY_MODEL)
    model = any_frames(build_model(config, 7, "frame", 6), config, VOCABULARY)
    payloads = [records.encode(frame_video(rng, 6)) for _ in range(3)]
    _, before = top_predictions(model, "frame", 6, payloads, 3)
    export_model(model, "frame", 6, VOCABULARY, 3, tmp_path / "saved", 5, HalfWeights(model))
    classes, scores = top_predictions(model, "frame", 6, payloads, 3)
    assert (scores != before).any()
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    answer = loaded.signatures["serving_default"](examples=tf.constant(payloads))
    np.testing.assert_array_equal(answer["classes"], classes)
    np.testing.assert_allclose(answer["scores"], scores, atol=1e-6)
    timeline = loaded.signatures["segments"](examples=tf.constant(payloads))
    _, of_window = top_predictions(model, "frame", 5, payloads, 3)
    np.testing.assert_allclose(timeline["scores"][:, 0], of_window, atol=1e-6)


def test_every_output_has_the_batch_first(tmp_path):
    """Servers that batch requests, and split the outputs, refuse others."""
    config = ModelConfig(**TINY_MODEL | {"name": "mean_pooling"})
    model = any_frames(build_model(config, 7, "frame", 6), config, VOCABULARY)
    export_model(model, "frame", 6, VOCABULARY, 3, tmp_path / "saved", 5)
    described = signatures(tmp_path / "saved")
    assert described["segments"]["outputs"]["starts"] == "int32 [B,60]"
    assert described["segments"]["outputs"]["windows"] == "int32 [B]"
    for one in described.values():
        assert all(re.match(r"\w+ \[B[],]", value) for value in one["outputs"].values()), one


def test_signatures_are_described(tmp_path):
    model = build_model(ModelConfig(name="logistic"), 7, "video")
    export_model(model, "video", 6, VOCABULARY, 3, tmp_path / "saved")
    outputs = {"classes": "int64 [B,3]", "names": "string [B,3]", "scores": "float32 [B,3]",
               "verticals": "string [B,3]"}  # fmt: skip
    features = {"mean_audio": "float32 [B,128]", "mean_rgb": "float32 [B,1024]"}
    assert signatures(tmp_path / "saved") == {
        "serving_default": {"inputs": {"examples": "string [B]"}, "outputs": outputs},
        "video_level": {"inputs": features, "outputs": outputs},
    }
