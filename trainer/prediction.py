"""Prediction files in the forms of the YouTube-8M challenges.

Of videos: `VideoId,LabelConfidencePairs`, one video a line, `id,class score class score …`, best
first (https://github.com/google/youtube-8m, `inference.py`). Of segments: `Class,Segments`, one
class a line, `class,id:start id:start …`, best first, at most 100,000
(https://www.kaggle.com/c/youtube8m-2019/overview/evaluation).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

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
        writer = PredictionWriter(file)
        for row in rows:
            writer.write(*row)


class PredictionWriter:
    """The form of videos, a line at a time.

    Args:
        file: opened for text in UTF-8 with `newline=""`; the header is written at once.
    """

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(HEADER)

    def write(self, video_id: str, classes: ArrayLike, scores: ArrayLike) -> None:
        """Write classes and scores [k] of a video, best first."""
        pairs = zip(np.asarray(classes), np.asarray(scores), strict=True)
        self._writer.writerow((video_id, " ".join(f"{index} {one:.6g}" for index, one in pairs)))


def write_segment_predictions(
    path: str | os.PathLike[str],
    classes: ArrayLike,
    scores: ArrayLike,
    video_ids: Sequence[str] | NDArray[Any],
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
    label, start = np.asarray(classes), np.asarray(starts)
    with atomic_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SEGMENTS_HEADER)
        for entries in _best_of_each(label, np.asarray(scores), most):
            named = (f"{video_ids[entry]}:{start[entry]}" for entry in entries)
            writer.writerow((int(label[entries[0]]), " ".join(named)))


class BestSegments:
    """The best segments of each class of any number of videos, for `write_segment_predictions`.

    Keeps 32 bytes of each, and the ids of their videos: of at most `most` of each class, and of
    those that came since the others were let go, at most `room` or as many again.

    Args:
        most: segments of a class.
        room: entries that are kept before any is let go.
    """

    def __init__(self, most: int = MOST, room: int = 1 << 20) -> None:
        self._most, self._room = most, room
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._count = self._kept = 0

    def add(self, video_id: str, starts: ArrayLike, classes: ArrayLike, scores: ArrayLike) -> None:
        """Add a video: `starts` [W], classes and scores [W,k] of its windows."""
        label = np.asarray(classes, np.int64)
        start = np.repeat(np.asarray(starts, np.int64), label.shape[1])
        ids = np.full(label.size, video_id, object)
        self._parts.append((label.ravel(), np.asarray(scores, np.float64).ravel(), ids, start))
        self._count += label.size
        if self._count > 2 * self._kept + self._room:
            arrays = self._arrays()
            kept = [*_best_of_each(arrays[0], arrays[1], self._most)]
            chosen = np.sort(np.concatenate(kept))  # of equal scores the first stays the first
            self._parts = [tuple(values[chosen] for values in arrays)]
            self._count = self._kept = len(chosen)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file."""
        classes, scores, video_ids, starts = self._arrays()
        write_segment_predictions(path, classes, scores, video_ids, starts, self._most)

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        kinds = (np.int64, np.float64, object, np.int64)
        parts = [*self._parts, tuple(np.zeros(0, kind) for kind in kinds)]
        return tuple(np.concatenate(values) for values in zip(*parts, strict=True))


def _best_of_each(
    label: NDArray[Any], score: NDArray[Any], most: int
) -> Iterator[NDArray[np.int64]]:
    """Of each class that there is, ascending, the places of its best entries, best first."""
    order = np.lexsort((-score, label))
    bounds = np.flatnonzero(np.diff(label[order])) + 1
    for entries in np.split(order, bounds):
        if len(entries):
            yield entries[:most]


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
