"""Scoring a model on the segments that human raters judged."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainer.batches import Batch
from trainer.config import DataConfig
from trainer.errors import InputError
from trainer.evaluation import predictor, scores_of
from trainer.input_pipeline import evaluation_batches
from trainer.manifest import Manifest, Shard
from trainer.metrics.bootstrap import Predictions
from trainer.metrics.segments import SegmentAccumulator
from trainer.progress import Progress

_SMALLER = 16
"""A video has up to 60 segments: that many times fewer videos are read at a time."""


def segment_videos(batch_size: int) -> int:
    """Videos to read at a time, where a batch of whole videos has `batch_size`."""
    return max(1, batch_size // _SMALLER)


def rated_windows(batch: Batch) -> Batch:
    """The segments that have ratings; most videos have few of all that there could be."""
    assert batch.weights is not None
    rated = batch.weights.any(axis=1)
    return dataclasses.replace(
        batch,
        features={name: value[rated] for name, value in batch.features.items()},
        labels=batch.labels[rated],
        weights=batch.weights[rated],
        starts=None if batch.starts is None else batch.starts[rated],
    )


@dataclasses.dataclass
class ScoredSegments:
    """What scoring the rated segments of some shards gave.

    Attributes:
        metrics: of the rated pairs.
        model_name: its name among `trainer.models.MODELS`.
        video_ids: of every video, in the order of the shards.
        pair_videos: int [E], number of the video of each rated pair, as `metrics` has them.
        pair_starts: int [E], first second of its segment.
        seconds: wall time.
        metrics_seconds: of it, spent on metrics.
    """

    metrics: SegmentAccumulator
    model_name: str
    video_ids: list[str]
    pair_videos: NDArray[np.int64]
    pair_starts: NDArray[np.int32]
    seconds: float
    metrics_seconds: float

    def predictions(self) -> Predictions:
        """What the paired bootstrap takes: it draws videos, whose segments are alike."""
        arrays = self.metrics.arrays()
        found = self.pair_videos[arrays["hits"]]
        positives = np.bincount(found, minlength=len(self.video_ids))
        return Predictions(self.pair_videos, arrays["scores"], arrays["hits"], positives)


def score_segments(
    model: keras.Model,
    manifest: Manifest,
    shards: Sequence[Shard],
    batch_size: int,
    progress: Progress | None = None,
) -> ScoredSegments:
    """Score every rated segment of `shards` once.

    Args:
        model: of `trainer.models`, trained with `data.segments`.
        manifest: of the data.
        shards: to score.
        batch_size: B.
        progress: told of each batch of videos.

    Raises:
        InputError: a record that can not be read, a score that is NaN, or no segment that was
            rated as right.
    """
    predict = predictor(model)
    metrics = SegmentAccumulator(manifest.num_classes)
    video_ids: list[str] = []
    videos: list[NDArray[Any]] = [np.zeros(0, np.int64)]
    starts: list[NDArray[Any]] = [np.zeros(0, np.int32)]
    in_metrics = 0.0
    begin = time.monotonic()
    for batch in evaluation_batches(
        shards, manifest.level, manifest.num_classes, DataConfig(segments=True),
        segment_videos(batch_size),
    ):  # fmt: skip
        assert batch.weights is not None
        windows = len(batch.labels) // len(batch.video_ids)
        numbers = np.flatnonzero(batch.weights.any(axis=1)) // windows + len(video_ids)
        rated = rated_windows(batch)
        if len(rated.labels):
            scores = scores_of(model, predict, rated)
            before = time.monotonic()
            assert rated.weights is not None
            assert rated.starts is not None
            metrics.add(scores, rated.labels, rated.weights)
            rows = np.nonzero(rated.weights > 0)[0]
            videos.append(numbers[rows])
            starts.append(rated.starts[rows])
            in_metrics += time.monotonic() - before
        video_ids += batch.video_ids
        if progress:
            progress.advance(len(batch.video_ids))
    if not metrics.positives.any():
        raise InputError(
            f"{shards[0].uri} and {len(shards) - 1} more: none of {len(video_ids):,} videos has a "
            "segment that was rated as right"
        )
    return ScoredSegments(
        metrics, model.name, video_ids, np.concatenate(videos), np.concatenate(starts),
        time.monotonic() - begin, in_metrics,
    )  # fmt: skip
