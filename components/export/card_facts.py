"""What a model card is made of, read from the artifacts of a run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import keras

from components.evaluate.report import read_classes
from trainer.config import Config
from trainer.errors import InputError
from trainer.files import read_json
from trainer.manifest import Manifest


@dataclasses.dataclass(frozen=True)
class CardFacts:
    """What a card is made of.

    Attributes:
        manifest: of the data.
        trained: `config.json` of the trained model.
        training: `training.json`, of the model itself.
        evaluation: `evaluation.json`.
        classes: rows of `classes.csv`.
        export: `export.json`.
        config: of the export step.
        model: as it is served.
    """

    manifest: Manifest
    trained: dict[str, Any]
    training: dict[str, Any]
    evaluation: dict[str, Any]
    classes: list[dict[str, str]]
    export: dict[str, Any]
    config: Config
    model: keras.Model


def read_evaluation(
    folder: str | os.PathLike[str], manifest: Manifest
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """`evaluation.json` and the rows of `classes.csv` of an evaluation's folder.

    Raises:
        InputError: absent, or the evaluation is of other data.
    """
    content: dict[str, Any] = read_json(Path(folder) / "evaluation.json")
    found = content.get("data_fingerprint") if isinstance(content, dict) else None
    if found != manifest.fingerprint:
        raise InputError(
            f"{folder}/evaluation.json: is of the data {found}, expected {manifest.fingerprint}"
        )
    return content, read_classes(folder)
