import re

import numpy as np
import pytest

from trainer.errors import InputError
from trainer.prediction import (
    BestSegments,
    read_predictions,
    write_predictions,
    write_segment_predictions,
)


def test_a_file_by_hand(tmp_path):
    path = tmp_path / "predictions.csv"
    write_predictions(path, ["ab,c", "d"], [[0.1, 0.9, 0.5], [1e-7, 0.25, 0.5]], k=2)
    assert path.read_text() == (
        'VideoId,LabelConfidencePairs\n"ab,c",1 0.9 2 0.5\nd,2 0.5 1 0.25\n'
    )
    scores = read_predictions(path, 3)
    np.testing.assert_allclose(scores["ab,c"], [0, 0.9, 0.5], rtol=1e-6)
    np.testing.assert_allclose(scores["d"], [0, 0.25, 0.5])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "starts with ''"),
        ("Id,Pairs\n", "starts with 'Id,Pairs', expected 'VideoId,LabelConfidencePairs'"),
        ("VideoId,LabelConfidencePairs\na,1 0.5 2\n", "line 2: expected"),
        ("VideoId,LabelConfidencePairs\na,1 x\n", "line 2: expected"),
        ("VideoId,LabelConfidencePairs\na,3 0.5\n", "line 2: expected"),
        ("VideoId,LabelConfidencePairs\na,-1 0.5\n", "line 2: expected"),
    ],
)
def test_what_is_wrong_is_said(content, words, tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(f"{path}: {words}")):
        read_predictions(path, 3)
    with pytest.raises(InputError, match="no such file"):
        read_predictions(tmp_path / "absent", 3)


def test_the_segment_form_by_hand(tmp_path):
    write_segment_predictions(
        tmp_path / "s.csv",
        classes=[7, 3, 7, 7, 3],
        scores=[0.2, 0.5, 0.9, 0.2, 0.6],
        video_ids=["aaaa", "bbbb", "aaaa", "cccc", "cccc"],
        starts=[0, 5, 10, 15, 20],
        most=2,
    )
    assert (tmp_path / "s.csv").read_text() == (
        "Class,Segments\n3,cccc:20 bbbb:5\n7,aaaa:10 aaaa:0\n"
    )


def test_no_segment_no_line(tmp_path):
    write_segment_predictions(tmp_path / "s.csv", [], [], [], [])
    assert (tmp_path / "s.csv").read_text() == "Class,Segments\n"


@pytest.mark.parametrize("room", [0, 7, 1 << 20])
def test_segments_that_come_one_after_the_other(room, rng, tmp_path):
    """Whatever is let go on the way, the file is that of all of them; scores tie."""
    best = BestSegments(most=4, room=room)
    every = []
    for number in range(40):
        windows = int(rng.integers(1, 5))
        classes = rng.integers(0, 3, (windows, 2))
        scores = rng.integers(1, 6, (windows, 2)) / 8
        best.add(f"v{number}", np.arange(windows) * 5, classes, scores)
        every += [
            (classes[w, k], scores[w, k], f"v{number}", w * 5)
            for w in range(windows)
            for k in range(2)
        ]
    best.write(tmp_path / "streamed.csv")
    write_segment_predictions(tmp_path / "whole.csv", *zip(*every, strict=True), most=4)
    lines = (tmp_path / "whole.csv").read_text()
    assert (tmp_path / "streamed.csv").read_text() == lines
    assert [len(line.split()) for line in lines.splitlines()[1:]] == [4, 4, 4]


def test_no_segment_came(tmp_path):
    BestSegments().write(tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "Class,Segments\n"
