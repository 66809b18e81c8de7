"""A model that was good enough before, scored beside the new one: trained, or exported.

A stored number says nothing of today's data; the champion answers to the same records.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import records
from trainer.errors import InputError
from trainer.evaluation import (
    Scored,
    check_fits,
    collect,
    score_shards,
    trained_config,
    vocabulary_compared,
)
from trainer.exported_model import ABOUT, SAVED_MODEL, SIGNATURE
from trainer.files import read_json
from trainer.manifest import Manifest, Shard
from trainer.metrics import TOP_K, dense_scores
from trainer.models import load_model
from trainer.progress import Progress
from trainer.training import MODEL

_SAVED_MODEL = "saved_model.pb"


class Champion:
    """A model that loads and fits the data.

    Args:
        folder: of the train step (`model.keras`), of the export step, or a SavedModel itself.
        manifest: of the data.

    Attributes:
        vocabulary_known: whether its classes' names were compared with the data's.

    Raises:
        InputError: no model there, one that does not load, or one of other data or classes.
    """

    def __init__(self, folder: str | os.PathLike[str], manifest: Manifest) -> None:
        self._folder, self._manifest = Path(folder), manifest
        self._model: keras.Model | None = None
        self._signature: Any = None
        if (self._folder / MODEL).is_file():
            self._load_trained()
            return
        for candidate in (self._folder / SAVED_MODEL, self._folder):
            if (candidate / _SAVED_MODEL).is_file():
                self._load_exported(candidate)
                return
        raise InputError(
            f"{folder}: is no champion: expected {MODEL} (a trained model) or {_SAVED_MODEL} (an "
            "exported one) there"
        )

    def score(
        self, shards: Sequence[Shard], batch_size: int, progress: Progress | None = None
    ) -> Scored:
        """Every record of `shards`, in their order.

        Raises:
            InputError: it can not score them.
        """
        if self._model is not None:
            return score_shards(
                self._model, self._manifest, shards, self._frames, batch_size, progress
            )
        answers = self._answers(shards, batch_size)
        return collect("exported", answers, self._manifest, shards, progress)

    def _load_trained(self) -> None:
        manifest = self._manifest
        config = trained_config(self._folder, manifest)
        if config["data"].get("segments"):
            raise InputError(f"{self._folder}: was trained on segments, the model on whole videos")
        self._frames = config["data"]["max_frames"]
        self.vocabulary_known = vocabulary_compared(config, manifest)
        model = load_model(self._folder / MODEL)
        # By one example without content, before all of them are scored.
        with self._explained("can not score the data's records"):
            blank = _blank(manifest.level, self._frames)
            answer = model({name: blank[name] for name in model.input}, training=False)
        if answer.shape[-1] != manifest.num_classes:
            raise InputError(
                f"{self._folder}: answers with {answer.shape[-1]} classes, the data has "
                f"{manifest.num_classes}"
            )
        self._model = model

    def _load_exported(self, saved_model: Path) -> None:
        manifest = self._manifest
        about = saved_model.parent / ABOUT
        if about.is_file():
            _check_export(about, manifest)
        with self._explained("does not load as a champion"):
            # Held: the signature does not keep the model's variables alive.
            self._loaded = tf.saved_model.load(str(saved_model))
            self._signature = self._loaded.signatures[SIGNATURE]
        self.vocabulary_known = bool(manifest.vocabulary)
        self._names = np.array(manifest.read_vocabulary().names)

    def _answers(
        self, shards: Sequence[Shard], batch_size: int
    ) -> Iterator[tuple[Any, Any, list[str], Any]]:
        manifest = self._manifest
        every = itertools.chain.from_iterable(records.read_records(one.path) for one in shards)
        while batch := list(itertools.islice(every, batch_size)):
            videos = [records.parse(record) for record in batch]
            with self._explained(f"can not score {manifest.level}-level records"):
                answer = self._signature(examples=tf.constant([record.payload for record in batch]))
                found = {key: answer[key].numpy() for key in ("classes", "scores", "names")}
            self._check(found)
            scores = dense_scores(found["classes"], found["scores"], manifest.num_classes)
            labels = np.zeros(scores.shape, bool)
            for row, video in enumerate(videos):
                labels[row, video.labels] = True
            is_frame_level = manifest.level == records.FRAME
            lengths = [video.num_frames for video in videos] if is_frame_level else []
            yield scores, labels, [video.video_id for video in videos], np.array(lengths, np.int32)

    def _check(self, found: dict[str, Any]) -> None:
        """Refuse answers that can not be compared: too few, of other classes, or no numbers."""
        classes, scores = found["classes"], found["scores"]
        least = min(TOP_K, self._manifest.num_classes)
        if classes.shape[1] < least:
            raise InputError(
                f"{self._folder}: answers with {classes.shape[1]} classes a video (export.top_k), "
                f"GAP@20 needs {least}"
            )
        if classes.min() < 0 or classes.max() >= self._manifest.num_classes:
            raise InputError(
                f"{self._folder}: knows a class {classes.max()}, the data has "
                f"{self._manifest.num_classes} classes"
            )
        if np.isnan(scores).any():
            raise InputError(f"{self._folder}: some of its scores are NaN, expected numbers")
        if scores.min() < 0 or scores.max() > 1:
            raise InputError(
                f"{self._folder}: has scores from {scores.min():g} to {scores.max():g}, expected "
                "probabilities"
            )
        if not self.vocabulary_known:
            return
        said = np.char.decode(found["names"].astype("S"), "utf-8", "replace")
        other = np.argwhere(said != self._names[classes])
        if len(other):
            row, column = other[0]
            label = classes[row, column]
            raise InputError(
                f"{self._folder}: calls class {label} {str(said[row, column])!r}, the data "
                f"{str(self._names[label])!r}: it is a model of another vocabulary"
            )

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """An error of a foreign model, whatever it raises, in one line that names it."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            lines = [line for line in str(error).strip().splitlines() if line.strip()]
            reason = lines[-1].strip() if lines else type(error).__name__
            raise InputError(f"{self._folder}: {what} ({reason})") from None


def _check_export(about: Path, manifest: Manifest) -> None:
    content = read_json(about)
    if not isinstance(content, dict):
        raise InputError(f"{about}: is no description of an export")
    check_fits(str(about), content, manifest)


def _blank(level: records.Level, frames: int) -> dict[str, Any]:
    """The features of a video of one silent, black second."""
    if level == records.VIDEO:
        return {
            records.MEAN_RGB_KEY: np.zeros((1, records.RGB_SIZE), np.float32),
            records.MEAN_AUDIO_KEY: np.zeros((1, records.AUDIO_SIZE), np.float32),
        }
    return {
        "rgb": np.zeros((1, frames, records.RGB_SIZE), np.uint8),
        "audio": np.zeros((1, frames, records.AUDIO_SIZE), np.uint8),
        "num_frames": np.ones(1, np.int32),
    }
