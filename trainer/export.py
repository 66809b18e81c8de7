"""The SavedModel: serialised records in, named classes out, nothing of this project needed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from trainer import records, tensor_records
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.exported_model import FEATURES, SEGMENTS, SIGNATURE
from trainer.half_weights import HalfWeights
from trainer.models import build_model, probabilities
from trainer.vocabulary import Vocabulary

_CODES = ("rgb", "audio")
_BATCH = 64

Scorer = Callable[[dict[str, Any]], dict[str, Any]]
"""Of features [B,…] the best classes: classes, names, verticals and scores [B,k]."""


def export_model(
    model: keras.Model,
    level: records.Level,
    max_frames: int,
    vocabulary: Vocabulary,
    top_k: int,
    folder: str | os.PathLike[str],
    segment_step: int | None = None,
    half: HalfWeights | None = None,
) -> None:
    """Write a SavedModel with parsing, normalisation and label map inside.

    Its signature `serving_default` takes `examples`, string [B] (serialised records of the level
    that the model was trained on). Another takes the features: `features` of a frame-level model
    `rgb` uint8 [B,T,1024], `audio` uint8 [B,T,128], both padded with 0 after the first `num_frames`
    int32 [B], T = `max_frames`; `video_level` of a video-level one `mean_rgb` float32 [B,1024],
    `mean_audio` float32 [B,128]. Both return `classes` int64 [B,k], `names` string [B,k],
    `verticals` string [B,k] (of each class the first one) and `scores` float32 [B,k], best first.

    With a `segment_step`, `segments` takes `examples` too, and returns the same of windows of 5
    seconds, W of them, [B,W,k], with `starts` int32 [B,W], their first seconds, each row the same,
    and `windows` int32 [B], how many of them begin within each video; what is beyond has the scores
    0.

    Args:
        model: trained; its weights are exported as they are, moving statistics included.
        level: frame or video.
        max_frames: frames used of a video.
        vocabulary: names and verticals of the C classes.
        top_k: k.
        folder: to write; must not exist.
        segment_step: seconds from one window to the next, of a model of `any_frames`; None: no
            timeline.
        half: the model's weights in float16, to be stored in place of its own; None: float32.

    Raises:
        InputError: k is more than C, or the folder exists.
    """
    num_classes = vocabulary.num_classes
    if top_k > num_classes:
        raise InputError(f"export.top_k is {top_k}, expected at most the {num_classes} classes")
    if Path(folder).exists():
        raise InputError(f"{folder}: exists; expected a folder to be made")
    names = tf.constant(vocabulary.names, tf.string)
    verticals = tf.constant([row[0] for row in vocabulary.verticals], tf.string)

    open_frames = level == records.FRAME and model.input["rgb"].shape[1] is None

    def trimmed(features: dict[str, Any]) -> dict[str, Any]:
        """Without the frames that only pad: no video of the batch is to pay for them."""
        if not open_frames:
            return features
        longest = tf.maximum(tf.reduce_max(features["num_frames"]), 1)
        return features | {name: features[name][:, :longest] for name in _CODES}

    def scorer() -> Scorer:
        """Reads the weights: once an answer, outside of any loop over its videos."""
        network = half.network() if half else model

        def best(features: dict[str, Any]) -> dict[str, Any]:
            inputs = {name: features[name] for name in model.input}
            scores, classes = tf.math.top_k(probabilities(network(inputs, training=False)), top_k)
            return {
                "classes": tf.cast(classes, tf.int64),
                "names": tf.gather(names, classes),
                "verticals": tf.gather(verticals, classes),
                "scores": scores,
            }

        return best

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(examples: Any) -> dict[str, Any]:
        return scorer()(trimmed(parsed(examples, level, max_frames)))

    @tf.function(input_signature=feature_specs(model, max_frames))
    def serve_features(*features: Any) -> dict[str, Any]:
        return scorer()(trimmed(dict(zip(model.input, features, strict=True))))

    # Its endpoints' variables are tracked by themselves; a model that is tracked, too, would have
    # each of them stored twice.
    archive = keras.export.ExportArchive()
    archive.add_endpoint(SIGNATURE, serve)
    archive.add_endpoint(FEATURES[level], serve_features)
    if segment_step is not None:
        archive.add_endpoint(SEGMENTS, _timeline(scorer, top_k, segment_step))
    archive.write_out(os.fspath(folder), verbose=False)


def feature_specs(model: keras.Model, max_frames: int) -> list[tf.TensorSpec]:
    """The model's inputs, in their order, any number of videos of `max_frames` frames."""
    # How many frames a request has is stated, also where the model takes any.
    return [
        tf.TensorSpec(
            [None, max_frames, value.shape[-1]] if name in _CODES else value.shape,
            value.dtype,
            name=name,
        )
        for name, value in model.input.items()
    ]


