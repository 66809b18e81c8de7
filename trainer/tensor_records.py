"""Records as TensorFlow graph operations: batches of serialised bytes in, batches of tensors out.

Names and sizes are those of `trainer.records`. Training, evaluation and the exported model all
parse here.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from trainer import records

Batch = dict[str, Any]


def parse_frame_batch(serialized: Any, max_frames: int) -> Batch:
    """Frame-level records, cut to the first `max_frames` frames and zero-padded to as many.

    Args:
        serialized: string [B].
        max_frames: T.

    Returns:
        `id` string [B]; `labels` ragged int64 [B, …]; `rgb` uint8 [B,T,1024]; `audio` uint8
        [B,T,128]; `num_frames` int32 [B], of the frames that have both.

    Raises:
        tf.errors.InvalidArgumentError: a feature list is absent or a frame has the wrong size.
    """
    context, sequence, lengths = tf.io.parse_sequence_example(
        serialized,
        context_features=_context_features(),
        sequence_features={
            key: tf.io.FixedLenSequenceFeature([], tf.string)
            for key in (records.RGB_KEY, records.AUDIO_KEY)
        },
    )
    num_frames = tf.minimum(lengths[records.RGB_KEY], lengths[records.AUDIO_KEY])
    num_frames = tf.cast(tf.minimum(num_frames, max_frames), tf.int32)
    with tf.control_dependencies(
        [tf.debugging.assert_positive(num_frames, "a record has no frames")]
    ):
        num_frames = tf.identity(num_frames)
    return {
        "id": _first_id(context),
        "labels": context[records.LABELS_KEY],
        "rgb": _frames(sequence[records.RGB_KEY], records.RGB_SIZE, max_frames),
        "audio": _frames(sequence[records.AUDIO_KEY], records.AUDIO_SIZE, max_frames),
        "num_frames": num_frames,
    }


def parse_video_batch(serialized: Any) -> Batch:
    """Video-level records.

    Args:
        serialized: string [B].

    Returns:
        `id` string [B]; `labels` ragged int64 [B, …]; `mean_rgb` float32 [B,1024]; `mean_audio`
        float32 [B,128].

    Raises:
        tf.errors.InvalidArgumentError: a feature is absent or of the wrong size.
    """
    features = _context_features() | {
        records.MEAN_RGB_KEY: tf.io.FixedLenFeature([records.RGB_SIZE], tf.float32),
        records.MEAN_AUDIO_KEY: tf.io.FixedLenFeature([records.AUDIO_SIZE], tf.float32),
    }
    parsed = tf.io.parse_example(serialized, features)
    return {
        "id": _first_id(parsed),
        "labels": parsed[records.LABELS_KEY],
        "mean_rgb": parsed[records.MEAN_RGB_KEY],
        "mean_audio": parsed[records.MEAN_AUDIO_KEY],
    }


def _context_features() -> dict[str, Any]:
    ids = {key: tf.io.FixedLenFeature([], tf.string, "") for key in records.ID_KEYS}
    return ids | {records.LABELS_KEY: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64)}


def _first_id(parsed: dict[str, Any]) -> Any:
    first, second = (parsed[key] for key in records.ID_KEYS)
    return tf.where(tf.strings.length(first) > 0, first, second)


def _frames(frames: Any, size: int, max_frames: int) -> Any:
    """uint8 [B,T,size] of byte strings [B,≥0], the padding of which is empty strings."""
    frames = frames[:, :max_frames]
    lengths = tf.strings.length(frames)
    right = tf.reduce_all((lengths == size) | (lengths == 0))
    with tf.control_dependencies(
        [tf.debugging.Assert(right, ["a frame has not the expected bytes", size])]
    ):
        frames = tf.pad(frames, [[0, 0], [0, max_frames - tf.shape(frames)[1]]], constant_values="")
    codes = tf.io.decode_raw(frames, tf.uint8, fixed_length=size)
    return tf.ensure_shape(codes, [None, max_frames, size])
