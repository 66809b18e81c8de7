"""Training a model and its baseline: from a manifest to the folder of a trained model."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import records
from trainer.checkpoints import first_difference
from trainer.config import Config
from trainer.distribution import Distribution, connected
from trainer.errors import InputError
from trainer.feature_networks.feature_extractor import extractor_facts, keep_extractor
from trainer.files import atomic_directory, locked, read_json, write_json
from trainer.input_pipeline import TrainingInput
from trainer.manifest import Manifest, Shard
from trainer.models import build_model, check_model
from trainer.progress import say
from trainer.source_digest import trainer_digest
from trainer.termination import noticed
from trainer.training_checks import check_replicas, check_training
from trainer.training_log import LOGS
from trainer.training_loop import Trained, TrainingLoop
from trainer.validation import Validator
from trainer.warm_start import start_warm, weights_digest

MODEL, BASELINE = "model.keras", "baseline.keras"
HISTORY_COLUMNS = ("epoch", "step", "examples", "learning_rate", "loss", "holdout_gap")
TIMING_COLUMNS = ("step", "training_seconds", "input_wait_seconds", "validation_seconds")
DESCRIPTION = "description.json"
"""What the checkpoints of a folder are of."""

WITHOUT_EFFECT = {
    "data": ("readers", "prefetch", "corrupt_records", "num_classes"),
    "training": (
        "checkpoint_minutes", "keep_checkpoints", "deliver", "peer_minutes", "profile_steps",
        "strategy", "warm_start",
    ),
}  # fmt: skip
"""Parameters that change nothing in what is learned (of a warm start the weights count)."""


def train(
    config: Config,
    manifest: Manifest,
    priors: NDArray[np.floating],
    checkpoint_root: str | os.PathLike[str],
    output: str | os.PathLike[str],
) -> dict[str, Any]:
    """Train the model, and the baseline if one is named, and write the trained model's folder.

    Of several workers (TF_CONFIG) each calls this; the first one writes.

    Args:
        config: all sections.
        manifest: of the data; its train split is read, less `data.holdout_shards`.
        priors: float [C], share of the training videos that have each class.
        checkpoint_root: folder that outlives the run, and that all workers share; a training of
            the same configuration, data and code goes on where its last checkpoint was.
        output: folder to write: `model.keras`, `baseline.keras`, `config.json`, `history.csv`,
            `timings.csv`, `training.json`, TensorBoard `logs/`.

    Returns:
        The content of `training.json`.

    Raises:
        InputError: parameters that do not fit the data, or a bad record.
        SystemExit: with code 143, on SIGTERM, when a checkpoint was saved.
    """
    train_shards, holdout = _split_shards(config, manifest)
    runs = {MODEL: config}
    if config.training.baseline:
        runs[BASELINE] = _baseline(config)
    verticals = manifest.read_vocabulary().vertical_indices()
    check_training(config, manifest, sum(shard.records for shard in train_shards))
    for run in runs.values():
        check_model(run.model, manifest.level, verticals)
    with connected(config.training) as distribution:
        check_replicas(config, distribution.replicas)
        facts = checkpoint_facts(config, manifest)
        folder = Path(checkpoint_root) / _digest(facts)
        trained: dict[str, Trained] = {}
        with _workplace(folder, facts, output, distribution) as partial, noticed() as termination:
            # No worker looks for checkpoints before the first one holds their folder.
            distribution.gather(np.zeros(1, np.int64))
            _say_size(config, train_shards, holdout, distribution)
            for file, run in runs.items():
                name = Path(file).stem
                loop = make_loop(
                    run, manifest, priors if run.model.prior_bias else None, verticals,
                    (train_shards, holdout), folder / name, facts | {"run": name}, distribution,
                )  # fmt: skip
                trained[name] = loop.run(termination)
                if partial:
                    _write_trained(partial, name, loop, trained[name])
            result = {
                name: {
                    "model": runs[f"{name}.keras"].model.name,
                    "parameters": one.parameters,
                    "examples_per_second": round(one.examples_per_second, 1),
                    "input_wait": round(one.input_wait, 4),
                    "history": one.history,
                    "timings": one.timings,
                }
                for name, one in trained.items()
            }
            if partial:
                write_json(partial / "training.json", result)
                write_json(partial / "config.json", _description(config, manifest))
                keep_extractor(manifest, partial)
    return result


def make_loop(
    config: Config,
    manifest: Manifest,
    priors: NDArray[np.floating] | None,
    verticals: Any,
    shards: tuple[tuple[Shard, ...], tuple[Shard, ...]],
    folder: Path,
    facts: dict[str, Any],
    distribution: Distribution,
) -> TrainingLoop:
    """One model's loop: the model, its twin, the input.

    Args:
        config: all sections.
        manifest: of the data.
        priors: float [C] that the classifier starts at, or None.
        verticals: of the classes, see `Vocabulary.vertical_indices`.
        shards: to train on, and to validate on.
        folder: of the checkpoints.
        facts: what they depend on.
        distribution: over devices and workers.
    """
    training, data = config.training, config.data
    keras.utils.set_random_seed(training.seed)
    # Kernels that sum in an order of their own would make two runs of one seed differ.
    tf.config.experimental.enable_op_determinism()
    frames = records.SEGMENT_FRAMES if data.segments else data.max_frames
    seen = frames if data.segments else min(data.train_frames or frames, frames)
    arguments = (config.model, manifest.num_classes, manifest.level)
    with _precision(training.precision), distribution.strategy.scope():
        model = build_model(*arguments, seen, priors, verticals)
    twin = build_model(*arguments, frames, priors, verticals)
    if training.warm_start:
        start_warm(model, training.warm_start)
    batches = TrainingInput(
        shards[0], manifest.level, manifest.num_classes, data, training.batch_size, training.seed,
        distribution.worker, distribution.workers,
    )  # fmt: skip
    validator = Validator(
        twin, manifest, shards[1], data, config.evaluation.batch_size, distribution
    )
    return TrainingLoop(config, model, batches, validator, folder, facts, distribution)


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    """Models that are made in the block multiply in this precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name if name == "float32" else f"mixed_{name}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _workplace(
    folder: Path, facts: dict[str, Any], output: str | os.PathLike[str], distribution: Distribution
) -> Iterator[Path | None]:
    """Hold the folder of the checkpoints and yield the output to fill: on the first worker only."""
    if not distribution.is_chief:
        yield None
        return
    waiting = f"waits for another training of the same configuration in {folder}"
    new = not (folder / DESCRIPTION).exists()
    with locked(folder, lambda: say("train", waiting)), atomic_directory(output) as partial:
        if new:
            _say_nearest(folder, facts)
            write_json(folder / DESCRIPTION, facts)
        yield partial


