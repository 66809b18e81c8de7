"""What a person watches of a training: TensorBoard, a profile, hyperparameter tuning."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer.batches import Batch, as_tensor
from trainer.errors import InputError
from trainer.files import atomic_file, local_path
from trainer.layers import NeXtVLAD
from trainer.progress import say

LOGS = "logs"
TRIAL, METRIC_FILE = "CLOUD_ML_TRIAL_ID", "CLOUD_ML_HP_METRIC_FILE"
"""Environment variables of Vertex AI's hyperparameter tuning."""
TENSORBOARD = "AIP_TENSORBOARD_LOG_DIR"
"""Environment variable of a custom job with a TensorBoard instance: where it looks for events."""
DEFAULT_METRIC_FILE = "/tmp/hypertune/output.metrics"


class TrainingLog:
    """Writes scalars and histograms for TensorBoard, and reports to hyperparameter tuning.

    Args:
        folder: of the training; events go into `logs/` in it.
        profile_steps: `training.profile_steps`.
        enabled: false on all workers but one: nothing is written.
    """

    def __init__(self, folder: Path, profile_steps: str = "", enabled: bool = True) -> None:
        self.folder, self.enabled = folder / LOGS, enabled
        self._writer = (
            tf.summary.create_file_writer(str(self.folder))
            if enabled
            else tf.summary.create_noop_writer()
        )
        self._profile = profiled(profile_steps) if enabled else None
        self._profiling = False

    @contextlib.contextmanager
    def _kept_going(self) -> Iterator[None]:
        """A log that can not be written ends itself with a warning, and no training."""
        try:
            yield
        except (tf.errors.OpError, OSError, InputError) as error:
            if self.enabled:
                reason = str(error).splitlines()[0]
                say("train", f"warning: {self.folder}: no more is logged, it can not be: {reason}")
            self.enabled = False
            self._writer = tf.summary.create_noop_writer()

    def scalars(self, step: int, **values: float | None) -> None:
        """One point of each curve; None is left out."""
        with self._kept_going(), self._writer.as_default(step):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(name, value)

    def validated(self, step: int, loss: float, gap: float | None) -> None:
        """The point that a tuning trial is judged by, and all events so far to the disk."""
        self.scalars(step, epoch_loss=loss, holdout_gap=gap)
        with self._kept_going():
            self._writer.flush()
            self._show()
        if self.enabled and os.environ.get(TRIAL):
            report_trial(step, {"loss": loss} | ({} if gap is None else {"holdout_gap": gap}))

    def histograms(self, step: int, model: keras.Model, batch: Batch | None) -> None:
        """Attention of the groups and use of the clusters of each NeXtVLAD layer on a batch.

        `attention`: α of every valid frame and group; `cluster_usage`: mean assignment of each
        cluster over valid frames and groups, times K, so that 1 is an even share and 0 a cluster
        that nothing goes to.
        """
        layers = [layer for layer in model.layers if isinstance(layer, NeXtVLAD)]
        if not self.enabled or batch is None or not layers:
            return
        inputs = keras.Model(model.inputs, [keras.tree.flatten(one.input)[0] for one in layers])
        features = {name: as_tensor(value[:_MOST]) for name, value in batch.features.items()}
        found = inputs(features, training=False)
        valid = np.arange(batch.features["rgb"].shape[1])
        mask = valid < batch.features["num_frames"][:_MOST, None]
        with self._kept_going(), self._writer.as_default(step):
            for layer, values in zip(layers, keras.tree.flatten(found), strict=True):
                attention, assignment = layer.soft_assignment(values)
                tf.summary.histogram(f"{layer.name}/attention", attention.numpy()[mask])
                usage = assignment.numpy()[mask].mean(axis=(0, 1)) * layer.cluster_size
                tf.summary.histogram(f"{layer.name}/cluster_usage", usage)

    def at_step(self, step: int) -> None:
        """To be called before each step: starts and ends the profile."""
        if self._profile and step == self._profile[0]:
            with self._kept_going():
                tf.profiler.experimental.start(str(self.folder))
                self._profiling = True
        elif self._profiling and self._profile and step > self._profile[1]:
            self._stop_profile()

    def close(self) -> None:
        self._stop_profile()
        with self._kept_going():
            self._writer.close()
            self._show()

    def _show(self) -> None:
        """Copy the events to where a TensorBoard instance of Vertex AI takes them from.

        https://cloud.google.com/vertex-ai/docs/experiments/tensorboard-training
        """
        place = os.environ.get(TENSORBOARD, "")
        if place and self.enabled:
            # By the training's name: a baseline of the same job is a curve of its own.
            shown = local_path(place) / self.folder.parent.name
            shutil.copytree(self.folder, shown, dirs_exist_ok=True)

    def _stop_profile(self) -> None:
        if self._profiling:
            self._profiling = False
            with self._kept_going():
                tf.profiler.experimental.stop()


_MOST = 64
"""Videos that histograms are made of."""


def profiled(text: str) -> tuple[int, int] | None:
    """First and last step of `training.profile_steps`.

    Raises:
        InputError: it is not two numbers in order.
    """
    if not text:
        return None
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise InputError(
            f"training.profile_steps is {text!r}, expected the first and the last step, as 100-110"
        )
    return int(first), int(last)


def report_trial(step: int, metrics: Mapping[str, float]) -> None:
    """Add metrics to the file that Vertex AI's agent reads a tuning trial's result from.

    One JSON object a line, as the package cloudml-hypertune writes it
    (https://github.com/GoogleCloudPlatform/cloudml-hypertune), which is published as source only.
    """
    path = Path(os.environ.get(METRIC_FILE, DEFAULT_METRIC_FILE))
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines()[-_KEPT:] if path.is_file() else []
    for tag, value in metrics.items():
        entry = {
            "checkpoint_path": "",
            "global_step": str(step),
            "timestamp": time.time(),
            "trial": os.environ.get(TRIAL, "0"),
            tag: str(float(value)),
        }
        lines.append(json.dumps(entry, sort_keys=True))
    with atomic_file(path) as partial:
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


_KEPT = 100
"""Lines of the metric file: the agent has read the older ones."""
