"""An exported model is loaded, or it is said why not."""

import json

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import frame_video, mean_video
from tests.exported_models import facts, vocabulary_of, write_export
from trainer import records
from trainer.errors import InputError
from trainer.export import top_predictions
from trainer.exported_model import Answer, ExportedModel


def about(level):
    return facts(level, vocabulary_of(7), 3, 6)


@pytest.fixture(scope="module", params=["frame", "video"])
def exported(request, tmp_path_factory):
    """(folder, the model in memory, its level)."""
    level = request.param
    name = {"frame": "mean_pooling", "video": "mlp"}[level]
    folder = tmp_path_factory.mktemp("exported")
    return folder, write_export(folder, level, 7, 3, 6, name), level


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
    best = classes[0, 0]
    assert answer.rows()[0][0] == {
        "class": best, "name": f"näme {best}", "vertical": f"v{best % 3}",
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
    ("sound", "strange"),
    [
        (b"\n\x06labels", b"\x1a\x06labels"),  # a map entry's key under another number
        (b"\x1a\x04\n\x02", b"\x1a\x04*\x02"),  # the integers, too
    ],
)
def test_what_parse_takes_has_a_timeline(exported, rng, sound, strange):
    """Also where the graph's own parser refuses the bytes."""
    folder, _, level = exported
    loaded = ExportedModel(folder)
    if level == "video":
        with pytest.raises(InputError, match="has no signature segments: it is video-level"):
            loaded.timeline(loaded.parse(record_of(mean_video(rng))))
        return
    record = record_of(frame_video(rng, 7))
    expected = loaded.timeline(loaded.parse(record))
    record.payload = record.payload.replace(sound, strange, 1)
    with pytest.raises(tf.errors.OpError):
        loaded.signatures["segments"](examples=tf.constant([record.payload]))
    starts, answer = loaded.timeline(loaded.parse(record))
    assert starts.tolist() == expected[0].tolist() == [0, 3, 6]
    np.testing.assert_array_equal(answer.classes, expected[1].classes)
    np.testing.assert_array_equal(answer.scores, expected[1].scores)


def test_an_error_without_words(exported, monkeypatch):
    def load(_):
        raise OSError

    monkeypatch.setattr(tf.saved_model, "load", load)
    with pytest.raises(InputError, match=r"does not load \(OSError\)"):
        ExportedModel(exported[0])


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
