"""Which classes are taken for which, and the videos to look at."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.metrics.ranking import Ranked

_MOST_OF_A_VIDEO = 20


class Confusion(NamedTuple):
    """A pair of classes.

    Attributes:
        missed: class that is a label and was not predicted.
        predicted: class that was predicted in its place and is no label.
        times: how often; the miss of a video with m wrong predictions counts 1/m for each.
    """

    missed: int
    predicted: int
    times: float


@dataclasses.dataclass
class Mistakes:
    """What was missed and what was wrong, among as many predictions as a video has labels.

    Of those two there are equally many in each video. Add batches in the order of the videos;
    merging puts the other's videos behind. Keeps about 16 bytes for each miss.
    """

    num_classes: int
    videos: int = 0

    def __post_init__(self) -> None:
        self._missed: list[NDArray[np.int64]] = []
        self._wrong: list[NDArray[np.int64]] = []

    def add(self, ranked: Ranked) -> None:
        """Add a batch.

        Raises:
            ValueError: another number of classes.
        """
        if ranked.labels.shape[1] != self.num_classes:
            raise ValueError(
                f"expected {self.num_classes} classes, received {ranked.labels.shape[1]}"
            )
        predicted = np.zeros(ranked.labels.shape, bool)
        within = ranked.within
        rows = np.nonzero(within)[0]
        predicted[rows, ranked.classes[within]] = True
        size = self.num_classes
        missed_rows, missed = np.nonzero(ranked.labels & ~predicted)
        wrong_rows, wrong = np.nonzero(predicted & ~ranked.labels)
        # Video and class in one number.
        self._missed.append((missed_rows + self.videos) * size + missed)
        self._wrong.append((wrong_rows + self.videos) * size + wrong)
        self.videos += len(ranked.labels)

    def merge(self, other: Mistakes) -> None:
        """Add what `other` has seen, as videos that follow; `other` stays as it is.

        Raises:
            ValueError: another number of classes.
        """
        if self.num_classes != other.num_classes:
            raise ValueError(
                f"can not merge mistakes of {other.num_classes} classes into {self.num_classes}"
            )
        shift = self.videos * self.num_classes
        self._missed += [part + shift for part in other._missed]
        self._wrong += [part + shift for part in other._wrong]
        self.videos += other.videos

    def confusions(self, most: int) -> list[Confusion]:
        """The pairs that occur most, at most so many; of equals the lower classes first.

        Of a video with many mistakes the first twenty of each kind count.
        """
        pairs, times = self._pairs(np.arange(self.num_classes), self.num_classes)
        best = np.lexsort((pairs, -np.round(times, 9)))[:most]
        return [
            Confusion(int(p // self.num_classes), int(p % self.num_classes), float(w))
            for p, w in zip(pairs[best], times[best], strict=True)
        ]

    def group_matrix(self, groups: NDArray[np.int64], size: int) -> NDArray[np.float64]:
        """How often a class of a group was missed and one of another group predicted instead.

        Args:
            groups: int [C], of each class.
            size: G, how many groups there are.

        Returns:
            float64 [G, G], missed by predicted; of each miss as in `confusions`.
        """
        pairs, times = self._pairs(groups, size)
        found = np.zeros((size, size))
        found.flat[pairs] = times
        return found

    def _pairs(
        self, groups: NDArray[np.int64], size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Group missed times size plus group predicted, each pair once, and how often."""
        missed_videos, missed = self._places(self._missed)
        wrong_videos, wrong = self._places(self._wrong)
        counts = np.bincount(missed_videos, minlength=self.videos)
        starts = np.cumsum(counts) - counts
        paired = np.minimum(counts, _MOST_OF_A_VIDEO)
        # Each miss with each wrong prediction of its video; both lists are in order of videos.
        turns = np.repeat(paired, paired)
        of_miss = np.repeat(starts, paired) + _within(paired)
        first = np.repeat(of_miss, turns)
        second = np.repeat(starts[missed_videos[of_miss]], turns) + _within(turns)
        assert np.array_equal(wrong_videos[second], missed_videos[first])
        pairs, of = np.unique(
            groups[missed[first]] * size + groups[wrong[second]], return_inverse=True
        )
        times: NDArray[Any] = np.bincount(of, 1 / np.repeat(turns, turns), len(pairs))
        return pairs, times

    def missed_of(self, label: int) -> NDArray[np.int64]:
        """Videos whose label it is that did not have it among their predictions, in order."""
        videos, classes = self._places(self._missed)
        found: NDArray[np.int64] = videos[classes == label]
        return found

    def wrong_of(self, label: int) -> NDArray[np.int64]:
        """Videos that had it among their predictions, of which it is no label, in order."""
        videos, classes = self._places(self._wrong)
        found: NDArray[np.int64] = videos[classes == label]
        return found

    def _places(self, parts: list[NDArray[np.int64]]) -> tuple[NDArray[Any], NDArray[Any]]:
        joined = np.concatenate([np.zeros(0, np.int64), *parts])
        return joined // self.num_classes, joined % self.num_classes


def _within(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 … n − 1 for each n, in a row."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
