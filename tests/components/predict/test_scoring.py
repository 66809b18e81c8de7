"""Answers in the records' order, whatever batches they were scored in."""

import dataclasses
import itertools

import numpy as np
import pytest

from components.predict.scoring import Settings, of_json, parse_window, score_window, to_json
from components.predict.windows import Refused, Window
from tests.components.predict.conftest import CLASSES, frame_payloads, video_payloads
from trainer import records
from trainer.exported_model import ExportedModel


def window_of(payloads):
    return Window([records.Record("s", i, 10 * i, one) for i, one in enumerate(payloads)])


def outcomes(model, payloads, **settings):
    parsed = parse_window(model, window_of(payloads))
    return score_window(model, parsed, Settings(**settings))


@pytest.mark.parametrize("level", ["frame", "video"])
def test_answers_are_the_model_s_in_the_records_order(level, frame_model, video_model):
    model = {"frame": frame_model, "video": video_model}[level]
    payloads = {"frame": frame_payloads, "video": video_payloads}[level](9)
    found = outcomes(model, payloads, batch_size=4)
    assert [(one.record, one.video_id) for one in found] == [(i, f"v{i}") for i in range(9)]
    for record, one in zip(window_of(payloads).records, found, strict=True):
        alone = model.answer([model.parse(record)])
        assert one.labels == records.parse(record).labels.tolist()
        by_class = {row["class"]: row for row in one.classes}
        assert len(by_class) == CLASSES
        for row in alone.rows()[0]:
            other = by_class[row["class"]]
            assert other["name"] == f"näme {row['class']}" == row["name"]
            assert other["score"] == pytest.approx(row["score"], abs=1e-6)


def test_videos_of_like_length_share_a_batch(frame_model, monkeypatch):
    """Beyond the frames that the model uses, all are alike."""
    seen = []

    def answer(videos):
        seen.append([min(video.num_frames, 8) for video in videos])
        return ExportedModel.answer(frame_model, videos)

    monkeypatch.setattr(frame_model, "answer", answer)
    outcomes(frame_model, frame_payloads(10), batch_size=4)
    assert [len(batch) for batch in seen] == [4, 4, 2]
    lengths = [*itertools.chain.from_iterable(seen)]
    assert lengths == sorted(lengths)


def test_what_has_no_answer_is_refused_where_it_stands(frame_model):
    payloads = frame_payloads(5)
    payloads[1] = video_payloads(1)[0]
    payloads[3] = b"garbage"
    video = records.parse(records.Record("s", 0, 0, payloads[4]))
    payloads[4] = records.encode(dataclasses.replace(video, labels=np.array([CLASSES])))
    found = outcomes(frame_model, payloads)
    assert [isinstance(one, Refused) for one in found] == [False, True, False, True, True]
    assert str(found[1].error()) == (
        "s: record 1 (at byte 10): is a video-level record, the model takes frame-level ones"
    )
    assert "neither a SequenceExample nor an Example" in found[3].reason
    assert found[4].reason == "label 12 is out of range, expected 0 to 11"


def test_scores_that_are_not_numbers(video_model, monkeypatch):
    def answer(videos):
        found = ExportedModel.answer(video_model, videos)
        scores = found.scores.copy()
        scores[1, 0] = np.nan
        return dataclasses.replace(found, scores=scores)

    monkeypatch.setattr(video_model, "answer", answer)
    found = outcomes(video_model, video_payloads(3))
    assert [isinstance(one, Refused) for one in found] == [False, True, False]
    assert "record 1 (at byte 10): the model's scores of it are not" in str(found[1].error())


def test_timelines_are_the_model_s(frame_model):
    payloads = frame_payloads(3)
    found = outcomes(frame_model, payloads, segments=True, top_k=2)
    for record, one in zip(window_of(payloads).records, found, strict=True):
        starts, answer = frame_model.timeline(records.parse(record))
        frames = records.parse(record).num_frames
        assert [start for start, _ in one.timeline] == starts.tolist() == list(range(0, frames, 3))
        assert [classes for _, classes in one.timeline] == answer.cut(2).rows()


def test_lines_give_back_what_they_were_made_of(frame_model):
    found = outcomes(frame_model, [*frame_payloads(2), b"x"], segments=True, top_k=1)
    for one in found:
        back = of_json(to_json(one))
        if back != one:  # a pair comes back as a list
            assert [tuple(row) for row in back.timeline] == one.timeline
            assert dataclasses.replace(back, timeline=None) == dataclasses.replace(
                one, timeline=None
            )
