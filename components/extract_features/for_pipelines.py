"""The extraction as a step: where its records go, and the networks of the model that takes them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.download.bucket_folder import local_folder
from components.download.extras import VOCABULARY
from components.download.step import OBJECT_STORES
from components.extract_features.decoder_process import Limits
from components.extract_features.features import Pace, decoders
from components.extract_features.model_features import (
    check_level,
    extractor_of_model,
    features_of_model,
    vocabulary_of_model,
)
from components.extract_features.networks import NetworkSource
from components.extract_features.request import Request
from components.extract_features.step import run_extract
from components.extract_features.write import FAILED, SUMMARY, VIDEOS
from trainer.errors import InputError
from trainer.feature_networks.feature_extractor import FEATURE_EXTRACTOR
from trainer.files import local_path, write_file
from trainer.manifest import MANIFEST
from trainer.vocabulary import read_vocabulary

RECORDS, WORK = "extracted", "extraction"
"""Folders of a destination."""


def run_step(
    videos: str,
    destination: str,
    features: str,
    weights: str,
    model: str,
    extractor: str,
    vocabulary: str,
    validate_share: float,
    max_failed: float,
    accept_damaged: bool,
    seed: int,
    beam_arguments: Sequence[str],
    artifact: str,
    artifact_uri: str,
) -> tuple[str, dict[str, Any]]:
    """Extract into the destination, or into the artifact; see `component.extract_features`.

    Returns:
        The URI of the folder of records, and its summary.

    Raises:
        InputError: a model that takes no such records, or as of `run_extract`.
    """
    if model and extractor:
        raise InputError("extractor: the model has its own, expected one of the two")
    root = local_path(destination) if destination else None
    with contextlib.ExitStack() as held:
        folder = held.enter_context(local_folder(model, "model")) if model else None
        source = NetworkSource(features, weights, seed)
        names = read_vocabulary(local_path(vocabulary)) if vocabulary else None
        if folder:
            check_level(folder)
            made = extractor_of_model(folder)
            source = features_of_model(folder, made, weights)
            extractor = str(folder / FEATURE_EXTRACTOR) if made else ""
            names = names or vocabulary_of_model(folder)
        request = Request(
            videos=videos,
            source=source,
            extractor=extractor,
            vocabulary=names,
            validate_share=validate_share,
            limits=Limits(accept_damaged=accept_damaged),
            pace=Pace(decoders=decoders()),
            max_failed=max_failed,
            work=str(root / WORK) if root else "",
            beam_arguments=list(beam_arguments),
            overwrite=True,
            by_content=root is not None,
        )
        place, summary = run_extract(request, root / RECORDS if root else artifact)
    if not root:
        return artifact_uri, summary
    if artifact_uri.startswith(OBJECT_STORES):
        # The cluster carries artifacts itself, and fails for one that lies elsewhere.
        for name in (MANIFEST, FEATURE_EXTRACTOR, VOCABULARY, SUMMARY, FAILED, VIDEOS):
            write_file(Path(artifact) / name, (place / name).read_bytes())
        return artifact_uri, summary
    return f"{destination.rstrip('/')}/{RECORDS}/{place.name}", summary
