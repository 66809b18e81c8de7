"""The ONNX file of an export, and the proof that it answers as the SavedModel does."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.export.reload_check import largest_change
from trainer import records
from trainer.export import parsed
from trainer.exported_model import FEATURES, SAVED_MODEL
from trainer.onnx_model import OPSET, OnnxModel, write_onnx
from trainer.vocabulary import Vocabulary

FILE = "model.onnx"
TOLERANCE = 1e-4
"""Largest difference of a score between the SavedModel and the ONNX file."""
_BATCH = 64


def export_onnx(
    model: keras.Model,
    level: records.Level,
    max_frames: int,
    vocabulary: Vocabulary,
    top_k: int,
    folder: Path,
    payloads: list[bytes],
    half: bool,
) -> dict[str, Any]:
    """Write `model.onnx` beside `saved_model/` in a folder, and compare the two.

    Args:
        model: as it is served.
        level: frame or video.
        max_frames: frames used of a video.
        vocabulary: of the classes.
        top_k: classes that an answer has.
        folder: of the export.
        payloads: serialised records to compare on.
        half: store constants in float16 where they are numbers of it.

    Returns:
        `file`, `bytes`, `opset`, version of `onnxruntime`, `records` and `largest_difference`.

    Raises:
        RuntimeError: the two differ.
    """
    path = folder / FILE
    write_onnx(model, max_frames, vocabulary, top_k, path, half)
    loaded = tf.saved_model.load(str(folder / SAVED_MODEL))
    serve = loaded.signatures[FEATURES[level]]
    runtime = OnnxModel(path)
    largest = 0.0
    for start in range(0, len(payloads), _BATCH):
        batch = parsed(tf.constant(payloads[start : start + _BATCH]), level, max_frames)
        features = {name: batch[name] for name in model.input}
        expected = serve(**features)
        answer = runtime({name: np.asarray(value) for name, value in features.items()})
        difference = largest_change(
            (expected["classes"].numpy(), expected["scores"].numpy()), answer
        )
        largest = max(largest, difference)
    if largest > TOLERANCE:
        raise RuntimeError(
            f"{FILE} has scores that differ from the SavedModel's by {largest:g}, expected at "
            f"most {TOLERANCE:g}"
        )
    return {
        "file": FILE,
        "bytes": path.stat().st_size,
        "opset": OPSET,
        "onnxruntime": importlib.metadata.version("onnxruntime"),
        "records": len(payloads),
        "largest_difference": largest,
    }
