"""The SavedModel answers as the model does."""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import TINY_MODEL, frame_video, mean_video
from trainer import records
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.export import export_model, top_predictions
from trainer.models import build_model
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


def test_exports_that_can_not_be(tmp_path):
    model = build_model(ModelConfig(name="logistic"), 7, "video")
    with pytest.raises(InputError, match=r"export\.top_k is 8, expected at most the 7 classes"):
        export_model(model, "video", 6, VOCABULARY, 8, tmp_path / "saved")
    with pytest.raises(InputError, match="exists; expected a folder to be made"):
        export_model(model, "video", 6, VOCABULARY, 3, tmp_path)
