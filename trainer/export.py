"""The SavedModel: serialised records in, named classes out, nothing of this project needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import records, tensor_records
from trainer.errors import InputError
from trainer.models import probabilities
from trainer.vocabulary import Vocabulary

SIGNATURE = "serving_default"


def export_model(
    model: keras.Model,
    level: records.Level,
    max_frames: int,
    vocabulary: Vocabulary,
    top_k: int,
    folder: str | os.PathLike[str],
) -> None:
    """Write a SavedModel with parsing, normalisation and label map inside.

    Its signature `serving_default` takes `examples`, string [B] (serialised records of the level
    that the model was trained on), and returns `classes` int64 [B,k], `names` string [B,k] and
    `scores` float32 [B,k], best first.

    Args:
        model: trained; its weights are exported as they are, moving statistics included.
        level: frame or video.
        max_frames: frames used of a video.
        vocabulary: names of the C classes.
        top_k: k.
        folder: to write; must not exist.

    Raises:
        InputError: k is more than C, or the folder exists.
    """
    num_classes = vocabulary.num_classes
    if top_k > num_classes:
        raise InputError(f"export.top_k is {top_k}, expected at most the {num_classes} classes")
    if Path(folder).exists():
        raise InputError(f"{folder}: exists; expected a folder to be made")
    names = tf.constant(vocabulary.names, tf.string)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples: Any) -> dict[str, Any]:
        if level == records.FRAME:
            batch = tensor_records.parse_frame_batch(examples, max_frames)
        else:
            batch = tensor_records.parse_video_batch(examples)
        inputs = {name: batch[name] for name in model.input}
        scores, classes = tf.math.top_k(probabilities(model(inputs, training=False)), top_k)
        return {
            "classes": tf.cast(classes, tf.int64),
            "names": tf.gather(names, classes),
            "scores": scores,
        }

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(SIGNATURE, serve)
    archive.write_out(os.fspath(folder), verbose=False)


def top_predictions(
    model: keras.Model, level: records.Level, max_frames: int, payloads: list[bytes], top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the exported model should answer: classes and scores [N,k] of the model in memory."""
    if level == records.FRAME:
        batch = tensor_records.parse_frame_batch(tf.constant(payloads), max_frames)
    else:
        batch = tensor_records.parse_video_batch(tf.constant(payloads))
    scores = probabilities(model({name: batch[name] for name in model.input}, training=False))
    best, classes = tf.math.top_k(scores, top_k)
    return classes.numpy(), best.numpy()
