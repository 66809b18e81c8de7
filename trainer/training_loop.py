"""One model's training: steps, progress, and checkpoints that another process goes on from."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.config import Config
from trainer.errors import InputError
from trainer.evaluation import score_shards
from trainer.input_pipeline import located, training_batches
from trainer.losses import make_loss
from trainer.manifest import Manifest, Shard
from trainer.optimizer import make_optimizer
from trainer.progress import Progress, say
from trainer.train_step import make_train_step


@dataclasses.dataclass(frozen=True)
class Trained:
    """What one training did; its speed counts input and all, but no validation."""

    parameters: int
    examples_per_second: float
    history: list[dict[str, float | None]]


class TrainingLoop:
    """Trains a model for `training.epochs` epochs.

    Args:
        config: `data`, `training` and the batch size of `evaluation` are used.
        manifest: of the data.
        model: new; its weights are trained in place.
        shards: to train on.
        holdout: scored after each epoch, never trained on; may be empty.
        folder: of the checkpoints; where it has some, the training goes on at the newest.
    """

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        model: keras.Model,
        shards: tuple[Shard, ...],
        holdout: tuple[Shard, ...],
        folder: Path,
    ) -> None:
        self.config, self.manifest, self.model = config, manifest, model
        self.shards, self.holdout, self.folder = shards, holdout, folder
        training = config.training
        self.epoch_steps = sum(shard.records for shard in shards) // training.batch_size
        self.optimizer = make_optimizer(config.training, model, self.epoch_steps * training.epochs)
        # Where the training stands; part of the checkpoint.
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.step = tf.Variable(0, dtype=tf.int64)
        self.loss_sum = tf.Variable(0.0, dtype=tf.float64)
        self.seconds = tf.Variable(0.0, dtype=tf.float64)
        self.history = tf.Variable("[]", dtype=tf.string)
        # Keras does not show TensorFlow the state of its random generators (dropout's).
        weights = {id(variable) for variable in model.weights}
        random_state = [v.value for v in model.variables if id(v) not in weights]
        checkpoint = tf.train.Checkpoint(
            model=model,
            random_state=random_state,
            optimizer=self.optimizer,
            epoch=self.epoch,
            step=self.step,
            loss_sum=self.loss_sum,
            seconds=self.seconds,
            history=self.history,
        )
        self.manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=2)
        self.train_step = make_train_step(model, self.optimizer, make_loss(training))

    def run(self) -> Trained:
        """Train to the end.

        Raises:
            InputError: a bad record, a loss that is no number, checkpoints that can not be read or
                written.
        """
        training = self.config.training
        if self._restore():
            done = int(self.epoch) == training.epochs
            place = f"goes on at epoch {int(self.epoch) + 1}, step {int(self.step)}"
            say("train", f"{self.model.name}: {'was trained already' if done else place}")
        writer = tf.summary.create_file_writer(str(self.folder / "logs"))
        progress = Progress(
            "train",
            training.epochs * self.epoch_steps * training.batch_size,
            "videos",
            done=(int(self.epoch) * self.epoch_steps + int(self.step)) * training.batch_size,
        )
        with writer.as_default():
            while int(self.epoch) < training.epochs:
                self._run_epoch(progress)
        rate = progress.total / max(float(self.seconds), 1e-9)
        return Trained(self.model.count_params(), rate, self._rows())

    def _run_epoch(self, progress: Progress) -> None:
        training, epoch = self.config.training, int(self.epoch)
        batches = training_batches(
            self.shards,
            self.manifest.level,
            self.manifest.num_classes,
            self.config.data.max_frames,
            training.batch_size,
            self.config.data.shuffle_buffer,
            training.seed,
            epoch,
        ).skip(int(self.step))
        saved = stamp = time.monotonic()
        for batch in located(batches, self.shards, self.manifest.level, self.manifest.num_classes):
            features, labels = self._mixed(batch, epoch) if training.mixup else batch
            loss = float(self.train_step(features, labels))
            if not np.isfinite(loss):
                raise InputError(
                    f"training.learning_rate is {training.learning_rate}: the loss of epoch "
                    f"{epoch + 1}, step {int(self.step) + 1} is {loss}; expected a smaller rate"
                )
            self.step.assign_add(1)
            self.loss_sum.assign_add(loss)
            progress.advance(
                training.batch_size,
                f"{self.model.name} epoch {epoch + 1}/{training.epochs}  loss {loss:.3f}",
            )
            now = time.monotonic()
            self.seconds.assign_add(now - stamp)
            stamp = now
            if now - saved > 60 * training.checkpoint_minutes:
                self._save()
                saved = now
        self._end_epoch(epoch)

    def _mixed(self, batch: tuple[dict[str, Any], Any], epoch: int) -> tuple[Any, Any]:
        """Mixup of a batch with itself in another order: seeded by the place in the training."""
        features, labels = batch
        rng = np.random.default_rng([self.config.training.seed, epoch, int(self.step)])
        alpha = self.config.training.mixup
        size = self.config.training.batch_size
        share = rng.beta(alpha, alpha, (size, 1)).astype(np.float32)
        share = np.maximum(share, 1 - share)
        other = rng.permutation(size)
        mixed = {k: share * v + (1 - share) * tf.gather(v, other) for k, v in features.items()}
        return mixed, share * labels + (1 - share) * tf.gather(labels, other)

    def _end_epoch(self, epoch: int) -> None:
        loss = float(self.loss_sum) / self.epoch_steps
        gap = None
        if self.holdout:
            gap = score_shards(
                self.model, self.manifest, self.holdout, self.config.data.max_frames,
                self.config.evaluation.batch_size,
            ).metrics.result().gap  # fmt: skip
        examples = (epoch + 1) * self.epoch_steps * self.config.training.batch_size
        row = {
            "epoch": epoch + 1,
            "examples": examples,
            "seconds": round(float(self.seconds), 3),
            "loss": loss,
            "holdout_gap": gap,
        }
        self.history.assign(json.dumps([*self._rows(), row]))
        tf.summary.scalar("loss", loss, step=epoch + 1)
        if gap is not None:
            tf.summary.scalar("holdout_gap", gap, step=epoch + 1)
        held = "" if gap is None else f", GAP on held-out shards {gap:.4f}"
        say("train", f"{self.model.name} epoch {epoch + 1}: mean loss {loss:.3f}{held}")
        self.epoch.assign_add(1)
        self.step.assign(0)
        self.loss_sum.assign(0.0)
        self._save()

    def _restore(self) -> bool:
        """Go back to the newest checkpoint that can be read; false if there is none at all.

        Raises:
            InputError: none of those that are there can be read.
        """
        found = self.manager.checkpoints[::-1]
        for path in found:
            try:
                self.manager.checkpoint.restore(path).assert_existing_objects_matched()
            except (tf.errors.OpError, IndexError, ValueError, AssertionError) as error:
                reason = str(error).splitlines()[0]
                say("train", f"warning: {path} can not be read, passed over: {reason}")
            else:
                return True
        if found:
            raise InputError(
                f"{self.folder}: none of its {len(found)} checkpoints can be read, expected one; "
                "remove the folder to start over"
            )
        return False

    def _save(self) -> None:
        """Write a checkpoint; the ones before stay until it is whole."""
        try:
            self.manager.save()
        except tf.errors.OpError as error:
            # Without TensorFlow's names of the operation around it.
            reason = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:\w+\]", "", str(error).splitlines()[0])
            raise InputError(
                f"{self.folder}: a checkpoint could not be written: {reason}"
            ) from error

    def _rows(self) -> list[dict[str, float | None]]:
        rows: list[dict[str, float | None]] = json.loads(self.history.numpy())
        return rows
