"""Weights of a trained model as the start of another training."""

from __future__ import annotations

import hashlib
from pathlib import Path

import keras

from trainer.errors import InputError
from trainer.files import local_path
from trainer.models import load_model

MODEL = "model.keras"


def model_file(uri: str) -> Path:
    """The `.keras` file that `training.warm_start` names.

    Raises:
        InputError: there is none.
    """
    path = local_path(uri)
    file = path / MODEL if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"training.warm_start is {uri!r}: no {file}, expected a .keras file or the folder of a "
            "trained model"
        )
    return file


def weights_digest(uri: str) -> str:
    """Digest of the weights that a training starts at, wherever they lie: empty for new ones."""
    if not uri:
        return ""
    digest = hashlib.sha256()
    for weight in load_model(model_file(uri)).weights:
        digest.update(f"{weight.path} {weight.shape}".encode())
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()[:32]


def start_warm(model: keras.Model, uri: str) -> None:
    """Set the weights of a model to those of a trained one, name by name.

    The number of frames and the level of the records may differ: weights depend on neither.

    Args:
        model: new.
        uri: `training.warm_start`.

    Raises:
        InputError: the two have not the same weights; both models and the first difference are
            named, and nothing is set.
    """
    file = model_file(uri)
    trained = load_model(file)
    found = {weight.path: weight for weight in trained.weights}
    wanted = {weight.path: weight for weight in model.weights}
    for path in [*wanted, *(path for path in found if path not in wanted)]:
        here, there = (
            f"shape {tuple(one[path].shape)}" if path in one else "no such weight"
            for one in (wanted, found)
        )
        if here != there:
            raise InputError(
                f"training.warm_start: {file} is a {trained.name} model that does not fit the new "
                f"{model.name} model: {path} has {there} there, {here} here"
            )
    for path, weight in wanted.items():
        weight.assign(found[path].numpy())
