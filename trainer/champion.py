"""A model that was good enough before, scored beside the new one: trained, or exported.

A stored number says nothing of today's data; the champion answers to the same records.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import records
from trainer.errors import InputError
from trainer.evaluation import Scored, collect, score_shards, trained_config
from trainer.export import SIGNATURE
from trainer.manifest import Manifest, Shard
from trainer.metrics import TOP_K
from trainer.models import load_model
from trainer.progress import Progress
from trainer.training import MODEL

_SAVED_MODEL = "saved_model.pb"


def score_champion(
    folder: str | os.PathLike[str],
    manifest: Manifest,
    shards: Sequence[Shard],
    batch_size: int,
    progress: Progress | None = None,
) -> Scored:
    """Score a champion on every record of `shards`.

    Args:
        folder: of the train step (`model.keras`), of the export step, or a SavedModel itself.
        manifest: of the data.
        shards: to score.
        batch_size: B.
        progress: told of each batch.

    Raises:
        InputError: no model there, one that does not load, or one of other data or classes.
    """
    path = Path(folder)
    if (path / MODEL).is_file():
        config = trained_config(path, manifest)
        model = load_model(path / MODEL)
        frames = config["data"]["max_frames"]
        return score_shards(model, manifest, shards, frames, batch_size, progress)
    for candidate in (path / "saved_model", path):
        if (candidate / _SAVED_MODEL).is_file():
            answers = _answers(candidate, manifest, shards, batch_size)
            return collect("exported", answers, manifest, shards, progress)
    raise InputError(
        f"{folder}: is no champion: expected {MODEL} (a trained model) or {_SAVED_MODEL} (an "
        "exported one) there"
    )


def _answers(
    folder: Path, manifest: Manifest, shards: Sequence[Shard], batch_size: int
) -> Iterator[tuple[Any, Any, list[str], Any]]:
    try:
        # Held here: the signature does not keep the model's variables alive.
        model = tf.saved_model.load(str(folder))
        signature = model.signatures[SIGNATURE]
    except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{folder}: does not load as a champion ({reason})") from None
    names = np.array(manifest.read_vocabulary().names) if manifest.vocabulary else None
    every = itertools.chain.from_iterable(records.read_records(one.path) for one in shards)
    while batch := list(itertools.islice(every, batch_size)):
        videos = [records.parse(record) for record in batch]
        try:
            answer = signature(examples=tf.constant([record.payload for record in batch]))
            found = {key: answer[key].numpy() for key in ("classes", "scores", "names")}
        except (TypeError, KeyError, tf.errors.OpError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(
                f"{folder}: can not score {manifest.level}-level records ({reason})"
            ) from None
        classes = found["classes"]
        _check(folder, classes, found, manifest, names)
        scores = np.zeros((len(batch), manifest.num_classes), np.float32)
        np.put_along_axis(scores, classes, found["scores"], axis=1)
        labels = np.zeros(scores.shape, bool)
        for row, video in enumerate(videos):
            labels[row, video.labels] = True
        frames = [video.num_frames for video in videos]
        yield scores, labels, [video.video_id for video in videos], np.array(frames, np.int32)


def _check(
    folder: Path, classes: Any, found: dict[str, Any], manifest: Manifest, names: Any
) -> None:
    """Refuse answers that can not be compared: too few, of other classes, or no numbers."""
    least = min(TOP_K, manifest.num_classes)
    if classes.shape[1] < least:
        raise InputError(
            f"{folder}: answers with {classes.shape[1]} classes a video (export.top_k), GAP@20 "
            f"needs {least}"
        )
    if classes.max() >= manifest.num_classes:
        raise InputError(
            f"{folder}: knows a class {classes.max()}, the data has {manifest.num_classes} classes"
        )
    if np.isnan(found["scores"]).any():
        raise InputError(f"{folder}: some of its scores are NaN, expected numbers")
    if names is None:
        return
    said = np.char.decode(found["names"].astype("S"), "utf-8", "replace")
    other = np.argwhere(said != names[classes])
    if len(other):
        row, column = other[0]
        raise InputError(
            f"{folder}: calls class {classes[row, column]} {str(said[row, column])!r}, the data "
            f"{str(names[classes[row, column]])!r}: it is a model of another vocabulary"
        )
