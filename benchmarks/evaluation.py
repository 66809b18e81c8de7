"""Metrics of 100,000 videos × 3,862 classes beside NumPy's top 20 of the same array; the bootstrap.

`python -m benchmarks.evaluation`: takes 2 GB of memory; then the peak of a process that has the
metrics of all 1.1 million videos of the validate partition.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import machine, time_in_turn
from trainer.metrics import MetricsAccumulator, evaluate
from trainer.metrics.bootstrap import PairedBootstrap, Predictions

_CLASSES = 3862
_LABELS = 3
_VALIDATE = 1_112_356

_PEAK = """
import re
from pathlib import Path
from benchmarks.evaluation import filled
print(filled({videos}).result().gap)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def scored(videos: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Probabilities as a model gives them, most near 0, and three labels a video."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((videos, _CLASSES), bool)
    for _ in range(_LABELS):
        labels[np.arange(videos), rng.integers(0, _CLASSES, videos)] = True
    scores = rng.random((videos, _CLASSES), np.float32)
    scores **= 30
    scores[labels] **= 0.05
    return scores, labels


def filled(videos: int) -> MetricsAccumulator:
    """Metrics of so many videos, made in small batches."""
    metrics = MetricsAccumulator(_CLASSES)
    batch = 1024
    scores, labels = scored(batch, 0)
    rng = np.random.default_rng(1)
    for start in range(0, videos, batch):
        count = min(batch, videos - start)
        # Other scores each time, or all of them would tie.
        metrics.add(scores[:count] * np.float32(rng.uniform(0.9, 1)), labels[:count])
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--all-videos", type=int, default=_VALIDATE)
    arguments = parser.parse_args()
    print(machine())
    scores, labels = scored(arguments.videos, 0)
    timed = time_in_turn(
        {
            "numpy.argpartition, top 20": lambda: np.argpartition(scores, -20, axis=1)[:, -20:],
            "all metrics": lambda: evaluate(scores, labels),
        },
        arguments.rounds,
        warm_up=1,
    )
    base = timed["numpy.argpartition, top 20"].median
    print(f"\n{arguments.videos:,} videos × {_CLASSES:,} classes")
    for name, one in timed.items():
        print(f"{name:28} {one.median:7.2f} s  spread {one.spread:.1%}  {one.median / base:.2f} ×")
    models = []
    for seed in (0, 1):
        metrics = MetricsAccumulator(_CLASSES)
        metrics.add(scores if not seed else scores[:, ::-1], labels)
        models.append(Predictions.of(metrics))
    timed = time_in_turn(
        {"two models": lambda: PairedBootstrap(models, arguments.resamples)}, 3, warm_up=0
    )
    one = timed["two models"]
    print(f"\n{arguments.resamples:,} paired resamples of two models: {one.median:.1f} s  "
          f"spread {one.spread:.1%}")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _PEAK.format(videos=arguments.all_videos)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    peak = int(done.stdout.splitlines()[-1]) / 1e6
    print(f"metrics of {arguments.all_videos:,} videos: {peak:.2f} GB at most")


if __name__ == "__main__":
    main()
