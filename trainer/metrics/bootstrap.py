"""How sure a GAP, or the difference of two, is: the paired bootstrap over videos.

A resample draws N of the N videos with replacement and scores all models on the same draw, so that
what makes a video hard for all of them cancels out of the difference (Efron and Tibshirani, "An
Introduction to the Bootstrap", 1993, chapters 13 and 16). Interval ends are percentiles.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from trainer.metrics.accumulator import MetricsAccumulator
from trainer.metrics.ranking import average_precision

_NEW_TIE, _HIT, _VIDEO_SHIFT = 1, 2, 2


@dataclasses.dataclass(frozen=True)
class Interval:
    """Of a number, at a confidence; `low` and `high` are percentiles of the resamples."""

    value: float
    low: float
    high: float


class Predictions(NamedTuple):
    """What a model said of N videos, in one list.

    Attributes:
        videos: int [E], number of each prediction's video.
        scores: [E].
        hits: bool [E].
        positives: int [N], labels of each video.
    """

    videos: NDArray[np.integer[Any]]
    scores: NDArray[np.floating[Any]]
    hits: NDArray[np.bool_]
    positives: NDArray[np.integer[Any]]

    @classmethod
    def of(cls, metrics: MetricsAccumulator) -> Predictions:
        """The pooled top k of every video."""
        _, scores, hits = metrics.pooled()
        counts = metrics.counts
        each = len(scores) // max(1, len(counts))
        return cls(np.repeat(np.arange(len(counts), dtype=np.int32), each), scores, hits, counts)


class PairedBootstrap:
    """GAPs of several models on the same resamples of their videos.

    Args:
        models: what each said of the same videos, in the same order.
        resamples: how many.
        seed: of the draws.

    Attributes:
        gaps: float64 [resamples, models].
        values: float64 [models], of the videos themselves.

    Raises:
        ValueError: models of different numbers of videos.
    """

    def __init__(self, models: Sequence[Predictions], resamples: int, seed: int = 0) -> None:
        counts = [model.positives for model in models]
        if any(not np.array_equal(counts[0], other) for other in counts[1:]):
            raise ValueError("the models were not scored on the same videos in the same order")
        self.values = np.array(
            [average_precision(one.scores, one.hits, int(one.positives.sum())) for one in models]
        )
        self.gaps = _resampled(models, counts[0], resamples, seed)

    def interval(self, model: int, confidence: float) -> Interval:
        """Of the GAP of a model."""
        return _interval(self.values[model], self.gaps[:, model], confidence)

    def difference(self, model: int, other: int, confidence: float) -> Interval:
        """Of the GAP of one model less that of another."""
        differences = self.gaps[:, model] - self.gaps[:, other]
        return _interval(self.values[model] - self.values[other], differences, confidence)


def _interval(value: float, resampled: NDArray[np.float64], confidence: float) -> Interval:
    outside = (1 - confidence) / 2
    low, high = np.quantile(resampled, (outside, 1 - outside))
    return Interval(float(value), float(low), float(high))


def _resampled(
    models: Sequence[Predictions], counts: NDArray[np.integer[Any]], resamples: int, seed: int
) -> NDArray[np.float64]:
    videos = len(counts)
    lists = [_sorted_list(model) for model in models]
    # The longest list that a draw can have: only the video that has most, again and again.
    most = max(int(np.bincount(model.videos, minlength=1).max()) for model in models)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, most * videos + 1))])
    gaps = np.zeros((resamples, len(models)))

    def resample(number: int) -> None:
        # Each draw has its own generator: the same whatever the number of threads.
        chosen = np.random.default_rng([seed, number]).integers(0, videos, videos)
        times = np.bincount(chosen, minlength=videos + 1).astype(np.uint16)
        positives = int(np.dot(times[:-1].astype(np.int64), counts))
        if positives:
            gaps[number] = [_weighted_sum(one, times, harmonic) / positives for one in lists]

    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(resample, range(resamples)))
    return gaps


def _sorted_list(model: Predictions) -> NDArray[np.uint32]:
    """The list, best first: of each entry its video, whether it is a hit, begins a tie."""
    order = np.argsort(-model.scores)
    scores = model.scores[order]
    new_tie = np.ones(len(order), bool)
    np.not_equal(scores[1:], scores[:-1], out=new_tie[1:])
    entries = model.videos[order].astype(np.uint32) << np.uint32(_VIDEO_SHIFT)
    entries |= np.where(model.hits[order], np.uint32(_HIT), np.uint32(0))
    entries |= np.where(new_tie, np.uint32(_NEW_TIE), np.uint32(0))
    end = np.array([len(model.positives) << _VIDEO_SHIFT | _NEW_TIE], np.uint32)
    return np.concatenate([entries, end])


@numba.njit(
    types.float64(
        types.Array(types.uint32, 1, "C", readonly=True),
        types.Array(types.uint16, 1, "C", readonly=True),
        types.Array(types.float64, 1, "C", readonly=True),
    ),
    nogil=True,
)
def _weighted_sum(entries: Any, times: Any, harmonic: Any) -> float:
    """`precision_sums` of a list whose entries stand there as often as their video was drawn.

    A tie of n entries, r of them hits, with F hits and B entries before it, has the sum
    r/n · Σ (F + 1 + i·q)/(B + 1 + i) with q = (r − 1)/(n − 1); by q·(B + 1 + i) in the numerator
    that is r/n · (q·n + (F + 1 − q·(B + 1)) · (H(B + n) − H(B))), H(n) = 1 + 1/2 + … + 1/n.
    """
    total = 0.0
    before, found, tied, hits = 0, 0, 0, 0
    for entry in entries:  # the last one begins a tie that has nothing in it
        if entry & _NEW_TIE and tied:
            if hits:
                if tied == 1:
                    total += (found + 1) / (before + 1)
                else:
                    q = (hits - 1) / (tied - 1)
                    span = harmonic[before + tied] - harmonic[before]
                    total += hits / tied * (q * tied + (found + 1 - q * (before + 1)) * span)
            before += tied
            found += hits
            tied = 0
            hits = 0
        drawn = int(times[entry >> _VIDEO_SHIFT])
        tied += drawn
        if entry & _HIT:
            hits += drawn
    return total
