"""Prediction files in the forms of the YouTube-8M challenges.

Of videos: `VideoId,LabelConfidencePairs`, one video a line, `id,class score class score …`, best
first (https://github.com/google/youtube-8m, `inference.py`). Of segments: `Class,Segments`, one
class a line, `class,id:start id:start …`, best first, at most 100,000
(https://www.kaggle.com/c/youtube8m-2019/overview/evaluation).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainer.errors import InputError
from trainer.files import atomic_file
from trainer.metrics import TOP_K, top_k
from trainer.metrics.segments import MOST

HEADER = ("VideoId", "LabelConfidencePairs")
SEGMENTS_HEADER = ("Class", "Segments")


def write_predictions(
    path: str | os.PathLike[str], video_ids: Sequence[str], scores: ArrayLike, k: int = TOP_K
) -> None:
    """Write the `k` best classes of each video; `scores` is [N, C]."""
    values = np.asarray(scores)
    classes = top_k(values, k)
    write_top_predictions(path, video_ids, classes, np.take_along_axis(values, classes, axis=1))


def write_top_predictions(
    path: str | os.PathLike[str], video_ids: Sequence[str], classes: ArrayLike, scores: ArrayLike
) -> None:
    """Write classes and scores [N, k], each row best first."""
    rows = zip(video_ids, np.asarray(classes), np.asarray(scores), strict=True)
    with atomic_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for video_id, best, best_scores in rows:
            pairs = (f"{index} {score:.6g}" for index, score in zip(best, best_scores, strict=True))
            writer.writerow((video_id, " ".join(pairs)))


def write_segment_predictions(
    path: str | os.PathLike[str],
    classes: ArrayLike,
    scores: ArrayLike,
    video_ids: Sequence[str],
    starts: ArrayLike,
    most: int = MOST,
) -> None:
    """Write the best segments of each class; classes without one have no line.

    Args:
        path: to write.
        classes, scores, video_ids, starts: [E] of each scored (segment, class): the class, its
            score, the video and the segment's first second. Of equal scores the first one is
            first.
        most: segments of a class.
    """
    label, score, start = np.asarray(classes), np.asarray(scores), np.asarray(starts)
    order = np.lexsort((-score, label))
    with atomic_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SEGMENTS_HEADER)
        bounds = np.flatnonzero(np.diff(label[order])) + 1
        for entries in np.split(order, bounds):
            if len(entries):
                named = (f"{video_ids[entry]}:{start[entry]}" for entry in entries[:most])
                writer.writerow((int(label[entries[0]]), " ".join(named)))


def read_predictions(
    path: str | os.PathLike[str], num_classes: int
) -> dict[str, NDArray[np.float32]]:
    """Scores [C] of each video id; classes that the file does not name score 0.

    Raises:
        InputError: no such file, another header, a line that is no list of pairs, or a class out
            of range.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise InputError(f"{name}: no such file")
    predictions: dict[str, NDArray[np.float32]] = {}
    with Path(path).open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        if (header := tuple(next(lines, ()))) != HEADER:
            raise InputError(
                f"{name}: starts with {','.join(header)!r}, expected {','.join(HEADER)!r}"
            )
        for number, line in enumerate(lines, start=2):
            try:
                video_id, pairs = line
                words = np.array(pairs.split()).reshape(-1, 2)
                classes = words[:, 0].astype(np.int64)
                if (classes < 0).any():
                    raise ValueError(f"class {classes.min()}")
                scores = np.zeros(num_classes, np.float32)
                scores[classes] = words[:, 1].astype(np.float32)
            except (ValueError, IndexError) as error:
                raise InputError(
                    f"{name}: line {number}: expected `class score …` ({error})"
                ) from None
            predictions[video_id] = scores
    return predictions
