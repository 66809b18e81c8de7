"""GAP@20, mAP, Hit@1 and PERR: exact over a whole data set, mergeable, NumPy only.

Definitions: Abu-El-Haija et al., "YouTube-8M: A Large-Scale Video Classification Benchmark",
arXiv 1609.08675, section 5, and google/youtube-8m's `eval_util`. Where scores tie:

* which classes enter a video's top 20: the lower class index first, as a prediction file would
  list them;
* in the pooled list of all videos, and in a class's list: the expectation over all orders of the
  tie, which is what google's random shuffle gives on average. So no order of videos, batches or
  shards changes the result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

TOP_K = 20


class Scores(NamedTuple):
    """The metrics of a data set; each in 0 … 1, higher is better.

    Attributes:
        gap: global average precision of the pooled top 20 predictions of every video.
        map: mean of the per-class average precision over classes that have positives.
        map_all_classes: the same over all classes; one without positives counts as 0.
        hit_at_1: share of videos whose best-scored class is a label.
        perr: mean over videos of the precision of as many predictions as the video has labels.
        videos: how many were scored, with or without labels.
        positives: labels of all videos.
    """

    gap: float
    map: float
    map_all_classes: float
    hit_at_1: float
    perr: float
    videos: int
    positives: int


def top_k(scores: ArrayLike, k: int) -> NDArray[np.int64]:
    """Class indices [N, min(k, C)] of the largest scores [N, C], best first, ties by index."""
    values = np.asarray(scores)
    k = min(k, values.shape[1])
    if k < values.shape[1]:
        kth = -np.partition(-values, k - 1, axis=1)[:, k - 1 : k]
        above = values > kth
        # Of the classes that tie at the k-th place, the first ones that fit.
        tied = values == kth
        room = k - above.sum(axis=1, keepdims=True)
        chosen = above | (tied & (np.cumsum(tied, axis=1) <= room))
        candidates = np.nonzero(chosen)[1].reshape(len(values), k)
    else:
        candidates = np.broadcast_to(np.arange(k), values.shape)
    best = np.take_along_axis(values, candidates, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(candidates, order, axis=1)


def average_precision(
    scores: NDArray[np.floating], hits: NDArray[np.bool_], positives: int
) -> float:
    """Sum over hits of the precision at their rank, divided by `positives`; 0 without positives.

    Args:
        scores: [N].
        hits: bool [N].
        positives: all that could have been hit, found or not.
    """
    if not positives:
        return 0.0
    _, terms = _precision_terms(np.zeros(len(scores), np.int32), scores, hits)
    return float(terms.sum() / positives)


def _precision_terms(
    lists: NDArray[np.integer], scores: NDArray[np.floating], hits: NDArray[np.bool_]
) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """Precision at each rank that is a hit, 0 at the others, of several ranked lists at once.

    Where n scores tie, r of them hits, with F hits before them, the expectation over the n! orders:
    place i of the tie is a hit with probability r/n, and then (i − 1)(r − 1)/(n − 1) of the other
    hits are expected at the places before it.

    Args:
        lists: int [N], the list that each entry is of.
        scores: [N].
        hits: bool [N].

    Returns:
        The list and the term of every rank, list after list, best first.
    """
    order = np.lexsort((-scores, lists))
    lists, scores, hits = lists[order], scores[order], hits[order]
    places = np.arange(len(lists))
    new_list = np.diff(lists, prepend=-1) != 0
    new_tie = new_list | (np.diff(scores, prepend=np.nan) != 0)
    list_start = np.maximum.accumulate(np.where(new_list, places, 0))
    tie_starts = np.flatnonzero(new_tie)
    tie = np.cumsum(new_tie) - 1
    size = np.diff(tie_starts, append=len(lists))
    found = np.concatenate([[0], np.cumsum(hits)])
    tied_hits = found[tie_starts + size] - found[tie_starts]
    n, r = size[tie], tied_hits[tie]
    before = found[tie_starts[tie]] - found[list_start]
    earlier = (places - tie_starts[tie]) * (r - 1) / np.maximum(n - 1, 1)
    return lists, r / n * (before + 1 + earlier) / (places - list_start + 1)


@dataclasses.dataclass
class MetricsAccumulator:
    """What the metrics need of the videos seen so far; add batches, merge workers.

    Keeps the top 20 of each video: 20 × (4 bytes score + 4 bytes class + 1 bit hit).

    Args:
        num_classes: C.
        k: predictions of a video that count, 20 by the challenge's rule.
    """

    num_classes: int
    k: int = TOP_K

    def __post_init__(self) -> None:
        self._classes: list[NDArray[np.int32]] = []
        self._scores: list[NDArray[np.float32]] = []
        self._hits: list[NDArray[np.bool_]] = []
        self._positives = np.zeros(self.num_classes, np.int64)
        self._hit_at_1 = 0
        # One term a video, summed at the end in sorted order: the same result for any batching.
        self._precision: list[NDArray[np.float64]] = []

    def add(self, scores: ArrayLike, labels: ArrayLike) -> None:
        """Add a batch.

        Args:
            scores: float [B, C], any monotone score.
            labels: bool or 0/1 [B, C].

        Raises:
            ValueError: shapes that do not fit, or a score that is not a number.
        """
        score = np.asarray(scores, np.float32)
        label = np.asarray(labels).astype(bool)
        if score.ndim != 2 or score.shape != label.shape or score.shape[1] != self.num_classes:
            raise ValueError(
                f"expected scores and labels of shape [B, {self.num_classes}], "
                f"received {score.shape} and {label.shape}"
            )
        if np.isnan(score).any():
            raise ValueError(f"score of row {int(np.isnan(score).any(axis=1).argmax())} is NaN")
        if not len(score):
            return
        counts = label.sum(axis=1)
        deepest = max(self.k, int(counts.max()))
        classes = top_k(score, deepest)
        hits = np.take_along_axis(label, classes, axis=1)
        self._hit_at_1 += int(hits[:, 0].sum())
        within = np.arange(hits.shape[1]) < counts[:, None]
        self._precision.append((hits & within).sum(axis=1) / np.maximum(counts, 1))
        self._positives += label.sum(axis=0)
        classes, hits = classes[:, : self.k], hits[:, : self.k]
        self._classes.append(classes.astype(np.int32))
        self._scores.append(np.take_along_axis(score, classes, axis=1))
        self._hits.append(hits)

    def merge(self, other: MetricsAccumulator) -> None:
        """Add what `other` has seen; `other` stays as it is.

        Raises:
            ValueError: another number of classes or another k.
        """
        if (self.num_classes, self.k) != (other.num_classes, other.k):
            raise ValueError(
                f"can not merge metrics of {other.num_classes} classes, k {other.k} "
                f"into {self.num_classes} classes, k {self.k}"
            )
        self._classes += other._classes
        self._scores += other._scores
        self._hits += other._hits
        self._precision += other._precision
        self._positives = self._positives + other._positives
        self._hit_at_1 += other._hit_at_1

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that was added, as arrays of one row a video (and `hit_at_1`, `positives`, of one).

        Those of several accumulators, joined row by row, are what `of_arrays` takes.
        """
        shape = (0, min(self.k, self.num_classes))
        return {
            "classes": np.concatenate([np.zeros(shape, np.int32), *self._classes]),
            "scores": np.concatenate([np.zeros(shape, np.float32), *self._scores]),
            "hits": np.concatenate([np.zeros(shape, bool), *self._hits]),
            "precision": np.concatenate([np.zeros(0), *self._precision]),
            "hit_at_1": np.array([self._hit_at_1], np.int64),
            "positives": self._positives[None],
        }

    @classmethod
    def of_arrays(
        cls, num_classes: int, arrays: Mapping[str, NDArray[Any]], k: int = TOP_K
    ) -> MetricsAccumulator:
        """The accumulator of everything that the accumulators of these arrays had seen."""
        found = cls(num_classes, k)
        found._classes, found._scores = [arrays["classes"]], [arrays["scores"]]
        found._hits, found._precision = [arrays["hits"]], [arrays["precision"]]
        found._hit_at_1 = int(arrays["hit_at_1"].sum())
        found._positives = arrays["positives"].sum(axis=0)
        return found

    @property
    def videos(self) -> int:
        return sum(map(len, self._precision))

    @property
    def positives(self) -> NDArray[np.int64]:
        """int64 [C]: labels of each class."""
        return self._positives.copy()

    def pooled(self) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.bool_]]:
        """Class, score and hit of every video's top k, each [videos · k]."""
        if not self._classes:
            return np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, bool)
        return (
            np.concatenate([part.ravel() for part in self._classes]),
            np.concatenate([part.ravel() for part in self._scores]),
            np.concatenate([part.ravel() for part in self._hits]),
        )

    def class_average_precision(self) -> NDArray[np.float64]:
        """float64 [C]: average precision of each class, NaN for a class without positives.

        From each video's top k, with all positives in the denominator, as google/youtube-8m.
        """
        classes, terms = _precision_terms(*self.pooled())
        sums = np.bincount(classes, terms, self.num_classes)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self._positives > 0, sums / self._positives, np.nan)

    def result(self) -> Scores:
        """The metrics of everything added.

        Raises:
            ValueError: nothing was added, or no video has a label.
        """
        positives = int(self._positives.sum())
        if not positives:
            raise ValueError(f"no labels in {self.videos} videos: nothing to evaluate against")
        _, scores, hits = self.pooled()
        class_ap = self.class_average_precision()
        return Scores(
            gap=average_precision(scores, hits, positives),
            map=float(np.nanmean(class_ap)),
            map_all_classes=float(np.nansum(class_ap) / self.num_classes),
            hit_at_1=self._hit_at_1 / self.videos,
            perr=float(np.sort(np.concatenate(self._precision)).mean()),
            videos=self.videos,
            positives=positives,
        )


def evaluate(scores: ArrayLike, labels: ArrayLike, k: int = TOP_K) -> Scores:
    """The metrics of arrays: scores [N, C] and labels [N, C]."""
    accumulator = MetricsAccumulator(np.shape(scores)[1], k)
    accumulator.add(scores, labels)
    return accumulator.result()
