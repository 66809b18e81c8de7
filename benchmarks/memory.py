"""Peak memory of a training step in each form of the NeXtVLAD layer, each in a process of its own.

    python -m benchmarks.memory

The peak is the resident memory that the step adds to that of the process with its model, weights
and optimiser in place, after three steps.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from benchmarks.timing import POLICIES
from benchmarks.train_step import random_batch
from trainer import record_format
from trainer.config import ModelConfig, TrainingConfig
from trainer.layers.nextvlad_forms import FORMS
from trainer.losses import make_loss
from trainer.models import build_model
from trainer.optimizer import make_optimizer
from trainer.train_step import LOSS, TrainStep


def measure(policy: str, form: str, batch: int, frames: int, clusters: int) -> None:
    """Print resident bytes before the first step, and at the peak of three."""
    keras.config.set_dtype_policy(policy)
    config = ModelConfig(cluster_size=clusters, form=form)
    model = build_model(config, record_format.NUM_CLASSES, record_format.FRAME, frames)
    keras.config.set_dtype_policy("float32")
    optimizer = make_optimizer(TrainingConfig(), model, 1000)
    features, labels = random_batch(batch, frames, record_format.NUM_CLASSES)
    step = TrainStep(model, optimizer, make_loss(TrainingConfig()), TrainingConfig())
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    for _ in range(3):
        float(step(features, labels, None, tf.zeros(2))[LOSS])
    print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--clusters", type=int, default=128)
    parser.add_argument("--one", nargs=2, metavar=("POLICY", "FORM"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = (arguments.batch, arguments.frames, arguments.clusters)
    if arguments.one:
        policy, form = arguments.one
        measure(policy, form, *sizes)
        return
    print("Peak memory of a training step at batch {}, T={}, K={}".format(*sizes))
    print(f"{'':18} {'step adds':>12} {'process':>12}   × direct float32")
    reference = 0
    for precision, policy in POLICIES.items():
        for form in FORMS:
            flags = [f"--{name}={value}" for name, value in
                     zip(("batch", "frames", "clusters"), sizes, strict=True)]  # fmt: skip
            command = [sys.executable, "-m", "benchmarks.memory", *flags, "--one", policy, form]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            before, peak = (int(value) for value in output.split())
            reference = reference or peak - before
            print(
                f"{precision:9} {form:8} {(peak - before) / 1e9:9.2f} GB {peak / 1e9:9.2f} GB"
                f" {(peak - before) / reference:9.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
