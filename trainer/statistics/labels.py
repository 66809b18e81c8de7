"""Counts of classes: how often each occurs, how many a video has, which occur together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_LABELS = 64
"""Videos with as many labels or more share a bin."""
_VIDEOS, _PAIRS = 1 << 10, 1 << 20
"""Videos and pairs that wait to be counted together."""


class LabelCounts:
    """Of videos; a class that a record names twice counts once."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._classes = np.zeros(num_classes, np.int64)
        self._labels_a_video = np.zeros(MOST_LABELS + 1, np.int64)
        self._waiting: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._waiting_videos = 0
        # Pairs a < b as a · C + b, ascending, and their counts; what was not sorted in yet.
        self._pairs = np.zeros(0, np.int64)
        self._pair_counts = np.zeros(0, np.int64)
        self._pending: list[NDArray[np.int64]] = []
        self._pending_pairs = 0

    @property
    def classes(self) -> NDArray[np.int64]:
        """int64 [C], videos that carry each class."""
        self._count()
        return self._classes

    @property
    def labels_a_video(self) -> NDArray[np.int64]:
        """int64 [65], videos by their number of labels; the last bin: 64 and more."""
        self._count()
        return self._labels_a_video

    def add(self, labels: NDArray[np.int64], rows: NDArray[np.int64], videos: int) -> None:
        """Add videos 0 … videos − 1, of which `rows[i]` carries `labels[i]`, all in range."""
        self._waiting.append((labels, rows + self._waiting_videos))
        self._waiting_videos += videos
        if self._waiting_videos >= _VIDEOS:
            self._count()

    def _count(self) -> None:
        if not self._waiting:
            return
        labels, rows = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        videos = self._waiting_videos
        self._waiting, self._waiting_videos = [], 0
        keys = np.unique(rows * self.num_classes + labels)
        rows, labels = np.divmod(keys, self.num_classes)
        self._classes += np.bincount(labels, minlength=self.num_classes)
        each = np.minimum(np.bincount(rows, minlength=videos), MOST_LABELS)
        self._labels_a_video += np.bincount(each, minlength=MOST_LABELS + 1)
        for distance in range(1, len(keys)):
            together = rows[distance:] == rows[:-distance]
            if not together.any():
                break
            first, second = labels[:-distance][together], labels[distance:][together]
            self._pending.append(first * self.num_classes + second)
            self._pending_pairs += len(first)
            if self._pending_pairs > _PAIRS:
                self._settle()

    def _settle(self) -> None:
        """Sort pending pairs in, so that memory is bounded by the pairs that there are."""
        if self._pending:
            pairs, counts = np.unique(np.concatenate(self._pending), return_counts=True)
            self._pending, self._pending_pairs = [], 0
            self._merge_pairs(pairs, counts.astype(np.int64))

    def _merge_pairs(self, pairs: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        merged, where = np.unique(np.concatenate([self._pairs, pairs]), return_inverse=True)
        sums = np.zeros(len(merged), np.int64)
        np.add.at(sums, where, np.concatenate([self._pair_counts, counts]))
        self._pairs, self._pair_counts = merged, sums

    def merge(self, other: LabelCounts) -> None:
        self._count()
        self._classes += other.classes
        self._labels_a_video += other.labels_a_video
        self._settle()
        pairs, counts = other._all_pairs()
        self._merge_pairs(pairs, counts)

    def _all_pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        self._count()
        self._settle()
        return self._pairs, self._pair_counts

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Classes int64 [P, 2] that occur together and their videos int64 [P], the most first."""
        pairs, counts = self._all_pairs()
        order = np.lexsort((pairs, -counts))
        return np.stack(np.divmod(pairs[order], self.num_classes), axis=1), counts[order]

    def state(self) -> dict[str, NDArray[Any]]:
        pairs, counts = self._all_pairs()
        return {
            "classes": self.classes,
            "labels_a_video": self.labels_a_video,
            "pairs": pairs,
            "pair_counts": counts,
        }

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self._classes, self._labels_a_video = state["classes"], state["labels_a_video"]
        self._pairs, self._pair_counts, self._pending = state["pairs"], state["pair_counts"], []
