"""Reading 300-frame records: batches for the model beside TensorFlow's raw TFRecord reading.

    python -m benchmarks.input_pipeline          # about two minutes on 2 cores, 0.8 GB on the disk

All rows read the same files, which the system holds in memory, in turn in one process. Raw reading
gives the bytes of each record, one after the other; the trainer's gives shuffled batches of uint8
frames and labels as tensors, every checksum verified. The parsers of TensorFlow are there to
compare with: per batch, and per record as the peers do it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from benchmarks.synthetic import synthetic_manifest
from benchmarks.timing import machine, time_in_turn
from trainer import records, tensor_records
from trainer.batches import as_tensor
from trainer.config import DataConfig
from trainer.input_pipeline import TrainingInput
from trainer.manifest import Manifest


def raw(paths: list[str], batch: int, streams: int | None) -> None:
    dataset = tf.data.TFRecordDataset(paths, buffer_size=1 << 20, num_parallel_reads=streams)
    for _ in dataset.batch(batch):
        pass


def with_tensorflow(paths: list[str], batch: int, frames: int, batched: bool) -> None:
    dataset = tf.data.TFRecordDataset(paths, buffer_size=1 << 20)

    def parse(serialized: Any) -> Any:
        parsed = tensor_records.parse_frame_batch(serialized, frames)
        indices = parsed["labels"]
        places = tf.stack([indices.value_rowids(), indices.flat_values], axis=1)
        shape = tf.stack([indices.nrows(), tf.constant(records.NUM_CLASSES, tf.int64)])
        labels = tf.scatter_nd(places, tf.ones_like(indices.flat_values, tf.float32), shape)
        return parsed["rgb"], parsed["audio"], parsed["num_frames"], labels

    def parse_one(serialized: Any) -> Any:
        return tf.nest.map_structure(lambda value: value[0], parse(serialized[None]))

    if batched:
        dataset = dataset.batch(batch).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        dataset = dataset.map(parse_one, num_parallel_calls=tf.data.AUTOTUNE).batch(batch)
    for _ in dataset.prefetch(2):
        pass


def ours(manifest: Manifest, batch: int, frames: int, readers: int) -> Callable[[], None]:
    data = DataConfig(max_frames=frames, readers=readers)
    shards = manifest.split("train")
    given = TrainingInput(shards, manifest.level, manifest.num_classes, data, batch, 0)
    epochs = iter(range(1_000_000))

    def read() -> None:
        for one in given.batches(next(epochs), range(given.epoch_steps)):
            _ = [as_tensor(value) for value in (*one.features.values(), one.labels)]

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--shards", type=int, default=6)
    parser.add_argument("--videos", type=int, default=384, help="of a shard")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    batch, frames = arguments.batch, arguments.frames
    print(f"{machine()}; TensorFlow {tf.__version__}, T={frames}, batch {batch}")
    with tempfile.TemporaryDirectory() as folder:
        manifest = synthetic_manifest(Path(folder), arguments.shards, arguments.videos, frames)
        paths = [shard.uri for shard in manifest.shards]
        things: dict[str, Callable[[], None]] = {
            "raw, one stream": lambda: raw(paths, batch, None),
            "raw, two streams": lambda: raw(paths, batch, 2),
            "TensorFlow, parsed by record": lambda: with_tensorflow(paths, batch, frames, False),
            "TensorFlow, parsed by batch": lambda: with_tensorflow(paths, batch, frames, True),
        }
        for readers in arguments.readers:
            things[f"trainer, readers={readers}"] = ours(manifest, batch, frames, readers)
        timed = time_in_turn(things, arguments.rounds)
    reference = timed["raw, one stream"].median
    videos = arguments.shards * arguments.videos
    print(f"{'':30}  videos/s  spread   × raw")
    for name, one in timed.items():
        ratio = reference / one.median
        print(f"{name:30} {videos / one.median:9.0f} {one.spread:7.1%} {ratio:7.2f}")


if __name__ == "__main__":
    main()
