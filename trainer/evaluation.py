"""Scoring a model on shards: exact metrics of every record, and its predictions."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.errors import InputError
from trainer.files import read_json
from trainer.input_pipeline import evaluation_batches, located
from trainer.manifest import Manifest, Shard
from trainer.metrics import MetricsAccumulator
from trainer.models import probabilities
from trainer.prediction import read_predictions
from trainer.progress import Progress


@dataclasses.dataclass
class Scored:
    """What scoring some shards gave.

    Attributes:
        metrics: of all records.
        model_name: its name among `trainer.models.MODELS`.
        video_ids: in the order of the shards.
        top_classes, top_scores: [N, 20], best first.
        seconds: wall time, without building the model's graph.
    """

    metrics: MetricsAccumulator
    model_name: str
    video_ids: list[str]
    top_classes: NDArray[np.int32]
    top_scores: NDArray[np.float32]
    seconds: float


def score_shards(
    model: keras.Model,
    manifest: Manifest,
    shards: Sequence[Shard],
    max_frames: int,
    batch_size: int,
    progress: Progress | None = None,
) -> Scored:
    """Score every record of `shards` once with the model's weights as they are."""
    predict = tf.function(
        lambda features: probabilities(model(features, training=False)), reduce_retracing=True
    )
    metrics = MetricsAccumulator(manifest.num_classes)
    video_ids: list[str] = []
    batches = evaluation_batches(
        shards, manifest.level, manifest.num_classes, max_frames, batch_size
    )
    start = time.monotonic()
    for ids, features, labels in located(batches, shards, manifest.level, manifest.num_classes):
        scores = predict(features).numpy()
        if np.isnan(scores).any():
            raise InputError(f"model {model.name}: some of its scores are NaN, expected numbers")
        metrics.add(scores, labels.numpy())
        video_ids += [video_id.decode("utf-8", "backslashreplace") for video_id in ids.numpy()]
        if progress:
            progress.advance(len(video_ids) - progress.done)
    seconds = time.monotonic() - start
    expected = sum(shard.records for shard in shards)
    if len(video_ids) != expected:
        raise InputError(
            f"{shards[0].uri} and {len(shards) - 1} more: {len(video_ids):,} records were scored, "
            f"the manifest has {expected:,}"
        )
    if not metrics.positives.any():
        raise InputError(
            f"{shards[0].uri} and {len(shards) - 1} more: none of {expected:,} records has a label"
        )
    classes, scores, _ = metrics.pooled()
    shape = (len(video_ids), -1)
    return Scored(
        metrics, model.name, video_ids, classes.reshape(shape), scores.reshape(shape), seconds
    )


def score_predictions(
    path: str | os.PathLike[str], manifest: Manifest, shards: Sequence[Shard], max_frames: int
) -> MetricsAccumulator:
    """Metrics of a prediction file (the oracle's) on the labels of `shards`.

    Raises:
        InputError: a video that the file does not score.
    """
    by_id = read_predictions(path, manifest.num_classes)
    metrics = MetricsAccumulator(manifest.num_classes)
    batches = evaluation_batches(shards, manifest.level, manifest.num_classes, max_frames, 256)
    for ids, _, labels in located(batches, shards, manifest.level, manifest.num_classes):
        rows = []
        for video_id in (value.decode("utf-8", "backslashreplace") for value in ids.numpy()):
            if video_id not in by_id:
                raise InputError(f"{path}: has no prediction of video {video_id!r}")
            rows.append(by_id[video_id])
        metrics.add(np.stack(rows), labels.numpy())
    return metrics


def trained_config(folder: str | os.PathLike[str], manifest: Manifest) -> dict[str, Any]:
    """`config.json` of a trained model's folder, checked to fit the data.

    Raises:
        InputError: absent, or the model was trained on another level or number of classes.
    """
    content: dict[str, Any] = read_json(Path(folder) / "config.json")
    for name in ("level", "num_classes"):
        if content[name] != getattr(manifest, name):
            raise InputError(
                f"{folder}: the model's {name} is {content[name]}, the data's "
                f"{getattr(manifest, name)}"
            )
    return content
