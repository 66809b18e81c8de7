"""What one split's features, frames and labels look like: mergeable, exact counts, NumPy only.

An accumulator takes records some at a time and merges with others; any partition and order of the
records gives the same integers, and moments that agree to rounding.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.record_batch import VideoBatch
from trainer.record_format import AUDIO_SIZE, FEATURE_SIZE, FRAME, MAX_FRAMES, RGB_SIZE, Level
from trainer.records import VideoRecord
from trainer.statistics.covariance import CodeCovariance, ValueCovariance
from trainer.statistics.features import CodeDistributions, ValueDistributions
from trainer.statistics.labels import LabelCounts

_COUNTS = (
    "records",
    "bytes",
    "unequal_lengths",
    "silent_audio",
    "without_id",
    "squared_frames",
    "shortest",
    "longest",
)
_NO_VIDEO = 1 << 62


class FeatureStatistics:
    """Counts of one split.

    Args:
        level: frame or video.
        num_classes: C.
        covariance: whether to sum up products of dimensions too (some milliseconds a video).

    Attributes:
        records: videos.
        bytes: of their records with the framing; the reader's to add up.
        unequal_lengths: videos whose rgb and audio differ in length (frame level).
        silent_audio: videos whose audio is the same in all of two or more frames; at video level,
            the same in all dimensions.
        without_id: videos with an empty id, or none.
        ratings: int64 [C, 2], of segments (release 3), by class: absent, present.
        shortest, longest: least and most frames of a video.
        squared_frames: sum of the squares of the videos' numbers of frames.
        frames: int64 [MAX_FRAMES + 2], videos by their number of frames; the last bin holds all
            longer ones.
        non_finite: int64 [1152], values that are no numbers, in records that were left out for it.
        labels: counts of classes.
        features: distributions of each dimension.
        covariances: of rgb and audio, if asked for.
    """

    def __init__(self, level: Level, num_classes: int, covariance: bool = False) -> None:
        self.level, self.num_classes = level, num_classes
        self.records = self.bytes = self.longest = 0
        self.shortest = _NO_VIDEO
        self.unequal_lengths = self.silent_audio = self.without_id = self.squared_frames = 0
        self.ratings = np.zeros((num_classes, 2), np.int64)
        self.frames = np.zeros(MAX_FRAMES + 2, np.int64)
        self.non_finite = np.zeros(FEATURE_SIZE, np.int64)
        self.labels = LabelCounts(num_classes)
        kind = CodeDistributions if level == FRAME else ValueDistributions
        self.features: CodeDistributions | ValueDistributions = kind()
        of = CodeCovariance if level == FRAME else ValueCovariance
        self.covariances: dict[str, CodeCovariance | ValueCovariance] = (
            {"rgb": of(RGB_SIZE), "audio": of(AUDIO_SIZE)} if covariance else {}
        )

    @property
    def count(self) -> int:
        """Rows of features: frames, or videos at video level."""
        return self.features.count

    def add(self, videos: Sequence[VideoRecord]) -> None:
        """Add records of frame level, whose labels are in range."""
        if not isinstance(self.features, CodeDistributions):
            raise ValueError("expected frame-level statistics, these are of video level")
        self.features.add(videos)
        self.records += len(videos)
        for video in videos:
            frames = video.num_frames
            self.shortest, self.longest = min(self.shortest, frames), max(self.longest, frames)
            self.squared_frames += frames * frames
            self.frames[min(frames, len(self.frames) - 1)] += 1
            self.labels.add(video.labels, np.zeros(len(video.labels), np.int64), 1)
            self.unequal_lengths += int(len(video.rgb) != len(video.audio))
            self.silent_audio += _is_silent(video.audio)
            self.without_id += not video.video_id
            if video.segments:
                rated = video.segments.labels, video.segments.scores.astype(np.int64)
                np.add.at(self.ratings, rated, 1)
            for name, covariance in self.covariances.items():
                codes: NDArray[Any] = getattr(video, name)
                covariance.add(codes[:frames])

    def add_batch(self, batch: VideoBatch) -> None:
        """Add records of video level, whose labels are in range."""
        if not isinstance(self.features, ValueDistributions):
            raise ValueError("expected video-level statistics, these are of frame level")
        if not len(batch):
            return
        self.features.add(batch.features)
        self.records += len(batch)
        self.labels.add(batch.labels, batch.label_rows, len(batch))
        self.shortest = self.longest = 1
        self.squared_frames += len(batch)
        self.frames[1] += len(batch)
        audio = batch.features[:, RGB_SIZE:]
        self.silent_audio += int((audio == audio[:, :1]).all(axis=1).sum())
        self.without_id += int((batch.ids == b"").sum())
        for name, columns in (("rgb", slice(RGB_SIZE)), ("audio", slice(RGB_SIZE, None))):
            if name in self.covariances:
                part: NDArray[Any] = batch.features[:, columns]
                self.covariances[name].add(part)

    def add_non_finite(self, values: NDArray[np.float32]) -> None:
        """Count which of [1152] are no numbers, of a record that is left out for it."""
        self.non_finite += ~np.isfinite(values)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Add what `other` has seen and return self; `other` stays as it is.

        Raises:
            ValueError: another level or number of classes, or one with covariance, one without.
        """
        mine, its = ((one.level, one.num_classes, bool(one.covariances)) for one in (self, other))
        if mine != its:
            raise ValueError(
                f"can not merge statistics of {its[0]} level, {its[1]} classes"
                f"{' with covariance' * its[2]} into {mine[0]} level, {mine[1]} classes"
                f"{' with covariance' * mine[2]}"
            )
        for name in _COUNTS:
            if name not in ("shortest", "longest"):
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.shortest = min(self.shortest, other.shortest)
        self.longest = max(self.longest, other.longest)
        self.frames += other.frames
        self.ratings += other.ratings
        self.non_finite += other.non_finite
        self.labels.merge(other.labels)
        self.features.merge(other.features)  # type: ignore[arg-type]
        for name, covariance in self.covariances.items():
            covariance.merge(other.covariances[name])  # type: ignore[arg-type]
        return self

    def to_bytes(self) -> bytes:
        """The accumulator, for another process."""
        arrays: dict[str, NDArray[Any]] = {
            "counts": np.array([getattr(self, name) for name in _COUNTS]),
            "frames": self.frames,
            "non_finite": self.non_finite,
            "ratings": self.ratings,
            "kind": np.array([self.level == FRAME, self.num_classes, bool(self.covariances)]),
        }
        for prefix, part in self._parts().items():
            arrays |= {f"{prefix}/{name}": value for name, value in part.state().items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def of_bytes(cls, data: bytes) -> FeatureStatistics:
        with np.load(io.BytesIO(data)) as content:
            arrays = {name: content[name] for name in content.files}
        is_frame, num_classes, covariance = arrays["kind"].tolist()
        made = cls("frame" if is_frame else "video", num_classes, bool(covariance))
        for name, value in zip(_COUNTS, arrays["counts"].tolist(), strict=True):
            setattr(made, name, value)
        for name in ("frames", "non_finite", "ratings"):
            setattr(made, name, arrays[name])
        for prefix, part in made._parts().items():
            start = f"{prefix}/"
            part.load({k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)})
        return made

    def _parts(self) -> dict[str, Any]:
        return {"labels": self.labels, "features": self.features, **self.covariances}

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureStatistics.of_bytes, (self.to_bytes(),)


def _is_silent(audio: NDArray[Any]) -> bool:
    # Most sounds differ at the end from the start, so that one look is enough.
    return len(audio) > 1 and bool((audio[-1] == audio[0]).all() and (audio == audio[0]).all())


def merged(parts: Iterable[FeatureStatistics]) -> FeatureStatistics:
    """The statistics over several splits; at least one."""
    first, *others = parts
    whole = FeatureStatistics(first.level, first.num_classes, bool(first.covariances))
    for part in (first, *others):
        whole.merge(part)
    return whole
