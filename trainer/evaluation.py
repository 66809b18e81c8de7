"""Scoring a model on shards: exact metrics of every record, and its predictions."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.batches import Batch, as_tensor
from trainer.config import DataConfig
from trainer.errors import InputError
from trainer.feature_networks.feature_extractor import FEATURE_EXTRACTOR, extractor_of
from trainer.feature_networks.projection import YOUTUBE8M
from trainer.files import read_json
from trainer.input_pipeline import evaluation_batches
from trainer.manifest import Manifest, Shard
from trainer.metrics import MetricsAccumulator
from trainer.metrics.mistakes import Mistakes
from trainer.models import probabilities
from trainer.prediction import read_predictions
from trainer.progress import Progress


@dataclasses.dataclass
class Scored:
    """What scoring some shards gave.

    Attributes:
        metrics: of all records.
        mistakes: of all records.
        model_name: its name among `trainer.models.MODELS`.
        video_ids: in the order of the shards.
        lengths: int32 [N], frames of each video; empty for video-level data.
        seconds: wall time.
        metrics_seconds: of it, spent on metrics.
    """

    metrics: MetricsAccumulator
    mistakes: Mistakes
    model_name: str
    video_ids: list[str]
    lengths: NDArray[np.int32]
    seconds: float
    metrics_seconds: float

    def top(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Classes and scores [N, 20] of every video, best first."""
        arrays = self.metrics.arrays()
        return arrays["classes"], arrays["scores"]


Predict = Callable[[dict[str, Any]], Any]


def predictor(model: keras.Model) -> Predict:
    """A compiled function of a model's inputs: probabilities float32 [B,C], as in serving."""
    predict: Predict = tf.function(
        lambda features: probabilities(model(features, training=False)), reduce_retracing=True
    )
    return predict


def score_shards(
    model: keras.Model,
    manifest: Manifest,
    shards: Sequence[Shard],
    max_frames: int,
    batch_size: int,
    progress: Progress | None = None,
    predict: Predict | None = None,
) -> Scored:
    """Score every record of `shards` once with the model's weights as they are.

    Args:
        model: of `trainer.models`.
        manifest: of the data.
        shards: to score.
        max_frames: T, frames used of a video.
        batch_size: B.
        progress: told of each batch.
        predict: `predictor(model)`, if it is used more than once.

    Raises:
        InputError: a record that can not be read, or a score that is NaN.
    """
    predict = predict or predictor(model)
    batches = evaluation_batches(
        shards, manifest.level, manifest.num_classes, DataConfig(max_frames=max_frames), batch_size
    )
    scored = (
        (scores_of(model, predict, batch), batch.labels, batch.video_ids,
         np.zeros(0, np.int32) if batch.lengths is None else batch.lengths)
        for batch in batches
    )  # fmt: skip
    return collect(model.name, scored, manifest, shards, progress)


Answers = Iterable[tuple[NDArray[np.float32], NDArray[Any], list[str], NDArray[np.int32]]]
"""Of batches: scores [B,C], labels [B,C], ids [B], and frames of each video ([B], or empty)."""


def collect(
    name: str,
    answers: Answers,
    manifest: Manifest,
    shards: Sequence[Shard],
    progress: Progress | None = None,
) -> Scored:
    """The metrics of a model's answers to all records of `shards`, in their order.

    Raises:
        InputError: none of the records has a label.
    """
    metrics, mistakes = MetricsAccumulator(manifest.num_classes), Mistakes(manifest.num_classes)
    video_ids: list[str] = []
    lengths = [np.zeros(0, np.int32)]
    in_metrics = 0.0
    start = time.monotonic()
    for scores, labels, ids, frames in answers:
        begin = time.monotonic()
        for ranked in metrics.ranked(scores, labels):
            metrics.add_ranked(ranked)
            mistakes.add(ranked)
        video_ids += ids
        lengths.append(frames)
        in_metrics += time.monotonic() - begin
        if progress:
            progress.advance(len(ids))
    if not metrics.positives.any():
        raise InputError(
            f"{shards[0].uri} and {len(shards) - 1} more: none of {len(video_ids):,} records has "
            "a label"
        )
    seconds = time.monotonic() - start
    return Scored(metrics, mistakes, name, video_ids, np.concatenate(lengths), seconds, in_metrics)


