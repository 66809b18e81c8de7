"""The whole training loop beside the bare step: input from TFRecords, checkpoints, waiting.

    python -m benchmarks.training_loop            # about six minutes on 2 cores, 3 GB of memory

The author's network (8 groups, 128 clusters, 2,048 hidden units, 3,862 classes) is trained on
300-frame records. Rounds of the loop and rounds of the bare step, which has its batch in memory
already, take turns in one process; so do rounds with a checkpoint being written.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from benchmarks.synthetic import synthetic_manifest
from benchmarks.timing import machine
from trainer.config import Config
from trainer.distribution import connected
from trainer.termination import Termination
from trainer.train_step import LOSS
from trainer.training import make_loop
from trainer.training_log import TrainingLog
from trainer.training_loop import TrainingLoop

AUTHOR = 13.0
"""Videos/s of the author's TensorFlow 1.15 trainer, whole loop, on a quiet 2-core machine."""


class Rounds:
    """A loop that can be run a few steps at a time, and its bare step."""

    def __init__(self, loop: TrainingLoop, steps: int) -> None:
        self.loop, self.steps = loop, steps
        self.batch_size = loop.config.training.batch_size
        loop._log = TrainingLog(loop.folder)
        loop._progress = type("Quiet", (), {"advance": lambda *_: None})()
        batch = next(loop.input.batches(0, range(1)))
        self._arguments = (*loop.feed.arguments(batch, 0, 0), tf.zeros(2))

    def bare(self) -> float:
        """Seconds of the round's steps on a batch that is there."""
        start = time.perf_counter()
        for _ in range(self.steps):
            float(self.loop.train_step(*self._arguments)[LOSS])
        return time.perf_counter() - start

    def whole(self) -> tuple[float, float]:
        """Seconds of as many steps of the loop, and how many of these it waited for input."""
        position = self.loop.position
        if position.step + self.steps > self.loop.epoch_steps:
            position.epoch, position.step = position.epoch + 1, 0
        self.loop._validated_after = [position.step + self.steps]
        waited, start = position.waited, time.perf_counter()
        self.loop._train_until_validation(Termination())
        return time.perf_counter() - start, position.waited - waited


def measure(precision: str, manifest: Any, folder: Path, arguments: argparse.Namespace) -> None:
    config = Config().updated(
        {
            "training": {"precision": precision, "batch_size": arguments.batch, "epochs": 1000},
            "model": {"cluster_size": arguments.clusters},
        }
    )
    with connected(config.training) as distribution:
        loop = make_loop(
            config, manifest, None, None, (manifest.split("train"), ()), folder / precision, {},
            distribution,
        )  # fmt: skip
        rounds = Rounds(loop, arguments.steps)
        rounds.bare(), rounds.whole()
        bare, whole, waited, saving, blocked, written = [], [], [], [], [], []
        for _ in range(arguments.rounds):
            bare.append(rounds.bare())
            seconds, wait = rounds.whole()
            whole.append(seconds)
            waited.append(wait / seconds)
            start = time.perf_counter()
            loop._save()
            blocked.append(time.perf_counter() - start)
            saving.append(rounds.whole()[0])
            start_waiting = time.perf_counter()
            loop.checkpoints.wait()
            written.append(time.perf_counter() - start_waiting)
    median = statistics.median
    videos = arguments.batch * arguments.steps
    overhead = median([w / b for w, b in zip(whole, bare, strict=True)]) - 1
    slower = median([s - w for s, w in zip(saving, whole, strict=True)])
    cost = median(blocked) + max(0.0, slower) + median(written)
    minutes = config.training.checkpoint_minutes
    size = sum(path.stat().st_size for path in loop.folder.glob("*.npz")) / 1e9
    rate = videos / median(whole)
    print(
        f"{precision:9} {videos / median(bare):10.1f} {rate:10.1f} {overhead:9.1%}"
        f" {median(waited):14.2%} {rate / AUTHOR:12.2f}"
        f"   {size / min(2, len(blocked)):.2f} GB: {median(blocked):.2f} s blocked, "
        f"{slower:+.2f} s in the round beside it, {median(written):.2f} s after it: "
        f"{cost / (60 * minutes):.2%} of {minutes:g} minutes",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--clusters", type=int, default=128)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--steps", type=int, default=8, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    arguments = parser.parse_args()
    print(f"{machine()}; TensorFlow {tf.__version__}, batch {arguments.batch}")
    print(
        f"{'':9} {'bare step':>10} {'loop':>10} {'overhead':>9} {'waits for input':>14} "
        f"{'× author':>11}   a checkpoint"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        manifest = synthetic_manifest(folder, arguments.shards, 200, arguments.frames)
        for precision in arguments.precisions:
            measure(precision, manifest, folder, arguments)
            keras.backend.clear_session()


if __name__ == "__main__":
    main()
