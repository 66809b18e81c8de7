"""Train on the manifest's train split, with the class frequencies that the statistics found."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from trainer.cluster import read_cluster
from trainer.config import Config
from trainer.errors import InputError
from trainer.files import local_path
from trainer.manifest import read_manifest
from trainer.progress import say
from trainer.statistics import read_statistics
from trainer.training import class_priors, train


def is_chief() -> bool:
    """Whether this process is alone, or of several workers the one that writes."""
    cluster = read_cluster(os.environ.get("TF_CONFIG"))
    return cluster is None or cluster.is_chief


def run_train(
    examples: str,
    example_statistics: str,
    config: Config,
    checkpoint_root: str,
    trained_model: str,
) -> dict[str, Any]:
    """Write the trained model's folder; see `trainer.training.train`.

    Raises:
        InputError: artifacts that do not belong together, parameters that do not fit the data, or
            a bad record; several workers without a common `checkpoint_root`.
    """
    if not checkpoint_root and read_cluster(os.environ.get("TF_CONFIG")):
        raise InputError(
            "checkpoint_root is empty, expected a folder or gs:// prefix: several workers train, "
            "and all of them have to see it"
        )
    manifest = read_manifest(examples)
    statistics = read_statistics(example_statistics, manifest.fingerprint)
    priors = class_priors(manifest, statistics.arrays)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints = local_path(checkpoint_root) if checkpoint_root else Path(scratch)
        result = train(config, manifest, priors, checkpoints, trained_model)
    for one in result.values():
        say(
            "train",
            f"{one['model']}: {one['parameters']:,} parameters, final loss "
            f"{one['history'][-1]['loss']:.3f}, {one['examples_per_second']:,.0f} videos/s "
            "(validation not counted)",
        )
    return result
