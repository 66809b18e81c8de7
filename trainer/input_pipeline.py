"""Shards to batches with tf.data.

The order follows from the seed and the epoch alone, whatever the parallelism: shards are permuted,
read one after the other and shuffled in a buffer.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import records, tensor_records
from trainer.errors import InputError
from trainer.manifest import Shard


def training_batches(
    shards: Sequence[Shard],
    level: records.Level,
    num_classes: int,
    max_frames: int,
    batch_size: int,
    shuffle_buffer: int,
    seed: int,
    epoch: int,
) -> tf.data.Dataset:
    """One epoch of `(features, labels)`: the model's inputs and float32 [B,C].

    The last batch is dropped if it is not full, so that shapes are static; another shuffle every
    epoch sees to it that no video stays out.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(shards))
    paths = [str(shards[i].path) for i in order]
    # zlib.crc32 only to spread (seed, epoch) over the op's two 32-bit seeds.
    shuffle_seed = zlib.crc32(f"{seed}/{epoch}".encode())
    dataset = tf.data.TFRecordDataset(paths, buffer_size=1 << 20)
    dataset = dataset.shuffle(shuffle_buffer, seed=shuffle_seed, reshuffle_each_iteration=False)
    dataset = dataset.batch(batch_size, drop_remainder=True)

    def parse(serialized: Any) -> tuple[dict[str, Any], Any]:
        batch = _parse(serialized, level, max_frames)
        labels = tensor_records.multi_hot(batch.pop("labels"), num_classes)
        del batch["id"]
        return batch, tf.ensure_shape(labels, [batch_size, num_classes])

    return dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    shards: Sequence[Shard],
    level: records.Level,
    num_classes: int,
    max_frames: int,
    batch_size: int,
) -> tf.data.Dataset:
    """Every record once, in order: `(ids, features, labels)`."""
    dataset = tf.data.TFRecordDataset([str(s.path) for s in shards], buffer_size=1 << 20)

    def parse(serialized: Any) -> tuple[Any, dict[str, Any], Any]:
        batch = _parse(serialized, level, max_frames)
        labels = tensor_records.multi_hot(batch.pop("labels"), num_classes)
        return batch.pop("id"), batch, labels

    dataset = dataset.batch(batch_size)
    return dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _parse(serialized: Any, level: records.Level, max_frames: int) -> dict[str, Any]:
    if level == records.FRAME:
        return tensor_records.parse_frame_batch(serialized, max_frames)
    return tensor_records.parse_video_batch(serialized)


def located(
    batches: tf.data.Dataset, shards: Sequence[Shard], level: records.Level, num_classes: int
) -> Iterator[Any]:
    """Iterate over batches; where TensorFlow fails on one, name the record that is to blame.

    TensorFlow's message names neither file nor record, so the shards are then read again by the
    strict reader, which does.

    Raises:
        InputError: the first bad record of the shards.
    """
    try:
        yield from batches
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError, tf.errors.NotFoundError) as e:
        for shard in shards:
            for _ in records.read_videos(shard.path, level, num_classes):
                pass
        first_line = str(e).splitlines()[0]
        raise InputError(f"reading {len(shards)} shards failed: {first_line}") from e
