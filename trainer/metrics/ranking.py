"""Which classes a video's scores choose, and the precision of ranked lists.

Where scores tie:

* which classes enter a video's top k: the lower class index first, as a prediction file would list
  them;
* in a pooled list: the expectation over all orders of the tie, which is what google's random
  shuffle gives on average. So no order of videos, batches or shards changes a result.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

TOP_K = 20
_BLOCK = 1 << 20
"""Entries of a ranked list whose intermediate arrays are in memory at once."""


def as_scores(scores: ArrayLike) -> NDArray[np.floating[Any]]:
    """As float32 what is float32 or shorter, all else as float64: no two scores become equal."""
    found = np.asarray(scores)
    is_short = found.dtype.kind == "f" and found.dtype.itemsize <= 4
    return found.astype(np.float32 if is_short else np.float64, copy=False)


def top_k(scores: ArrayLike, k: int) -> NDArray[np.int64]:
    """Class indices [N, min(k, C)] of the largest scores [N, C], best first, ties by index."""
    values = as_scores(scores)
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


def dense_scores(classes: ArrayLike, scores: ArrayLike, num_classes: int) -> NDArray[np.float32]:
    """Scores float32 [N, C] of answers that tell the best classes alone, [N, k].

    The others get 0: of probabilities none is below those that are not told.
    """
    told = np.asarray(classes)
    dense = np.zeros((len(told), num_classes), np.float32)
    np.put_along_axis(dense, told, np.asarray(scores, np.float32), axis=1)
    return dense


@dataclasses.dataclass(frozen=True)
class Ranked:
    """The best classes of some videos, as deep as any metric of them looks.

    Attributes:
        classes, scores, hits: [B, D], best first; D is at least k and the most labels of a video.
        labels: bool [B, C].
        counts: int [B], labels of each video.
    """

    classes: NDArray[np.int64]
    scores: NDArray[np.floating[Any]]
    hits: NDArray[np.bool_]
    labels: NDArray[np.bool_]
    counts: NDArray[np.int64]

    @property
    def within(self) -> NDArray[np.bool_]:
        """Bool [B, D]: the first n places of a video with n labels."""
        places: NDArray[np.bool_] = np.arange(self.classes.shape[1]) < self.counts[:, None]
        return places


def rank(scores: NDArray[np.floating[Any]], labels: NDArray[np.bool_], k: int = TOP_K) -> Ranked:
    """Scores [B, C] and labels [B, C], ranked."""
    counts = labels.sum(axis=1)
    classes = top_k(scores, max(k, int(counts.max(initial=0))))
    hits = np.take_along_axis(labels, classes, axis=1)
    return Ranked(classes, np.take_along_axis(scores, classes, axis=1), hits, labels, counts)


def average_precision(
    scores: NDArray[np.floating[Any]], hits: NDArray[np.bool_], positives: int
) -> float:
    """Sum over hits of the precision at their rank, divided by `positives`; 0 without positives.

    Args:
        scores: [N].
        hits: bool [N].
        positives: all that could have been hit, found or not.
    """
    if not positives:
        return 0.0
    order = np.argsort(-scores)
    (total,) = precision_sums(scores[order], hits[order], np.array([len(scores)]))
    return float(total / positives)


def class_lists(
    classes: NDArray[np.integer[Any]], scores: NDArray[np.floating[Any]], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Entries in the order of their class and then score, best first; how many each class has.

    Args:
        classes, scores: [N].
        num_classes: C.
    """
    order = np.argsort(-scores)
    # Of 16 bits NumPy sorts by counting.
    kind = np.uint16 if num_classes <= 1 << 16 else np.int64
    order = order[np.argsort(classes[order].astype(kind), kind="stable")]
    return order, np.bincount(classes, minlength=num_classes)


def precision_sums(
    scores: NDArray[np.floating[Any]],
    hits: NDArray[np.bool_],
    lengths: NDArray[np.integer[Any]],
    most: int | None = None,
) -> NDArray[np.float64]:
    """Sum over hits of the precision at their rank, of each of L ranked lists.

    Where n scores tie, r of them hits, with F hits before them, the expectation over the n! orders:
    place i of the tie is a hit with probability r/n, and then (i − 1)(r − 1)/(n − 1) of the other
    hits are expected at the places before it.

    Args:
        scores: [N], one list after the other, each best first.
        hits: bool [N].
        lengths: int [L], of the lists; they sum to N.
        most: entries of a list that count; None: all.

    Returns:
        float64 [L].
    """
    size = len(scores)
    sums = np.zeros(len(lengths))
    if not size:
        return sums
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    new_tie = np.ones(size, bool)
    np.not_equal(scores[1:], scores[:-1], out=new_tie[1:])
    new_tie[starts[lengths > 0]] = True
    begin = found_in_list = 0
    while begin < size:
        end = min(begin + _BLOCK, size)
        if end < size:  # up to where a tie ends
            following = int(new_tie[end:].argmax())
            end = end + following if new_tie[end + following] else size
        ties = np.flatnonzero(new_tie[begin:end])
        lists = np.searchsorted(starts, ties + begin, side="right") - 1
        passed = np.concatenate([[0], np.cumsum(hits[begin:end])])
        tied = np.diff(ties, append=end - begin)
        tied_hits = np.diff(passed[ties], append=passed[-1])
        # Hits before each tie in its own list; the first list may have begun before this block.
        list_begins = np.maximum(starts[lists] - begin, 0)
        before = passed[ties] - passed[list_begins]
        before[starts[lists] < begin] += found_in_list
        places = ties + begin - starts[lists]
        sums += np.bincount(lists, _tie_sums(tied, tied_hits, before, places, most), len(sums))
        begin, found_in_list = end, int(before[-1] + tied_hits[-1])
    return sums


def _tie_sums(
    tied: NDArray[np.int64],
    hits: NDArray[np.int64],
    before: NDArray[np.int64],
    places: NDArray[np.int64],
    most: int | None,
) -> NDArray[np.float64]:
    """The sum of each of G ties.

    Args:
        tied, hits: int [G], how many tie, and how many of them are hits.
        before: int [G], hits before.
        places: int [G], entries before.
        most: entries of a list that count.
    """
    counted = tied if most is None else np.clip(most - places, 0, tied)
    sums = np.where(counted > 0, hits * (before + 1) / (places + 1), 0.0)
    many = np.flatnonzero((tied > 1) & (hits > 0) & (counted > 0))
    while len(many):
        # As many ties at once as fit; one that is longer, a piece at a time.
        fit = max(1, int(np.searchsorted(np.cumsum(counted[many]), _BLOCK, side="right")))
        now, many = many[:fit], many[fit:]
        sums[now] = 0.0
        n, r, counts = tied[now], hits[now], counted[now]
        for start in range(0, int(counts.max()), _BLOCK):
            pieces = np.clip(counts - start, 0, _BLOCK)
            of = np.repeat(np.arange(len(now)), pieces)
            i = start + np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            expected = before[now][of] + 1 + i * ((r - 1) / (n - 1))[of]
            terms = (r / n)[of] * expected / (places[now][of] + 1 + i)
            sums[now] += np.bincount(of, terms, len(now))
    return sums
