"""Which networks make the features that a model takes, and which classes it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.download.extras import VOCABULARY
from components.download.step import SAMPLE
from components.extract_features.feature_kinds import YOUTUBE8M
from components.extract_features.networks import NetworkSource
from trainer.errors import InputError
from trainer.exported_model import ABOUT, read_about
from trainer.feature_networks.feature_extractor import (
    FEATURE_EXTRACTOR,
    FeatureExtractor,
    read_feature_extractor,
)
from trainer.manifest import MANIFEST, read_manifest
from trainer.record_format import FRAME
from trainer.vocabulary import Vocabulary, read_vocabulary


def extractor_of_model(folder: Path) -> FeatureExtractor | None:
    """What made the features that a model was trained on, where that lies beside it.

    Args:
        folder: of an exported model.

    Raises:
        InputError: it is missing, or another one than `export.json` speaks of.
    """
    file = folder / FEATURE_EXTRACTOR
    told = read_about(folder).get("feature_extractor")
    if not file.is_file():
        if told:
            raise InputError(
                f"{file}: no such file, but {ABOUT} says that the model's features were extracted "
                "by it"
            )
        return None
    kept = read_feature_extractor(file)
    if told and kept.digest != told:
        raise InputError(f"{file}: has the digest {kept.digest}, expected {told}, of {ABOUT}")
    return kept


def features_of_model(
    folder: Path, made: FeatureExtractor | None, weights: str, instead: str = ""
) -> NetworkSource:
    """The networks of a model's features.

    A model of own videos has its extractor beside it; any other one but that of the built-in
    sample was trained on YouTube-8M's features.

    Args:
        folder: of an exported model.
        made: its `extractor_of_model`.
        weights: see `NetworkSource`.
        instead: what the caller offers where no network makes such features, for the message.

    Raises:
        InputError: no network makes such features.
    """
    if made:
        return NetworkSource.of_extractor(made, weights, str(folder / FEATURE_EXTRACTOR))
    if data_source(folder, read_about(folder)) == SAMPLE:
        raise InputError(
            f"{folder}: was trained on the built-in sample, whose features are generated and come "
            "from no network, so it knows nothing of videos; give a model that was trained on own "
            f"videos or on YouTube-8M{instead}"
        )
    return NetworkSource(YOUTUBE8M, weights)


def data_source(folder: Path, about: dict[str, Any]) -> str:
    """Of the data that a model was trained on; of an older export, by its run; empty: not known.

    Args:
        folder: of an exported model.
        about: the content of its `export.json`.
    """
    if "data_source" in about:
        return str(about["data_source"])
    beside = folder.parent / "examples" / MANIFEST
    return read_manifest(beside).source if beside.is_file() else ""


def check_level(folder: Path) -> None:
    """Raise `InputError` for a model that takes no frame-level records, before any are made."""
    level = read_about(folder)["level"]
    if level != FRAME:
        raise InputError(
            f"{folder}: takes {level}-level records, expected a model of frame-level ones, as "
            "they are made of videos"
        )


def vocabulary_of_model(folder: Path) -> Vocabulary:
    """The classes of a model, for records that it is to take.

    Raises:
        InputError: the model has names of classes, but they are not beside it.
    """
    about = read_about(folder)
    file = folder / VOCABULARY
    if file.is_file():
        return read_vocabulary(file)
    if about.get("vocabulary_digest"):
        raise InputError(
            f"{file}: no such file; an earlier version exported the model: give its vocabulary"
        )
    return Vocabulary.of_indices(about["num_classes"])
