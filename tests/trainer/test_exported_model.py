"""An exported model is loaded, or it is said why not."""

import json

import numpy as np
import pytest

from tests.conftest import TINY_MODEL, frame_video, mean_video
from trainer import records
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.export import export_model, top_predictions
from trainer.exported_model import Answer, ExportedModel
from trainer.models import build_model
from trainer.vocabulary import Vocabulary

VOCABULARY = Vocabulary(tuple(f"näme {i}" for i in range(7)), (("a", "b"),) * 7)


def about(level):
    return {
        "level": level, "top_k": 3, "num_classes": 7, "max_frames": 6,
        "data_fingerprint": "f", "vocabulary_digest": "v",
    }  # fmt: skip


@pytest.fixture(scope="module", params=["frame", "video"])
def exported(request, tmp_path_factory):
    """(folder, the model in memory, its level)."""
    level = request.param
    name = {"frame": "mean_pooling", "video": "mlp"}[level]
    model = build_model(ModelConfig(**TINY_MODEL | {"name": name}), 7, level, 6)
    folder = tmp_path_factory.mktemp("exported")
    export_model(model, level, 6, VOCABULARY, 3, folder / "saved_model")
    (folder / "export.json").write_text(json.dumps(about(level)))
    return folder, model, level


def record_of(video):
    return records.Record("here", 0, 0, records.encode(video))


def test_it_answers_as_the_model_in_memory(exported, rng):
    folder, model, level = exported
    make = frame_video if level == "frame" else mean_video
    made = [record_of(make(rng)) for _ in range(4)]
    loaded = ExportedModel(folder)
    answer = loaded.answer([loaded.parse(record) for record in made])
    classes, scores = top_predictions(model, level, 6, [one.payload for one in made], 3)
    np.testing.assert_array_equal(answer.classes, classes)
    np.testing.assert_allclose(answer.scores, scores, atol=1e-6)
    first = answer.rows()[0][0]
    assert first == {
        "class": classes[0, 0], "name": f"näme {classes[0, 0]}", "vertical": "a",
        "score": float(answer.scores[0, 0]),
    }  # fmt: skip
    assert len(answer.cut(2).rows()[0]) == 2
    assert Answer.joined([answer, answer]).classes.shape == (8, 3)


def test_a_record_of_the_other_level_is_refused(exported, rng):
    folder, _, level = exported
    make = mean_video if level == "frame" else frame_video
    with pytest.raises(
        InputError, match=rf"here: record 0 .*-level record, the model takes {level}"
    ):
        ExportedModel(folder).parse(record_of(make(rng)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "export.json").unlink(), "is no exported model"),
        (lambda folder: (folder / "export.json").write_text("[]"), "expected an object"),
        (
            lambda folder: (folder / "export.json").write_text(
                json.dumps(about("frame") | {"top_k": "3"})
            ),
            "top_k is '3', expected int: another version exported this model",
        ),
        (
            lambda folder: (folder / "export.json").write_text(json.dumps(about("shot"))),
            "level is 'shot', expected frame or video",
        ),
        (
            lambda folder: (folder / "saved_model" / "saved_model.pb").unlink(),
            "has no saved_model.pb",
        ),
        (
            lambda folder: (folder / "saved_model" / "saved_model.pb").write_bytes(b"garbage"),
            "does not load",
        ),
        (
            lambda folder: (folder / "saved_model" / "variables" / "variables.index").unlink(),
            "does not load",
        ),
    ],
    ids=["no about", "no object", "old", "level", "no model", "garbage", "no variables"],
)
def test_what_is_no_exported_model_is_refused(exported, damage, message, tmp_path):
    import shutil

    shutil.copytree(exported[0], tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(InputError, match=message):
        ExportedModel(tmp_path / "copy")


def test_another_levels_export_is_refused(exported, tmp_path):
    import shutil

    folder, _, level = exported
    shutil.copytree(folder, tmp_path / "copy")
    other = {"frame": "video", "video": "frame"}[level]
    (tmp_path / "copy" / "export.json").write_text(json.dumps(about(other)))
    with pytest.raises(InputError, match="has no signature"):
        ExportedModel(tmp_path / "copy")
