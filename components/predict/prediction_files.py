"""The files of a prediction, written as answers come: nothing of them is kept in memory.

But for what needs all of them: GAP@20 (180 bytes a video, up to a bound) and the best segments of
each class (at most 100,000).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from components.predict.scoring import Classes, Outcome, Predicted
from components.predict.windows import Refused
from trainer.errors import InputError
from trainer.metrics import TOP_K, MetricsAccumulator, dense_scores
from trainer.prediction import BestSegments, PredictionWriter

PREDICTIONS, READABLE = "predictions.csv", "predictions.jsonl"
SEGMENTS, TIMELINES = "segments.csv", "segments.jsonl"
REFUSED = "refused.jsonl"
SUMMARY = "summary.json"
LISTED = 100
"""Refused records that the summary lists; all are in their own file."""
SHOWN = 5
"""Videos that are shown at the end."""
MOST_MEASURED = 2_000_000
"""Videos up to which GAP@20 is kept account of: 0.4 GB."""


class PredictionFiles:
    """Writes into a folder; a context.

    Args:
        folder: that exists.
        num_classes: C of the model.
        model_k: classes of its answers.
        top_k: of them, written.
        segments: whether outcomes have timelines.
        skip_damaged: whether a refused record is passed over.

    Attributes:
        videos, refused: how many answers and how many records without one.
        first: the first answers.
        listed: the first refused ones.
    """

    def __init__(
        self,
        folder: Path,
        num_classes: int,
        model_k: int,
        top_k: int,
        segments: bool = False,
        skip_damaged: bool = False,
    ) -> None:
        self._folder, self._top_k, self._skip_damaged = folder, top_k, skip_damaged
        self._num_classes = num_classes
        self.videos = self.refused = self._labelled = 0
        self.first: list[Predicted] = []
        self.listed: list[Refused] = []
        self._metrics: MetricsAccumulator | None = None
        if model_k >= min(TOP_K, num_classes):
            self._metrics = MetricsAccumulator(num_classes)
        self._segments = BestSegments() if segments else None
        self._held = contextlib.ExitStack()

    def __enter__(self) -> PredictionFiles:
        self._csv = PredictionWriter(self._opened(PREDICTIONS))
        self._readable = self._opened(READABLE)
        self._timelines = self._opened(TIMELINES) if self._segments else None
        self._refused: TextIO | None = None
        return self

    def __exit__(self, *error: Any) -> None:
        self._held.close()

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Write some outcomes.

        Raises:
            InputError: a record was refused, and none is passed over.
        """
        answers = []
        for outcome in outcomes:
            if isinstance(outcome, Refused):
                self._refuse(outcome)
            else:
                answers.append(outcome)
                self._write(outcome)
        self._measure(answers)

    def finish(self) -> None:
        """Write what needs all answers.

        Raises:
            InputError: there is none.
        """
        if not self.videos:
            why = f": {self.listed[0].error()}" if self.listed else ""
            raise InputError(f"no record could be scored, of {self.refused:,} refused ones{why}")
        if self._segments is not None:
            self._segments.write(self._folder / SEGMENTS)

    def gap(self) -> dict[str, Any]:
        """`gap_at_20` and `labelled_videos`, where the records have labels and the model's
        answers are deep enough."""
        if not self._labelled:
            return {}
        known = {"labelled_videos": self._labelled}
        return known if self._metrics is None else {"gap_at_20": self._metrics.gap(), **known}

    def _opened(self, name: str) -> TextIO:
        return self._held.enter_context(
            (self._folder / name).open("w", newline="", encoding="utf-8")
        )

    def _refuse(self, refused: Refused) -> None:
        if not self._skip_damaged:
            raise refused.error()
        self.refused += 1
        if len(self.listed) < LISTED:
            self.listed.append(refused)
        if self._refused is None:
            self._refused = self._opened(REFUSED)
        self._refused.write(f"{_line(refused.as_dict())}\n")

    def _write(self, one: Predicted) -> None:
        classes = one.classes[: self._top_k]
        self._csv.write(
            one.video_id, [row["class"] for row in classes], [row["score"] for row in classes]
        )
        self._readable.write(_line({"id": one.video_id, "classes": _readable(classes)}) + "\n")
        if self._segments is not None and self._timelines and one.timeline is not None:
            rows = [{"start": start, "classes": _readable(found)} for start, found in one.timeline]
            self._timelines.write(_line({"id": one.video_id, "segments": rows}) + "\n")
            self._segments.add(
                one.video_id,
                [start for start, _ in one.timeline],
                [[row["class"] for row in found] for _, found in one.timeline],
                [[row["score"] for row in found] for _, found in one.timeline],
            )
        self.videos += 1
        if len(self.first) < SHOWN:
            self.first.append(one)

    def _measure(self, answers: list[Predicted]) -> None:
        self._labelled += sum(bool(one.labels) for one in answers)
        if self.videos > MOST_MEASURED:
            self._metrics = None
        if self._metrics is None or not answers:
            return
        classes, told = (
            np.array([[found[key] for found in one.classes] for one in answers])
            for key in ("class", "score")
        )
        scores = dense_scores(classes, told, self._num_classes)
        labels = np.zeros(scores.shape, bool)
        for row, one in enumerate(answers):
            labels[row, one.labels] = True
        self._metrics.add(scores, labels)


def _readable(classes: Classes) -> Classes:
    """Scores as the challenge's file has them, in six digits."""
    return [row | {"score": float(f"{row['score']:.6g}")} for row in classes]


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False)
