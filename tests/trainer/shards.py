"""Shards of a few small videos, and ways to spoil them."""

from pathlib import Path

import numpy as np

from tests.conftest import frame_video, mean_video
from trainer import records, tfrecord
from trainer.manifest import Shard

NUM_CLASSES = 12


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
