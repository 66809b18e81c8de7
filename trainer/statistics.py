"""What a data set's features, frames and labels look like: mergeable, exact counts, NumPy only.

An accumulator takes records one block at a time and merges with others; any partition and order of
the records gives the same integers, and moments that agree to rounding.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import records
from trainer.errors import InputError
from trainer.files import atomic_directory, read_json, write_json
from trainer.manifest import Manifest

VERSION = 1
STATISTICS = "statistics.json"
ARRAYS = "statistics.npz"
_BLOCK_FRAMES = 4096


class FeatureStatistics:
    """Counts of one split.

    Args:
        level: frame or video.
        num_classes: C.

    Attributes:
        records: videos seen.
        longest: most frames of a video.
        frames: int64 [MAX_FRAMES + 2], videos by their number of frames; the last bin holds all
            longer ones.
        labels: int64 [C], videos that carry each class.
        labels_a_video: int64 [65], videos by their number of labels; the last bin: 64 and more.
        unequal_lengths: videos whose rgb and audio differ in length.
        codes: int64 [1152, 256], how often each dimension takes each code (frame level).
        count, mean, m2: of each dimension [1152]: values, mean, sum of squared deviations.
        minimum, maximum: float64 [1152].
    """

    def __init__(self, level: records.Level, num_classes: int) -> None:
        self.level = level
        self.num_classes = num_classes
        size = records.FEATURE_SIZE
        self.records = 0
        self.longest = 0
        self.unequal_lengths = 0
        self.frames = np.zeros(records.MAX_FRAMES + 2, np.int64)
        self.labels = np.zeros(num_classes, np.int64)
        self.labels_a_video = np.zeros(65, np.int64)
        self.codes = np.zeros((size, 256), np.int64)
        self.count = 0
        self.mean = np.zeros(size)
        self.m2 = np.zeros(size)
        self.minimum = np.full(size, np.inf)
        self.maximum = np.full(size, -np.inf)

    def add(self, videos: Sequence[records.VideoRecord]) -> None:
        """Add a block of records, whose labels are in range, of this level."""
        if not videos:
            return
        self.records += len(videos)
        for video in videos:
            self.unequal_lengths += int(len(video.rgb) != len(video.audio)) * (
                self.level == records.FRAME
            )
            classes = np.unique(video.labels)
            self.labels[classes] += 1
            self.labels_a_video[min(len(classes), 64)] += 1
            self.longest = max(self.longest, video.num_frames)
        longest = len(self.frames) - 1
        frames = np.minimum([video.num_frames for video in videos], longest)
        self.frames += np.bincount(frames, minlength=longest + 1)
        if self.level == records.FRAME:
            self._add_codes(videos)
        else:
            self._add_values(
                np.stack([np.concatenate([video.rgb, video.audio]) for video in videos])
            )

    def _add_codes(self, videos: Sequence[records.VideoRecord]) -> None:
        """Count codes; frames without either feature (the longer one's rest) do not count."""
        blocks = [
            np.concatenate([video.rgb[: video.num_frames], video.audio[: video.num_frames]], axis=1)
            for video in videos
        ]
        codes = np.concatenate(blocks)
        offsets = np.arange(records.FEATURE_SIZE, dtype=np.int32) * 256
        for start in range(0, len(codes), _BLOCK_FRAMES):
            index = codes[start : start + _BLOCK_FRAMES] + offsets
            self.codes += np.bincount(index.ravel(), minlength=self.codes.size).reshape(
                self.codes.shape
            )
        self.count += len(codes)

    def _add_values(self, values: NDArray[np.float32]) -> None:
        wide = values.astype(np.float64)
        mean = wide.mean(axis=0)
        self._merge_moments(len(wide), mean, np.square(wide - mean).sum(axis=0))
        self.minimum = np.minimum(self.minimum, wide.min(axis=0))
        self.maximum = np.maximum(self.maximum, wide.max(axis=0))

    def _merge_moments(
        self, count: int, mean: NDArray[np.float64], m2: NDArray[np.float64]
    ) -> None:
        """Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979, eq. 2.1."""
        total = self.count + count
        if not total:
            return
        delta = mean - self.mean
        self.m2 = self.m2 + m2 + np.square(delta) * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Add what `other` has seen and return self; `other` stays as it is.

        Raises:
            ValueError: another level or number of classes.
        """
        if (self.level, self.num_classes) != (other.level, other.num_classes):
            raise ValueError(
                f"can not merge statistics of {other.level} level, {other.num_classes} classes "
                f"into {self.level} level, {self.num_classes} classes"
            )
        self.records += other.records
        self.longest = max(self.longest, other.longest)
        self.unequal_lengths += other.unequal_lengths
        for name in ("frames", "labels", "labels_a_video", "codes"):
            getattr(self, name).__iadd__(getattr(other, name))
        self._merge_moments(other.count, other.mean, other.m2)
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)
        return self

    def moments(self) -> dict[str, NDArray[np.float64]]:
        """`mean`, `variance`, `minimum`, `maximum` of each dimension, dequantised, [1152]."""
        if not self.count:
            raise ValueError("no values were added")
        if self.level == records.VIDEO:
            return {
                "mean": self.mean,
                "variance": self.m2 / self.count,
                "minimum": self.minimum,
                "maximum": self.maximum,
            }
        # Exact integers first, so that no order of the frames shows in the result.
        values = records.dequantise(np.arange(256)).astype(np.float64)
        mean = self.codes @ values / self.count
        second = self.codes @ np.square(values) / self.count
        present = self.codes > 0
        return {
            "mean": mean,
            "variance": np.maximum(second - np.square(mean), 0),
            "minimum": values[present.argmax(axis=1)],
            "maximum": values[255 - present[:, ::-1].argmax(axis=1)],
        }

    def saturated(self) -> tuple[float, float]:
        """Shares of frame-level values at code 0 and at code 255."""
        total = max(1, int(self.codes.sum()))
        return float(self.codes[:, 0].sum() / total), float(self.codes[:, 255].sum() / total)

    def summary(self) -> dict[str, Any]:
        """Plain numbers of this split, for JSON."""
        moments = self.moments()
        lengths = np.repeat(np.arange(len(self.frames)), self.frames)
        return {
            "records": self.records,
            "frames": self.count,
            "frames_a_video": {
                "minimum": int(lengths.min()),
                "median": float(np.median(lengths)),
                "maximum": self.longest,
            },
            "labels": int(self.labels.sum()),
            "records_without_labels": int(self.labels_a_video[0]),
            "classes_with_examples": int((self.labels > 0).sum()),
            "unequal_lengths": self.unequal_lengths,
            "constant_dimensions": int((moments["variance"] == 0).sum()),
            "saturated_low": self.saturated()[0],
            "saturated_high": self.saturated()[1],
            "value_minimum": float(moments["minimum"].min()),
            "value_maximum": float(moments["maximum"].max()),
        }


def collect(videos: Iterable[records.VideoRecord], into: FeatureStatistics) -> FeatureStatistics:
    """Add any number of records in blocks of bounded memory; returns `into`."""
    block: list[records.VideoRecord] = []
    frames = 0
    for video in videos:
        block.append(video)
        frames += video.num_frames
        if frames >= _BLOCK_FRAMES:
            into.add(block)
            block, frames = [], 0
    into.add(block)
    return into


@dataclasses.dataclass(frozen=True)
class Anomaly:
    """Something wrong with the data; severity error stops the pipeline."""

    severity: str
    description: str


def write_statistics(
    folder: str | os.PathLike[str],
    manifest: Manifest,
    by_split: dict[str, FeatureStatistics],
    anomalies: list[Anomaly],
) -> None:
    """Write `statistics.json` and `statistics.npz` (arrays `<split>/<name>`) atomically."""
    arrays: dict[str, NDArray[Any]] = {}
    for split, statistics in by_split.items():
        arrays |= {f"{split}/{name}": values for name, values in statistics.moments().items()}
        for name in ("frames", "labels", "labels_a_video", "codes"):
            arrays[f"{split}/{name}"] = getattr(statistics, name)
    with atomic_directory(folder) as partial:
        with (partial / ARRAYS).open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        write_json(
            partial / STATISTICS,
            {
                "version": VERSION,
                "data_fingerprint": manifest.fingerprint,
                "level": manifest.level,
                "num_classes": manifest.num_classes,
                "splits": {split: s.summary() for split, s in by_split.items()},
                "anomalies": [dataclasses.asdict(anomaly) for anomaly in anomalies],
            },
        )


def read_statistics(
    folder: str | os.PathLike[str], fingerprint: str
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The summary and the arrays of `write_statistics`.

    Raises:
        InputError: absent, of another version, or of other data than `fingerprint`.
    """
    summary = read_json(Path(folder) / STATISTICS)
    if summary.get("version") != VERSION:
        raise InputError(f"{folder}: expected statistics of version {VERSION}")
    if summary["data_fingerprint"] != fingerprint:
        raise InputError(
            f"{folder}: are statistics of the data {summary['data_fingerprint']}, "
            f"expected {fingerprint}"
        )
    with np.load(Path(folder) / ARRAYS) as arrays:
        return summary, {name: arrays[name] for name in arrays.files}
