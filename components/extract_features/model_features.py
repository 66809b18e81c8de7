"""Which networks make the features that a model takes, and which classes it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.download.extras import VOCABULARY
from components.download.step import SAMPLE
from components.extract_features.feature_kinds import IMAGENET, RANDOM, YOUTUBE8M
from components.extract_features.networks import NetworkSource
from trainer.errors import InputError
from trainer.exported_model import ABOUT
from trainer.feature_networks.feature_extractor import FEATURE_EXTRACTOR, read_feature_extractor
from trainer.feature_networks.frame_network import YOUTUBE8M_NETWORK
from trainer.files import read_json
from trainer.manifest import MANIFEST, read_manifest
from trainer.record_format import FRAME
from trainer.vocabulary import Vocabulary, read_vocabulary

_BY_NETWORK = {
    YOUTUBE8M_NETWORK: YOUTUBE8M,
    "inception-v3-imagenet": IMAGENET,
    "inception-v3-random": RANDOM,
}


def features_of_model(folder: Path, weights: str) -> tuple[NetworkSource, str]:
    """The networks of a model's features, and the file with its projections.

    A model of own videos has the file beside it; any other one but that of the built-in sample was
    trained on YouTube-8M's features, whose projections are published.

    Args:
        folder: of an exported model.
        weights: see `NetworkSource`.

    Returns:
        The source, and the path of `feature_extractor.npz`, empty for YouTube-8M's features.

    Raises:
        InputError: no network makes such features, or the file is none.
    """
    file = folder / FEATURE_EXTRACTOR
    about = read_json(folder / ABOUT)
    if file.is_file():
        extractor = read_feature_extractor(file)
        name = extractor.rgb_network.name
        if name not in _BY_NETWORK:
            raise InputError(f"{file}: its network {name} is none of {', '.join(_BY_NETWORK)}")
        return NetworkSource(_BY_NETWORK[name], weights, extractor.seed or 0), str(file)
    if about.get("feature_extractor"):
        raise InputError(
            f"{file}: no such file, but {ABOUT} says that the model's features were extracted by it"
        )
    if data_source(folder, about) == SAMPLE:
        raise InputError(
            f"{folder}: was trained on the built-in sample, whose features are generated: no "
            "network makes them of a video. Train on YouTube-8M or on own videos"
        )
    return NetworkSource(YOUTUBE8M, weights), ""


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
    level = read_json(folder / ABOUT).get("level")
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
    about = read_json(folder / ABOUT)
    file = folder / VOCABULARY
    if file.is_file():
        return read_vocabulary(file)
    if about.get("vocabulary_digest"):
        raise InputError(
            f"{file}: no such file; an earlier version exported the model: give its vocabulary"
        )
    return Vocabulary.of_indices(about["num_classes"])
