"""Shards of a few small videos, ways to spoil them, and inputs that read them."""

import dataclasses
from pathlib import Path

import numpy as np

from tests.conftest import frame_video, mean_video
from trainer import records, tfrecord
from trainer.config import DataConfig
from trainer.input_pipeline import TrainingInput, evaluation_batches
from trainer.manifest import Shard

NUM_CLASSES = 12
FORMS = {
    "all": {},
    "frames": {"train_frames": 3},
    "blocks": {"train_frames": 2, "read_block": 3, "shuffle_shards": 1},
    "segments": {"segments": True, "segments_per_video": 2},
}
"""Ways to read shards in a training."""


def write_shard(path, videos):
    """A shard of videos or payloads."""
    count = tfrecord.write_records(
        path, [one if isinstance(one, bytes) else records.encode(one) for one in videos]
    )
    return Shard("train", str(path), Path(path).stat().st_size, "", count)


def frame_shards(folder, rng, counts=(4, 4, 4), max_frames=9):
    """Shards `a`, `b`, … of frame-level videos of 1 to `max_frames` frames; ids `a0`, `a1`, …"""
    return [
        write_shard(
            folder / f"{name}.tfrecord",
            [
                frame_video(
                    rng,
                    int(rng.integers(1, max_frames + 1)),
                    rng.choice(NUM_CLASSES, 3, replace=False),
                    f"{name}{i}",
                )
                for i in range(count)
            ],
        )
        for name, count in zip("abcdefghij", counts, strict=False)
    ]


def mean_shards(folder, rng, counts=(4, 4)):
    """The same of video-level records."""
    return [
        write_shard(
            folder / f"{name}.tfrecord",
            [
                mean_video(rng, rng.choice(NUM_CLASSES, 2, replace=False), f"{name}{i}")
                for i in range(count)
            ],
        )
        for name, count in zip("abcdefghij", counts, strict=False)
    ]


def rated_shards(folder, rng):
    """Two shards of five videos of 4 to 29 frames with up to six rated segments each."""
    found = []
    for name in "de":
        videos = []
        for i in range(5):
            video = frame_video(rng, int(rng.integers(4, 30)), [1, 3], f"{name}{i}")
            pairs = int(rng.integers(0, 7))
            rated = records.Segments(
                5 * rng.integers(0, 5, pairs),
                rng.integers(0, NUM_CLASSES, pairs),
                rng.integers(0, 2, pairs).astype(np.float32),
            )
            videos.append(dataclasses.replace(video, segments=rated if pairs else None))
        found.append(write_shard(folder / f"{name}.tfrecord", videos))
    return found


def videos_of(shards):
    """Every record by the strict reader."""
    return [
        records.parse_message(record)
        for shard in shards
        for record in tfrecord.read_records(shard.path)
    ]


def places_of(shards):
    """int64 [n,2] of every record."""
    every = [(s, r) for s, shard in enumerate(shards) for r in range(shard.records)]
    return np.array(every, np.int64).reshape(-1, 2)


def spoil(shard, *numbers):
    """Change a byte of the payload of some records."""
    offsets = tfrecord.index_file(shard.path).offsets
    content = bytearray(shard.path.read_bytes())
    for number in numbers:
        content[offsets[number] + 20] ^= 0xFF
    shard.path.write_bytes(content)


def cut_off(shard, number):
    """End a shard in the middle of a record."""
    offsets = tfrecord.index_file(shard.path).offsets
    content = shard.path.read_bytes()
    shard.path.write_bytes(content[: (offsets[number] + offsets[number + 1]) // 2])


def replace(shard, number, payload):
    """Another payload in a record's place, intact."""
    payloads = [record.payload for record in tfrecord.read_records(shard.path)]
    payloads[number] = payload
    tfrecord.write_records(shard.path, payloads)


def data_of(**changes):
    """Short videos, read by two threads."""
    return DataConfig(**{"max_frames": 6, "shuffle_shards": 2, "readers": 2} | changes)


def training(shards, batch_size=5, seed=0, worker=0, workers=1, level=records.FRAME, **changes):
    """A training's input; `changes` are of `DataConfig`."""
    return TrainingInput(
        shards, level, NUM_CLASSES, data_of(**changes), batch_size, seed, worker, workers
    )


def evaluation(shards, batch_size=5, worker=0, workers=1, level=records.FRAME, **changes):
    """An evaluation's batches."""
    return evaluation_batches(
        shards, level, NUM_CLASSES, data_of(**changes), batch_size, worker, workers
    )


def contents(batch):
    """All that a batch holds, to the bit."""
    arrays = {**batch.features, "labels": batch.labels, "places": batch.places}
    if batch.weights is not None:
        arrays["weights"] = batch.weights
    found = {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}
    return found, tuple(batch.video_ids)


def run(given_input, *epochs):
    """Contents of all batches of some epochs."""
    return [
        contents(batch)
        for epoch in epochs
        for batch in given_input.batches(epoch, range(given_input.epoch_steps))
    ]
