"""The metrics of a data set from its batches, in any order, by any number of workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trainer.metrics.ranking import (
    TOP_K,
    Ranked,
    as_scores,
    average_precision,
    class_lists,
    precision_sums,
    rank,
)

_ROWS = 256
"""Videos that are ranked at once: their scores stay in the processor's cache."""


class Scores(NamedTuple):
    """The metrics of a data set; each in 0 … 1, higher is better.

    Attributes:
        gap: global average precision of the pooled top 20 predictions of every video.
        map: mean of the per-class average precision over classes that have positives.
        map_all_classes: the same over all classes; one without positives counts as 0.
        hit_at_1: share of videos whose best-scored class is a label.
        perr: precision at equal recall rate: mean over videos of the precision of as many
            predictions as the video has labels; as in `eval_util`, only scores above 0 count as
            found, and a video without labels counts as 0.
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


class Pooled(NamedTuple):
    """The top k predictions of all videos in one list, [videos · k], video after video.

    Attributes:
        classes: int32.
        scores: float32, or float64 where such were added.
        hits: bool, whether the class is a label of the video.
    """

    classes: NDArray[np.int32]
    scores: NDArray[np.floating[Any]]
    hits: NDArray[np.bool_]


@dataclasses.dataclass
class MetricsAccumulator:
    """What the metrics need of the videos seen so far; add batches, merge workers.

    Keeps the top 20 of each video: 20 × (4 bytes score + 4 bytes class + 1 byte hit). Of the 1.1
    million videos of YouTube-8M's validate partition that is 0.2 GB, and `result` takes 0.8 more.

    Args:
        num_classes: C.
        k: predictions of a video that count, 20 by the challenge's rule; of fewer classes, all.
    """

    num_classes: int
    k: int = TOP_K

    def __post_init__(self) -> None:
        if self.num_classes < 1 or self.k < 1:
            raise ValueError(
                f"expected a class and k of 1 at least, received {self.num_classes} "
                f"classes and k {self.k}"
            )
        self._classes: list[NDArray[np.int32]] = []
        self._scores: list[NDArray[np.floating[Any]]] = []
        self._hits: list[NDArray[np.bool_]] = []
        self._counts: list[NDArray[np.int32]] = []
        self._positives = np.zeros(self.num_classes, np.int64)
        self._hit_at_1 = 0
        # One term a video, summed at the end in sorted order: the same result for any batching.
        self._precision: list[NDArray[np.float64]] = []

    def add(self, scores: ArrayLike, labels: ArrayLike) -> None:
        """Add a batch.

        Args:
            scores: [B, C], any monotone score.
            labels: [B, C], above 0 where the class is a label.

        Raises:
            ValueError: shapes that do not fit, or a score or label that is not a number; nothing
                is added.
        """
        for ranked in self.ranked(scores, labels):
            self.add_ranked(ranked)

    def ranked(self, scores: ArrayLike, labels: ArrayLike) -> list[Ranked]:
        """A batch as `add_ranked` takes it, for who needs it for more than these metrics.

        Raises:
            ValueError: as `add`.
        """
        score = as_scores(scores)
        label = np.asarray(labels)
        if score.ndim != 2 or score.shape != label.shape or score.shape[1] != self.num_classes:
            raise ValueError(
                f"expected scores and labels of shape [B, {self.num_classes}], "
                f"received {score.shape} and {label.shape}"
            )
        return [
            self._rank(score[start : start + _ROWS], label[start : start + _ROWS], start)
            for start in range(0, len(score), _ROWS)
        ]

    def _rank(self, score: NDArray[Any], label: NDArray[Any], start: int) -> Ranked:
        score = np.ascontiguousarray(score)
        for name, values in (("score", score), ("label", label)):
            if values.dtype.kind != "f":
                continue
            with np.errstate(all="ignore"):
                total = values.sum()
            # The sum is a number unless one of them is none, or both infinities are there.
            if np.isnan(total) and (unknown := np.isnan(values).any(axis=1)).any():
                raise ValueError(f"{name} of row {start + int(unknown.argmax())} is NaN")
        return rank(score, label > 0, self.k)

    def add_ranked(self, ranked: Ranked) -> None:
        """Add what `ranked` gave."""
        self._hit_at_1 += int(ranked.hits[:, 0].sum())
        found = ranked.hits & ranked.within & (ranked.scores > 0)
        self._precision.append(found.sum(axis=1) / np.maximum(ranked.counts, 1))
        self._counts.append(ranked.counts.astype(np.int32))
        self._positives += ranked.labels.sum(axis=0)
        # Copies, as what is deeper than k is not kept.
        self._classes.append(ranked.classes[:, : self.k].astype(np.int32))
        self._scores.append(ranked.scores[:, : self.k].copy())
        self._hits.append(ranked.hits[:, : self.k].copy())

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
        self._counts += other._counts
        self._precision += other._precision
        self._positives = self._positives + other._positives
        self._hit_at_1 += other._hit_at_1

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that was added, as arrays of one row a video (and `hit_at_1`, `positives`, of one).

        Those of several accumulators, joined row by row, are what `of_arrays` takes.
        """
        shape = (0, min(self.k, self.num_classes))
        # Joined once: they are asked for often.
        self._classes = [_joined(self._classes, np.zeros(shape, np.int32))]
        self._scores = [_joined(self._scores, np.zeros(shape, np.float32))]
        self._hits = [_joined(self._hits, np.zeros(shape, bool))]
        self._counts = [_joined(self._counts, np.zeros(0, np.int32))]
        self._precision = [_joined(self._precision, np.zeros(0))]
        return {
            "classes": self._classes[0],
            "scores": self._scores[0],
            "hits": self._hits[0],
            "counts": self._counts[0],
            "precision": self._precision[0],
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
        found._counts = [arrays["counts"]]
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

    @property
    def counts(self) -> NDArray[np.int32]:
        """int32 [videos]: labels of each video."""
        return _joined(self._counts, np.zeros(0, np.int32))

    def pooled(self) -> Pooled:
        """Class, score and hit of every video's top k, each [videos · k]."""
        arrays = self.arrays()
        return Pooled(*(arrays[name].ravel() for name in Pooled._fields))

    def class_average_precision(self) -> NDArray[np.float64]:
        """float64 [C]: average precision of each class, NaN for a class without positives.

        From each video's top k, with all positives in the denominator, as google/youtube-8m.
        """
        pooled = self.pooled()
        order, lengths = class_lists(pooled.classes, pooled.scores, self.num_classes)
        sums = precision_sums(pooled.scores[order], pooled.hits[order], lengths)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self._positives > 0, sums / self._positives, np.nan)

    def gap(self) -> float:
        """Global average precision; 0 where no video has a label."""
        pooled = self.pooled()
        return average_precision(pooled.scores, pooled.hits, int(self._positives.sum()))

    def result(self) -> Scores:
        """The metrics of everything added.

        Raises:
            ValueError: nothing was added, or no video has a label.
        """
        positives = int(self._positives.sum())
        if not positives:
            raise ValueError(f"no labels in {self.videos} videos: nothing to evaluate against")
        class_ap = self.class_average_precision()
        return Scores(
            gap=self.gap(),
            map=float(np.nanmean(class_ap)),
            map_all_classes=float(np.nansum(class_ap) / self.num_classes),
            hit_at_1=self._hit_at_1 / self.videos,
            perr=float(np.sort(np.concatenate(self._precision)).mean()),
            videos=self.videos,
            positives=positives,
        )


def _joined(parts: list[NDArray[Any]], empty: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else empty


def evaluate(scores: ArrayLike, labels: ArrayLike, k: int = TOP_K) -> Scores:
    """The metrics of arrays: scores [N, C] and labels [N, C].

    Raises:
        ValueError: shapes that do not fit, a score that is NaN, or no label at all.
    """
    if np.ndim(scores) != 2:
        raise ValueError(f"expected scores of shape [N, C], received {np.shape(scores)}")
    accumulator = MetricsAccumulator(np.shape(scores)[1], k)
    accumulator.add(scores, labels)
    return accumulator.result()
