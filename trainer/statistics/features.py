"""Distributions of each of the 1,152 feature dimensions, of codes and of values.

Both are exact integers at heart (how often a dimension has a code, or falls into a bin): any
partition and order of the records gives the same, and moments, quantiles and distances follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.record_format import FEATURE_SIZE, RGB_SIZE, dequantise
from trainer.records import VideoRecord

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
LOW, BINS_A_UNIT, BINS = -2.0, 128, 514
"""Bins of video-level values: 1/128 wide from −2 to 2.015625, which holds every mean of codes."""


class CodeDistributions:
    """Of frame-level features, which are 8-bit codes."""

    def __init__(self) -> None:
        self.count = 0
        self._histogram = np.zeros((FEATURE_SIZE, 256), np.int64)
        # What was counted last, in integers of a size that fits the processor's cache.
        self._recent = np.zeros((FEATURE_SIZE, 256), np.uint16)
        self._recent_frames = 0

    @property
    def histogram(self) -> NDArray[np.int64]:
        """int64 [1152, 256], frames in which each dimension has each code."""
        if self._recent_frames:
            self._histogram += self._recent
            self._recent[:] = self._recent_frames = 0
        return self._histogram

    def add(self, videos: Sequence[VideoRecord]) -> None:
        """Count codes; frames without either feature (the longer one's rest) do not count."""
        from trainer.statistics.counting import MOST_FRAMES, count_codes  # noqa: PLC0415 (compiles)

        for video in videos:
            frames = video.num_frames
            for start in range(0, frames, MOST_FRAMES):
                end = min(frames, start + MOST_FRAMES)
                if self._recent_frames + end - start > MOST_FRAMES:
                    _ = self.histogram
                count_codes(video.rgb[start:end], self._recent[:RGB_SIZE])  # type: ignore[arg-type]
                count_codes(video.audio[start:end], self._recent[RGB_SIZE:])  # type: ignore[arg-type]
                self._recent_frames += end - start
            self.count += frames

    def merge(self, other: CodeDistributions) -> None:
        self.count += other.count
        self._histogram += other.histogram

    def edges(self) -> NDArray[np.float64]:
        """float64 [256], the value of each code."""
        return dequantise(np.arange(256)).astype(np.float64)

    def moments(self) -> dict[str, NDArray[np.float64]]:
        values = self.edges()
        mean = self.histogram @ values / self.count
        squares = np.square(values - mean[:, None])
        present = self.histogram > 0
        return {
            "mean": mean,
            "variance": (self.histogram * squares).sum(axis=1) / self.count,
            "minimum": values[present.argmax(axis=1)],
            "maximum": values[255 - present[:, ::-1].argmax(axis=1)],
        }

    def quantiles(self) -> NDArray[np.float64]:
        """float64 [1152, 7], the values at `QUANTILES`: exact, the smallest that so many reach."""
        reached = np.cumsum(self.histogram, axis=1)
        ranks = np.ceil(np.array(QUANTILES) * self.count)
        codes = (reached[:, :, None] < ranks).sum(axis=1)
        values: NDArray[np.float64] = self.edges()[codes]
        return values

    def saturated(self) -> NDArray[np.float64]:
        """float64 [1152, 2], shares of the frames at code 0 and at code 255."""
        return self.histogram[:, [0, 255]] / self.count

    def state(self) -> dict[str, NDArray[Any]]:
        return {"count": np.array(self.count), "histogram": self.histogram}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.count, self._histogram = int(state["count"]), state["histogram"]


class ValueDistributions:
    """Of video-level features, which are float32 means."""

    def __init__(self) -> None:
        self.count = 0
        self.histogram = np.zeros((FEATURE_SIZE, BINS + 2), np.int64)
        self.mean, self.deviations = np.zeros(FEATURE_SIZE), np.zeros(FEATURE_SIZE)
        self.minimum = np.full(FEATURE_SIZE, np.inf)
        self.maximum = np.full(FEATURE_SIZE, -np.inf)

    def add(self, values: NDArray[np.float32]) -> None:
        """Add videos, finite float32 [n, 1152]."""
        from trainer.statistics.counting import count_values  # noqa: PLC0415 (compiles)

        if len(values):
            block = count_values(values, LOW, BINS_A_UNIT, self.histogram)
            self._merge(len(values), *block)

    def merge(self, other: ValueDistributions) -> None:
        self.histogram += other.histogram
        self._merge(other.count, other.mean, other.deviations, other.minimum, other.maximum)

    def _merge(
        self,
        count: int,
        mean: NDArray[np.float64],
        deviations: NDArray[np.float64],
        minimum: NDArray[np.float64],
        maximum: NDArray[np.float64],
    ) -> None:
        """Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979, eq. 2.1."""
        total = self.count + count
        if not total:
            return
        delta = mean - self.mean
        self.deviations = (
            self.deviations + deviations + np.square(delta) * (self.count * count / total)
        )
        self.mean = self.mean + delta * (count / total)
        self.minimum = np.minimum(self.minimum, minimum)
        self.maximum = np.maximum(self.maximum, maximum)
        self.count = total

    def edges(self) -> NDArray[np.float64]:
        """float64 [516], the upper edge of each bin; of the last one, which has none, its lower."""
        edges: NDArray[np.float64] = LOW + np.arange(BINS + 2) / BINS_A_UNIT
        edges[-1] = edges[-2]
        return edges

    def moments(self) -> dict[str, NDArray[np.float64]]:
        return {
            "mean": self.mean,
            "variance": self.deviations / self.count,
            "minimum": self.minimum,
            "maximum": self.maximum,
        }

    def quantiles(self) -> NDArray[np.float64]:
        """float64 [1152, 7], the values at `QUANTILES`, each right to within a bin, 1/128.

        Within a bin the values count as evenly spread; the outermost are those of the data.
        """
        reached = np.cumsum(self.histogram, axis=1)
        upper = self.edges()
        found = np.empty((FEATURE_SIZE, len(QUANTILES)))
        for column, quantile in enumerate(QUANTILES):
            rank = quantile * self.count
            place = (reached < rank).sum(axis=1)
            inside = np.take_along_axis(self.histogram, place[:, None], axis=1)[:, 0]
            above = np.take_along_axis(reached, place[:, None], axis=1)[:, 0] - rank
            found[:, column] = upper[place] - above / np.maximum(inside, 1) / BINS_A_UNIT
        return np.clip(found, self.minimum[:, None], self.maximum[:, None])

    def saturated(self) -> NDArray[np.float64]:
        """float64 [1152, 2], shares of the videos at the least and the greatest value of a code."""
        ends = dequantise([0, 255]).astype(np.float64)
        # A mean is at the end of the range only if every frame of the video is: by bin, less than
        # 1/128 from the low end, at most that from the high one.
        low = self.histogram[:, : int((ends[0] - LOW) * BINS_A_UNIT) + 2].sum(axis=1)
        high = self.histogram[:, int((ends[1] - LOW) * BINS_A_UNIT) :].sum(axis=1)
        return np.stack([low, high], axis=1) / self.count

    def state(self) -> dict[str, NDArray[Any]]:
        names = ("histogram", "mean", "deviations", "minimum", "maximum")
        return {"count": np.array(self.count)} | {name: getattr(self, name) for name in names}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        for name, value in state.items():
            setattr(self, name, int(value) if name == "count" else value)
