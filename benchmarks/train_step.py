"""The training step of the whole NeXtVLAD network, without input: every form, length and precision.

    python -m benchmarks.train_step                  # the whole table, about ten minutes on 2 cores
    python -m benchmarks.train_step --frames 300 --clusters 128

Loss, gradients, clipping and Adam of the author's network (8 groups, 2,048 hidden units, 3,862
classes) on one batch of random codes. All rows of a table are measured in turn in one process, so
that their ratios hold on a machine whose speed drifts; the spread is half of the range.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import POLICIES, machine, time_in_turn
from trainer import record_format
from trainer.config import ModelConfig, TrainingConfig
from trainer.layers import NeXtVLAD
from trainer.layers.nextvlad import FORMS, Form
from trainer.losses import make_loss
from trainer.models import build_model
from trainer.optimizer import make_optimizer
from trainer.train_step import LOSS, TrainStep


def random_batch(batch: int, frames: int, classes: int) -> tuple[dict[str, Any], Any]:
    """Inputs of a frame-level model, all frames valid, and three labels a video."""
    rng = np.random.default_rng(0)
    labels = np.zeros((batch, classes), np.float32)
    np.put_along_axis(labels, rng.integers(0, classes, (batch, 3)), 1, axis=1)
    sizes = {"rgb": record_format.RGB_SIZE, "audio": record_format.AUDIO_SIZE}
    features = {
        name: tf.constant(rng.integers(0, 256, (batch, frames, size), dtype=np.uint8))
        for name, size in sizes.items()
    }
    features["num_frames"] = tf.fill([batch], frames)
    return features, tf.constant(labels)


def steps_of(policy: str, clusters: int, batch: int, frames: int) -> dict[str, Callable[[], Any]]:
    """One step for each form, of a network whose weights they share."""
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    classes = record_format.NUM_CLASSES
    model = build_model(ModelConfig(cluster_size=clusters), classes, record_format.FRAME, frames)
    keras.config.set_dtype_policy("float32")
    optimizer = make_optimizer(TrainingConfig(), model, 1000)
    features, labels = random_batch(batch, frames, classes)

    def step_of(form: Form) -> Callable[[], Any]:
        for layer in model.layers:
            if isinstance(layer, NeXtVLAD):
                layer.form = form
        training = TrainingConfig()
        step = TrainStep(model, optimizer, make_loss(training), training)
        arguments = (features, labels, None, tf.zeros(2))
        step(*arguments)  # traces the form that is set now
        return lambda: float(step(*arguments)[LOSS])

    return {form: step_of(form) for form in (*FORMS[1:], FORMS[0])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--frames", type=int, nargs="+", default=[5, 60, 300])
    parser.add_argument("--clusters", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(f"{machine()}; TensorFlow {tf.__version__}, batch {arguments.batch}")
    for frames in arguments.frames:
        for clusters in arguments.clusters:
            steps = {
                (precision, form): step
                for precision, policy in POLICIES.items()
                for form, step in steps_of(policy, clusters, arguments.batch, frames).items()
            }
            names = {f"{precision} {form}": step for (precision, form), step in steps.items()}
            timed = time_in_turn(names, arguments.rounds)
            reference = timed["float32 direct"].median
            print(f"\nT={frames} K={clusters}")
            print(f"{'':18}  videos/s  spread  × direct float32  behind best")
            for precision, form in steps:
                one = timed[f"{precision} {form}"]
                best = min(timed[f"{precision} {other}"].median for other in FORMS)
                print(
                    f"{precision:9} {form:8} {arguments.batch / one.median:9.1f} {one.spread:7.1%}"
                    f" {reference / one.median:17.2f} {one.median / best - 1:12.1%}",
                    flush=True,
                )
            del steps, names
            keras.backend.clear_session()
            gc.collect()


if __name__ == "__main__":
    main()
