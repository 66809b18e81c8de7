"""Seconds from an interrupted place of an epoch to its next batch, over thousands of shards.

    python -m benchmarks.resume                   # about a minute, 1.2 GB on the disk

Makes shards of the public release's number, with few and short records each, and opens the input at
several places of an epoch as a training does that goes on there: without reading what it skips. The
system's cache of the files is dropped first where that is allowed (as root).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.synthetic import synthetic_manifest
from benchmarks.timing import machine
from trainer.config import DataConfig
from trainer.input_pipeline import TrainingInput

PLACES = (0.0, 0.25, 0.5, 0.75, 0.999)


def drop_caches() -> bool:
    """Whether the system forgot the files that it had in memory."""
    os.sync()
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=4000)
    parser.add_argument("--videos", type=int, default=50, help="of a shard")
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--batch", type=int, default=160)
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        manifest = synthetic_manifest(
            Path(folder), arguments.shards, arguments.videos, arguments.frames
        )
        size = sum(shard.bytes for shard in manifest.shards)
        videos = manifest.records("train")
        print(f"{arguments.shards:,} shards, {videos:,} records, {size / 1e9:.1f} GB")
        print("place    step    seconds to its batch")
        for place in PLACES:
            cold = drop_caches()
            start = time.perf_counter()
            given = TrainingInput(
                manifest.split("train"), manifest.level, manifest.num_classes,
                DataConfig(max_frames=arguments.frames), arguments.batch, 0,
            )  # fmt: skip
            step = int(place * given.epoch_steps)
            batches = given.batches(3, range(step, given.epoch_steps))
            next(batches)
            seconds = time.perf_counter() - start
            batches.close()
            print(f"{place:5.1%} {step:7,} {seconds:9.2f}{'' if cold else '  (files in memory)'}")


if __name__ == "__main__":
    main()