def scores_of(model: keras.Model, predict: Predict, batch: Batch) -> NDArray[np.float32]:
    """Probabilities float32 [B,C] of a batch.

    Raises:
        InputError: one of them is NaN.
    """
    features = {name: as_tensor(value) for name, value in batch.features.items()}
    scores: NDArray[np.float32] = predict(features).numpy()
    if np.isnan(scores).any():
        raise InputError(f"model {model.name}: some of its scores are NaN, expected numbers")
    return scores


def score_predictions(
    path: str | os.PathLike[str], manifest: Manifest, shards: Sequence[Shard], max_frames: int
) -> MetricsAccumulator:
    """Metrics of a prediction file (the oracle's) on the labels of `shards`.

    Raises:
        InputError: a video that the file does not score.
    """
    by_id = read_predictions(path, manifest.num_classes)
    metrics = MetricsAccumulator(manifest.num_classes)
    for batch in evaluation_batches(
        shards, manifest.level, manifest.num_classes, DataConfig(max_frames=max_frames), 256
    ):
        rows = []
        for video_id in batch.video_ids:
            if video_id not in by_id:
                raise InputError(f"{path}: has no prediction of video {video_id!r}")
            rows.append(by_id[video_id])
        metrics.add(np.stack(rows), batch.labels)
    return metrics


def trained_config(folder: str | os.PathLike[str], manifest: Manifest) -> dict[str, Any]:
    """`config.json` of a trained model's folder, checked to fit the data.

    Raises:
        InputError: absent, or the model was trained on another level, number of classes or
            vocabulary.
    """
    content: dict[str, Any] = read_json(Path(folder) / "config.json")
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("max_frames"), int):
        raise InputError(f"{folder}/config.json: is no configuration of a trained model")
    check_fits(str(folder), content, manifest)
    return content


def vocabulary_compared(content: dict[str, Any], manifest: Manifest) -> bool:
    """Whether `check_fits` could compare the names of a model's classes with the data's."""
    return bool(manifest.vocabulary_digest() and content.get("vocabulary_digest"))


def check_fits(where: str, content: dict[str, Any], manifest: Manifest) -> None:
    """Raise `InputError` unless a model is of the data's level, number of classes and names.

    Args:
        where: the model is, for messages.
        content: what is written of it beside it.
        manifest: of the data.
    """
    for name in ("level", "num_classes"):
        if content.get(name) != getattr(manifest, name):
            raise InputError(
                f"{where}: the model's {name} is {content.get(name)}, the data's "
                f"{getattr(manifest, name)}"
            )
    known, found = manifest.vocabulary_digest(), content.get("vocabulary_digest", "")
    if known and found and known != found:
        raise InputError(
            f"{where}: the model was trained with another vocabulary (names' digest {found}, the "
            f"data's {known}): its classes are not those of the data"
        )
    made = extractor_of(manifest)
    expected = content.get("feature_extractor")
    if made and expected == "" and made.rgb.source != YOUTUBE8M:
        raise InputError(
            f"{where}: the model was trained on features of YouTube-8M or unknown ones, those of "
            f"the data are of another PCA ({made.rgb.source})"
        )
    if expected and not made and content.get("features_of") != YOUTUBE8M:
        raise InputError(
            f"{where}: the model takes features of the extractor {expected[:12]}, what made those "
            f"of the data is not known: {FEATURE_EXTRACTOR} has to lie beside them"
        )
    if made and expected and made.digest != expected:
        raise InputError(
            f"{where}: the model takes features of the extractor {expected[:12]}, those of the "
            f"data were made by {made.digest[:12]}: extract them with the model's "
            f"{FEATURE_EXTRACTOR}"
        )
