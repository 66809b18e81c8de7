"""Rows by hand, and GAP@20 against the metrics of all scores at once."""

import json

import numpy as np
import pytest

from components.predict.prediction_files import PredictionFiles
from components.predict.scoring import Predicted
from components.predict.windows import Refused
from trainer.errors import InputError
from trainer.metrics import evaluate

NAMES = ("käse", "brot", "wein")


def predicted(number, video_id, scores, labels=(), timeline=None):
    order = np.argsort(-np.asarray(scores))
    classes = [
        {"class": int(i), "name": NAMES[i], "vertical": "food", "score": scores[i]} for i in order
    ]
    return Predicted("s", number, video_id, list(labels), classes, timeline)


def lines(folder, name):
    return (folder / name).read_text().splitlines()


def test_rows_by_hand(tmp_path):
    with PredictionFiles(tmp_path, 3, 3, 2) as files:
        files.add([predicted(0, "ab,c", [0.1, 0.25, 0.123456789])])
        files.add([predicted(1, "dé", [1e-7, 0.0, 1.0])])
        files.finish()
    assert lines(tmp_path, "predictions.csv") == [
        "VideoId,LabelConfidencePairs", '"ab,c",1 0.25 2 0.123457', "dé,2 1 0 1e-07",
    ]  # fmt: skip
    assert lines(tmp_path, "predictions.jsonl")[0] == (
        '{"id": "ab,c", "classes": [{"class": 1, "name": "brot", "vertical": "food", '
        '"score": 0.25}, {"class": 2, "name": "wein", "vertical": "food", "score": 0.123457}]}'
    )
    assert (files.videos, files.refused, files.gap()) == (2, 0, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "predictions.csv", "predictions.jsonl",
    ]  # fmt: skip


def test_timelines_by_hand(tmp_path):
    def row(index, score):
        return {"class": index, "name": NAMES[index], "vertical": "food", "score": score}

    timeline = [(0, [row(2, 0.5)]), (5, [row(2, 0.75)]), (10, [row(0, 0.125)])]
    with PredictionFiles(tmp_path, 3, 3, 1, segments=True) as files:
        files.add([predicted(0, "a", [0.1, 0.2, 0.3], timeline=timeline)])
        files.finish()
    assert lines(tmp_path, "segments.csv") == ["Class,Segments", "0,a:10", "2,a:5 a:0"]
    (line,) = lines(tmp_path, "segments.jsonl")
    assert json.loads(line) == {
        "id": "a",
        "segments": [{"start": start, "classes": classes} for start, classes in timeline],
    }


def test_gap_is_that_of_all_scores(tmp_path, rng):
    scores = rng.random((40, 3))
    labels = rng.random((40, 3)) < 0.4
    labels[3] = False
    every = [
        predicted(i, f"v{i}", one.tolist(), np.flatnonzero(labels[i]).tolist())
        for i, one in enumerate(scores)
    ]
    with PredictionFiles(tmp_path, 3, 3, 1) as files:
        for start in range(0, 40, 7):
            files.add(every[start : start + 7])
    found = files.gap()
    assert found["labelled_videos"] == labels.any(axis=1).sum()
    expected = evaluate(scores.astype(np.float32), labels).gap
    assert found["gap_at_20"] == pytest.approx(expected, abs=1e-12)


def test_no_gap_where_answers_are_not_deep_enough_or_too_many(tmp_path, monkeypatch):
    one = predicted(0, "a", [0.1, 0.2, 0.3], [1])
    with PredictionFiles(tmp_path, 21, 19, 2) as files:
        files.add([one])
    assert files.gap() == {"labelled_videos": 1}
    monkeypatch.setattr("components.predict.prediction_files.MOST_MEASURED", 1)
    with PredictionFiles(tmp_path, 3, 3, 2) as files:
        files.add([one])
        assert "gap_at_20" in files.gap()
        files.add([one])
    assert files.gap() == {"labelled_videos": 2}


def test_refused_records(tmp_path):
    refused = Refused("s", 7, 90, "is damaged")
    with (
        PredictionFiles(tmp_path, 3, 3, 2) as files,
        pytest.raises(InputError, match=r"s: record 7 \(at byte 90\): is damaged"),
    ):
        files.add([refused])
    with PredictionFiles(tmp_path, 3, 3, 2, skip_damaged=True) as files:
        files.add([refused])
        with pytest.raises(InputError, match=r"no record could be scored, of 1 refused ones: s: "):
            files.finish()
        files.add([predicted(0, "a", [0.1, 0.2, 0.3]), refused])
        files.finish()
    assert (files.videos, files.refused, files.listed) == (1, 2, [refused, refused])
    assert json.loads(lines(tmp_path, "refused.jsonl")[1]) == refused.as_dict()
