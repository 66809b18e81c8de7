"""Shards of random records, as large as wanted, for what depends on their size alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trainer import records
from trainer.manifest import Manifest, Shard

_DEVIATION = 0.5
"""Of the features, about that of YouTube-8M's."""


def synthetic_manifest(
    folder: Path, shards: int, videos: int, frames: int, num_classes: int = records.NUM_CLASSES
) -> Manifest:
    """A train split of random records.

    Args:
        folder: to write the shards into.
        shards: files.
        videos: records of each.
        frames: of each record; 0: video level.
        num_classes: C; each record has three labels.
    """
    rng = np.random.default_rng(0)

    def payloads(shard: int) -> Iterator[bytes]:
        for video in range(videos):
            if frames:
                values = rng.normal(0, _DEVIATION, (frames, records.FEATURE_SIZE))
                codes = records.quantise(values)
            else:
                values = rng.normal(0, _DEVIATION, records.FEATURE_SIZE)
                codes = np.clip(values, -1.9, 2).astype(np.float32)
            yield records.encode(
                records.VideoRecord(
                    f"{shard:x}-{video}",
                    rng.choice(num_classes, 3, replace=False).astype(np.int64),
                    codes[..., : records.RGB_SIZE],
                    codes[..., records.RGB_SIZE :],
                )
            )

    found = []
    for shard in range(shards):
        path = folder / f"train{shard:04}.tfrecord"
        count = records.write_records(path, payloads(shard))
        found.append(Shard("train", str(path), path.stat().st_size, "", count))
    level = records.FRAME if frames else records.VIDEO
    return Manifest("synthetic", level, num_classes, tuple(found))
