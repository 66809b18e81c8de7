"""Training a model and its baseline: from a manifest to the folder of a trained model."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import records
from trainer.config import Config
from trainer.errors import InputError
from trainer.files import atomic_directory, locked, write_json
from trainer.manifest import Manifest, Shard
from trainer.models import build_model, check_model
from trainer.progress import say
from trainer.source_digest import trainer_digest
from trainer.training_loop import Trained, TrainingLoop

MODEL, BASELINE = "model.keras", "baseline.keras"
HISTORY_COLUMNS = ("epoch", "examples", "seconds", "loss", "holdout_gap")
"""Seconds of training so far, input included, validation not."""


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
    held = sum(shard.records for shard in holdout)
    say(
        "train",
        f"{examples:,} videos to train on, {held:,} held out; "
        f"{examples // config.training.batch_size:,} full batches of {config.training.batch_size} "
        "an epoch",
    )
    runs = {MODEL: config}
    if config.training.baseline:
        runs[BASELINE] = _baseline(config)
    verticals = manifest.read_vocabulary().vertical_indices()
    for run in runs.values():
        check_model(run.model, manifest.level, verticals)
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
                verticals,
            )
            loop = TrainingLoop(run, manifest, model, train_shards, holdout, folder / name)
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
