"""MAP@100,000 of segments: the metric of the third YouTube-8M challenge.

Human raters judged some (segment, class) pairs; only those count. A class's list has its rated
segments, best first, of which the first 100,000 are scored
(https://www.kaggle.com/c/youtube8m-2019/overview/evaluation).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainer.metrics.ranking import as_scores, average_precision, class_lists, precision_sums

MOST = 100_000


class SegmentScores(NamedTuple):
    """The metrics of rated segments; each in 0 … 1, higher is better.

    Attributes:
        map: mean over classes that have positives of the average precision of their first 100,000
            rated segments, with min(positives, 100,000) in the denominator.
        ap: average precision of all rated pairs in one list.
        classes: that have positives.
        pairs: rated, of all classes.
        positives: pairs that were rated as right.
    """

    map: float
    ap: float
    classes: int
    pairs: int
    positives: int


@dataclasses.dataclass
class SegmentAccumulator:
    """The rated pairs seen so far; add batches, merge workers.

    Keeps 9 bytes of each, where scores are float32.

    Args:
        num_classes: C.
        most: segments of a class that count.
    """

    num_classes: int
    most: int = MOST

    def __post_init__(self) -> None:
        self._classes: list[NDArray[np.int32]] = []
        self._scores: list[NDArray[np.floating[Any]]] = []
        self._hits: list[NDArray[np.bool_]] = []

    def add(self, scores: ArrayLike, labels: ArrayLike, rated: ArrayLike) -> None:
        """Add a batch of segments.

        Args:
            scores: [B, C].
            labels: [B, C], above 0 where a rater found the class in the segment.
            rated: [B, C], above 0 where a rater judged.

        Raises:
            ValueError: shapes that do not fit, or a rated pair's score that is not a number.
        """
        score, label = as_scores(scores), np.asarray(labels)
        chosen = np.asarray(rated) > 0
        shapes = score.shape, label.shape, chosen.shape
        if len(set(shapes)) > 1 or score.ndim != 2 or score.shape[1] != self.num_classes:
            raise ValueError(
                f"expected scores, labels and ratings of shape [B, {self.num_classes}], received "
                f"{', '.join(map(str, shapes))}"
            )
        rows, classes = np.nonzero(chosen)
        picked = score[rows, classes]
        if np.isnan(picked).any():
            raise ValueError(f"score of row {rows[np.isnan(picked).argmax()]} is NaN")
        self._classes.append(classes.astype(np.int32))
        self._scores.append(picked)
        self._hits.append(label[rows, classes] > 0)

    def merge(self, other: SegmentAccumulator) -> None:
        """Add what `other` has seen; `other` stays as it is.

        Raises:
            ValueError: another number of classes, or of segments that count.
        """
        if (self.num_classes, self.most) != (other.num_classes, other.most):
            raise ValueError(
                f"can not merge segments of {other.num_classes} classes, {other.most} of each, "
                f"into {self.num_classes} classes, {self.most} of each"
            )
        self._classes += other._classes
        self._scores += other._scores
        self._hits += other._hits

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All pairs, one a row; of several accumulators, joined, what `of_arrays` takes."""
        return {
            "classes": np.concatenate([np.zeros(0, np.int32), *self._classes]),
            "scores": np.concatenate([np.zeros(0, np.float32), *self._scores]),
            "hits": np.concatenate([np.zeros(0, bool), *self._hits]),
        }

    @classmethod
    def of_arrays(
        cls, num_classes: int, arrays: Mapping[str, NDArray[Any]], most: int = MOST
    ) -> SegmentAccumulator:
        """The accumulator of everything that the accumulators of these arrays had seen."""
        found = cls(num_classes, most)
        found._classes, found._scores = [arrays["classes"]], [arrays["scores"]]
        found._hits = [arrays["hits"]]
        return found

    @property
    def positives(self) -> NDArray[np.int64]:
        """int64 [C]: pairs of each class that were rated as right."""
        arrays = self.arrays()
        return np.bincount(arrays["classes"][arrays["hits"]], minlength=self.num_classes)

    def class_average_precision(self) -> NDArray[np.float64]:
        """float64 [C]: of each class's first `most` segments; NaN for one without positives."""
        arrays = self.arrays()
        hits, positives = arrays["hits"], self.positives
        order, lengths = class_lists(arrays["classes"], arrays["scores"], self.num_classes)
        sums = precision_sums(arrays["scores"][order], hits[order], lengths, self.most)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(positives > 0, sums / np.minimum(positives, self.most), np.nan)

    def result(self) -> SegmentScores:
        """The metrics of everything added.

        Raises:
            ValueError: no pair was rated as right.
        """
        arrays, positives = self.arrays(), self.positives
        if not positives.any():
            raise ValueError(
                f"none of {len(arrays['hits']):,} rated pairs is a positive: nothing to evaluate "
                "against"
            )
        return SegmentScores(
            map=float(np.nanmean(self.class_average_precision())),
            ap=average_precision(arrays["scores"], arrays["hits"], int(positives.sum())),
            classes=int((positives > 0).sum()),
            pairs=len(arrays["hits"]),
            positives=int(positives.sum()),
        )
