"""The same model for ONNX runtimes: features in, the best classes and their scores out."""

from __future__ import annotations

import importlib
import json
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.export import feature_specs
from trainer.models import probabilities
from trainer.vocabulary import Vocabulary

OPSET = 18
_LEAST_HALVED = 1024
"""Values of a constant, of fewer of which it is not worth it to store them in float16."""


def write_onnx(
    model: keras.Model,
    max_frames: int,
    vocabulary: Vocabulary,
    top_k: int,
    path: str | os.PathLike[str],
    half: bool = False,
) -> None:
    """Write a model file for ONNX runtimes.

    It takes what the model takes (`trainer.models`), of B videos, T = `max_frames`, and returns
    `classes` int64 [B,k] and `scores` float32 [B,k], best first. Its metadata have the classes'
    `names` and their first `verticals`, each a JSON list.

    Args:
        model: as it is served.
        max_frames: frames used of a video.
        vocabulary: of its classes.
        top_k: k.
        path: to write.
        half: store float32 constants that are numbers of float16 as such.
    """
    onnx, tf2onnx = (importlib.import_module(name) for name in ("onnx", "tf2onnx"))
    specs = feature_specs(model, max_frames)

    @tf.function(input_signature=specs)
    def best(*features: Any) -> dict[str, Any]:
        inputs = dict(zip(model.input, features, strict=True))
        scores, classes = tf.math.top_k(probabilities(model(inputs, training=False)), top_k)
        return {"classes": tf.cast(classes, tf.int64), "scores": scores}

    content, _ = tf2onnx.convert.from_function(best, input_signature=specs, opset=OPSET)
    for value in (*content.graph.input, *content.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "B"
    if half:
        _store_half(content, onnx)
    onnx.helper.set_model_props(
        content,
        {
            "names": json.dumps(vocabulary.names, ensure_ascii=False),
            "verticals": json.dumps([row[0] for row in vocabulary.verticals], ensure_ascii=False),
        },
    )
    onnx.checker.check_model(content)
    onnx.save(content, os.fspath(path))


class OnnxModel:
    """A model file in onnxruntime, on CPUs.

    Args:
        path: of the file.

    Call arguments:
        features: the model's inputs, arrays [B,…] by name.

    Returns:
        Classes int64 and scores float32 [B,k].
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        runtime = importlib.import_module("onnxruntime")
        self._session = runtime.InferenceSession(
            os.fspath(path), providers=["CPUExecutionProvider"]
        )

    def __call__(self, features: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        classes, scores = self._session.run(["classes", "scores"], features)
        return classes, scores


def _store_half(content: Any, onnx: Any) -> None:
    """Constants that float16 holds exactly are stored so, and cast as the model is loaded."""
    casts = []
    for constant in content.graph.initializer:
        values = onnx.numpy_helper.to_array(constant)
        if values.dtype != np.float32 or values.size < _LEAST_HALVED:
            continue
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if not np.array_equal(halved, values):
            continue
        name = constant.name
        constant.CopyFrom(onnx.numpy_helper.from_array(halved, f"{name}_float16"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}_float16"], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *content.graph.node]
    del content.graph.node[:]
    content.graph.node.extend(nodes)
