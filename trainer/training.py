"""The training loop: checkpoints outside the run, resumed where they are found."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import records
from trainer.config import Config
from trainer.errors import InputError
from trainer.evaluation import score_shards
from trainer.files import atomic_directory, locked, write_json
from trainer.input_pipeline import located, training_batches
from trainer.losses import cross_entropy
from trainer.manifest import Manifest, Shard
from trainer.models import build_model, check_model
from trainer.optimizer import make_optimizer
from trainer.progress import Progress, say
from trainer.source_digest import trainer_digest

MODEL, BASELINE = "model.keras", "baseline.keras"
HISTORY_COLUMNS = ("epoch", "examples", "loss", "holdout_gap")


@dataclasses.dataclass(frozen=True)
class Trained:
    """What one training did; its speed counts input and all, but no validation."""

    parameters: int
    examples_per_second: float
    history: list[dict[str, float | None]]


def train(
    config: Config,
    manifest: Manifest,
    priors: NDArray[np.floating],
    checkpoint_root: str | os.PathLike[str],
    output: str | os.PathLike[str],
) -> dict[str, Any]:
    """Train the model, and the baseline if one is named, and write the trained model's folder.

    Args:
        config: all sections.
        manifest: of the data; its train split is read, less `data.holdout_shards`.
        priors: float [C], share of the training videos that have each class.
        checkpoint_root: folder that outlives the run; a training of the same configuration, data
            and code goes on where its last checkpoint was.
        output: folder to write: `model.keras`, `baseline.keras`, `config.json`, `history.csv`,
            `training.json`, TensorBoard `logs/`.

    Returns:
        The content of `training.json`.

    Raises:
        InputError: parameters that do not fit the data, or a bad record.
    """
    train_shards, holdout = _split_shards(config, manifest)
    examples = sum(shard.records for shard in train_shards)
    if examples < config.training.batch_size:
        raise InputError(
            f"training.batch_size is {config.training.batch_size}, expected at most the "
            f"{examples} records of the train split"
        )
    runs = {MODEL: config}
    if config.training.baseline:
        runs[BASELINE] = _baseline(config)
    for run in runs.values():
        check_model(run.model, manifest.level)
    if config.training.mixup and manifest.level != records.VIDEO:
        raise InputError(
            f"training.mixup is {config.training.mixup}, expected 0 for frame-level records"
        )
    digest = checkpoint_digest(config, manifest)
    folder = Path(checkpoint_root) / digest
    trained: dict[str, Trained] = {}
    waiting = f"waits for another training of the same configuration in {folder}"
    with locked(folder, lambda: say("train", waiting)), atomic_directory(output) as partial:
        for file, run in runs.items():
            name = Path(file).stem
            keras.utils.set_random_seed(run.training.seed)
            # Kernels that sum in an order of their own would make two runs of one seed differ.
            tf.config.experimental.enable_op_determinism()
            model = build_model(
                run.model,
                manifest.num_classes,
                manifest.level,
                run.data.max_frames,
                priors if run.model.prior_bias else None,
            )
            loop = _Loop(run, manifest, model, train_shards, holdout, folder / name)
            trained[name] = loop.run()
            model.save(partial / file)
            _write_history(partial / f"{name}_history.csv", trained[name].history)
            shutil.copytree(folder / name / "logs", partial / "logs" / name)
        result = {
            name: {
                "model": runs[f"{name}.keras"].model.name,
                "parameters": one.parameters,
                "examples_per_second": round(one.examples_per_second, 1),
                "history": one.history,
            }
            for name, one in trained.items()
        }
        write_json(partial / "training.json", result)
        write_json(partial / "config.json", _description(config, manifest))
    return result


def checkpoint_digest(config: Config, manifest: Manifest) -> str:
    """Digest of all that a checkpoint depends on: configuration, data, code and libraries."""
    facts = _description(config, manifest) | {
        "code": trainer_digest(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _description(config: Config, manifest: Manifest) -> dict[str, Any]:
    sections = config.as_dict()
    del sections["sample"], sections["evaluation"], sections["export"]
    del sections["training"]["checkpoint_minutes"]
    return sections | {
        "data_fingerprint": manifest.fingerprint,
        "level": manifest.level,
        "num_classes": manifest.num_classes,
    }


def _split_shards(
    config: Config, manifest: Manifest
) -> tuple[tuple[Shard, ...], tuple[Shard, ...]]:
    shards = manifest.split("train")
    held = config.data.holdout_shards
    if held >= len(shards):
        raise InputError(
            f"data.holdout_shards is {held}, expected fewer than the {len(shards)} train shards"
        )
    return shards[: len(shards) - held], shards[len(shards) - held :]


def _baseline(config: Config) -> Config:
    rate = config.training.baseline_learning_rate or config.training.learning_rate
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, name=config.training.baseline),
        training=dataclasses.replace(config.training, learning_rate=rate),
    )


class _Loop:
    """One model's training."""

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
        self.train_step = tf.function(self._train_step)

    def _train_step(self, features: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = cross_entropy(labels, self.model(features, training=True))
            total = tf.add_n([loss, *self.model.losses])
        variables = self.model.trainable_variables
        self.optimizer.apply(tape.gradient(total, variables), variables)
        return loss

    def run(self) -> Trained:
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
        row = {"epoch": epoch + 1, "examples": examples, "loss": loss, "holdout_gap": gap}
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


def _write_history(path: Path, rows: list[dict[str, float | None]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def class_priors(manifest: Manifest, arrays: dict[str, NDArray[Any]]) -> NDArray[np.floating]:
    """float64 [C]: share of the training videos that have each class, from the statistics."""
    videos = max(1, int(arrays["train/frames"].sum()))
    priors: NDArray[np.floating] = arrays["train/labels"][: manifest.num_classes] / videos
    return priors
