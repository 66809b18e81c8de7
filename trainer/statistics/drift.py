"""How far two sets of statistics are apart: of splits, or of a run and an earlier one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALPHA = 0.001
"""Chance that data of one and the same source is taken for different."""


@dataclasses.dataclass(frozen=True)
class Drift:
    """Of one set against another.

    Attributes:
        features: float64 [1152], Kolmogorov–Smirnov distance of each dimension: the greatest
            difference of the shares of values below any value, 0 to 1.
        features_by_chance: what `_ALPHA` allows the greatest of them to be for as many videos.
        labels: float64 [C], difference of the share of the videos that carry each class.
        labels_by_chance: float64 [C], the same of these.
    """

    features: NDArray[np.float64]
    features_by_chance: float
    labels: NDArray[np.float64]
    labels_by_chance: NDArray[np.float64]

    @property
    def feature_excess(self) -> NDArray[np.float64]:
        """float64 [1152], what of each distance chance does not explain."""
        return np.maximum(self.features - self.features_by_chance, 0)

    @property
    def label_excess(self) -> NDArray[np.float64]:
        """float64 [C], what of each difference's size chance does not explain."""
        return np.maximum(np.abs(self.labels) - self.labels_by_chance, 0)


def drift(
    one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]], records: tuple[int, int]
) -> Drift:
    """Of arrays as `trainer.statistics.summary.arrays_of` makes them.

    Both must be of one level and have equally many classes. The frames of a video are alike, so
    chance is reckoned with videos, not frames.

    Args:
        one, other: arrays of a split.
        records: of both, at least 1.
    """
    first, second = (_cumulative(arrays["histogram"]) for arrays in (one, other))
    features = np.abs(first - second).max(axis=1)
    spread = 1 / records[0] + 1 / records[1]
    # Smirnov 1939: P(distance > c · sqrt(1/n + 1/m)) → 2 exp(−2 c²), for one dimension.
    by_chance = math.sqrt(-math.log(_ALPHA / len(features) / 2) / 2 * spread)
    shares = [arrays["labels"] / count for arrays, count in zip((one, other), records, strict=True)]
    pooled = (one["labels"] + other["labels"]) / sum(records)
    # Normal approximation, Bonferroni over the classes: 2 (1 − Φ(z)) < exp(−z²/2).
    deviations = math.sqrt(-2 * math.log(_ALPHA / len(pooled)))
    labels_by_chance = deviations * np.sqrt(pooled * (1 - pooled) * spread)
    return Drift(features, min(1.0, by_chance), shares[1] - shares[0], labels_by_chance)


def _cumulative(histogram: NDArray[np.int64]) -> NDArray[np.float64]:
    reached = np.cumsum(histogram, axis=1)
    return reached / reached[:, -1:]