def _say_nearest(folder: Path, facts: dict[str, Any]) -> None:
    """Say why a training starts anew where there are checkpoints of others."""
    others = [path for path in folder.parent.glob(f"*/{DESCRIPTION}") if path.parent != folder]
    if others:
        newest = max(others, key=lambda path: path.stat().st_mtime)
        with contextlib.suppress(InputError):  # a damaged one of another training is not this one's
            difference = first_difference(read_json(newest), json.loads(json.dumps(facts)))
            say("train", f"starts anew: the checkpoints in {newest.parent} are of another "
                f"training, whose {difference}")  # fmt: skip


def _write_trained(folder: Path, name: str, loop: TrainingLoop, trained: Trained) -> None:
    loop.validator.twin.save(folder / f"{name}.keras")
    prefix = "" if f"{name}.keras" == MODEL else f"{name}_"
    _write_rows(folder / f"{prefix}history.csv", HISTORY_COLUMNS, trained.history)
    _write_rows(folder / f"{prefix}timings.csv", TIMING_COLUMNS, trained.timings)
    shutil.copytree(loop.folder / LOGS, folder / LOGS / name)


def checkpoint_facts(config: Config, manifest: Manifest) -> dict[str, Any]:
    """All that a checkpoint depends on: configuration, data, code and libraries."""
    facts = _description(config, manifest)
    for section, names in WITHOUT_EFFECT.items():
        facts[section] = {k: v for k, v in facts[section].items() if k not in names}
    return facts | {
        "warm_start": weights_digest(config.training.warm_start),
        "code": trainer_digest(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def checkpoint_digest(config: Config, manifest: Manifest) -> str:
    """Name of the folder that the checkpoints of a training are in."""
    return _digest(checkpoint_facts(config, manifest))


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _description(config: Config, manifest: Manifest) -> dict[str, Any]:
    sections = config.as_dict()
    for section in ("sample", "download", "statistics", "evaluation", "export"):
        del sections[section]
    return (
        sections
        | {
            "data_fingerprint": manifest.fingerprint,
            "level": manifest.level,
            "num_classes": manifest.num_classes,
            "vocabulary_digest": manifest.vocabulary_digest(),
        }
        | extractor_facts(manifest)
    )


def _say_size(
    config: Config,
    shards: tuple[Shard, ...],
    holdout: tuple[Shard, ...],
    distribution: Distribution,
) -> None:
    examples, held = (sum(shard.records for shard in part) for part in (shards, holdout))
    size = config.training.batch_size
    over = f", over {distribution.replicas} replicas" if distribution.replicas > 1 else ""
    say(
        "train",
        f"{examples:,} videos to train on, {held:,} held out; {examples // size:,} full batches of "
        f"{size} an epoch{over}",
    )


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
        training=dataclasses.replace(config.training, learning_rate=rate, warm_start=""),
    )


def _write_rows(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def class_priors(manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.floating]:
    """float64 [C]: share of the training videos that have each class, from the statistics."""
    videos = max(1, int(arrays["train/frames"].sum()))
    priors: NDArray[np.floating] = arrays["train/labels"][: manifest.num_classes] / videos
    return priors