def signatures(folder: str | os.PathLike[str]) -> dict[str, dict[str, dict[str, str]]]:
    """What a SavedModel takes and returns: of each signature `inputs` and `outputs`.

    Args:
        folder: of the SavedModel.

    Returns:
        By signature and by tensor such as `uint8 [B,60,1024]`; B is any number of videos.
    """
    content = saved_model_pb2.SavedModel()
    content.ParseFromString((Path(folder) / "saved_model.pb").read_bytes())

    def described(tensors: Any) -> dict[str, str]:
        found = {}
        for name in sorted(tensors):
            sizes = [dim.size for dim in tensors[name].tensor_shape.dim]
            shape = ",".join("B" if size < 0 else str(size) for size in sizes)
            found[name] = f"{tf.as_dtype(tensors[name].dtype).name} [{shape}]"
        return found

    return {
        name: {"inputs": described(one.inputs), "outputs": described(one.outputs)}
        for name, one in sorted(content.meta_graphs[0].signature_def.items())
        if not name.startswith("__")  # TensorFlow's own
    }


def any_frames(model: keras.Model, config: ModelConfig, vocabulary: Vocabulary) -> keras.Model:
    """A frame-level model of the same weights that takes any number of frames.

    Args:
        model: trained.
        config: that it was built with.
        vocabulary: of its classes.
    """
    verticals = vocabulary.vertical_indices()
    twin = build_model(config, vocabulary.num_classes, records.FRAME, verticals=verticals)
    twin.set_weights(model.get_weights())
    return twin


def _timeline(scorer: Callable[[], Scorer], top_k: int, step: int) -> Any:
    """The function of the signature `segments`; the scorer's are features of windows [W,5,…]."""
    size = records.SEGMENT_FRAMES
    starts = np.arange(0, records.MAX_FRAMES, step, dtype=np.int32)
    frames = tf.constant(starts[:, None] + np.arange(size, dtype=np.int32))

    def of_video(best: Scorer, video: tuple[Any, Any, Any]) -> dict[str, Any]:
        rgb, audio, num_frames = video
        left = num_frames - starts
        # Only windows that begin within the video are scored.
        windows = tf.reduce_sum(tf.cast(left > 0, tf.int32))
        there = frames[:windows]
        found = best(
            {
                "rgb": tf.gather(rgb, there),
                "audio": tf.gather(audio, there),
                "num_frames": tf.clip_by_value(left[:windows], 1, size),
            }
        )
        return {name: _filled(value, len(starts)) for name, value in found.items()}

    kinds = {"classes": tf.int64, "names": tf.string, "verticals": tf.string, "scores": tf.float32}
    shape = (len(starts), top_k)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve_segments(examples: Any) -> dict[str, Any]:
        batch = tensor_records.parse_frame_batch(examples, records.MAX_FRAMES)
        codes = [tf.pad(batch[name], [[0, 0], [0, size], [0, 0]]) for name in _CODES]
        found = tf.map_fn(
            functools.partial(of_video, scorer()),
            (*codes, batch["num_frames"]),
            fn_output_signature={name: tf.TensorSpec(shape, kind) for name, kind in kinds.items()},
        )
        windows = tf.reduce_sum(tf.cast(batch["num_frames"][:, None] > starts, tf.int32), axis=1)
        # A row for each video: servers that batch requests refuse outputs without the batch.
        rows = tf.broadcast_to(starts, [tf.shape(windows)[0], len(starts)])
        return {**found, "starts": rows, "windows": windows}

    return serve_segments


def _filled(values: Any, rows: int) -> Any:
    """[W,k] with rows of zeros, or empty strings, up to [rows,k]."""
    beyond = tf.zeros([rows - tf.shape(values)[0], values.shape[1]], values.dtype)
    return tf.ensure_shape(tf.concat([values, beyond], axis=0), [rows, values.shape[1]])


def parsed(payloads: Any, level: records.Level, max_frames: int) -> dict[str, Any]:
    """The model's inputs of serialised records, string [B]."""
    if level == records.FRAME:
        return tensor_records.parse_frame_batch(payloads, max_frames)
    return tensor_records.parse_video_batch(payloads)


def top_predictions(
    model: keras.Model, level: records.Level, max_frames: int, payloads: list[bytes], top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the exported model should answer: classes and scores [N,k] of the model in memory."""
    parts = []
    # Not all at once: of a thousand long videos the frames as floats alone are gigabytes.
    for start in range(0, len(payloads), _BATCH):
        batch = parsed(tf.constant(payloads[start : start + _BATCH]), level, max_frames)
        scores = probabilities(model({name: batch[name] for name in model.input}, training=False))
        best, classes = tf.math.top_k(scores, top_k)
        parts.append((classes.numpy(), best.numpy()))
    every_class, every_score = zip(*parts, strict=True)
    return np.concatenate(every_class), np.concatenate(every_score)
