"""What is asked of an extraction, checked before anything long is begun."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from components.download.extras import VOCABULARY
from components.extract_features.decoder_process import Limits
from components.extract_features.features import Pace
from components.extract_features.networks import NetworkSource
from trainer.errors import InputError
from trainer.feature_networks.feature_extractor import FeatureExtractor
from trainer.files import local_path
from trainer.vocabulary import Vocabulary, read_vocabulary


@dataclasses.dataclass(frozen=True)
class Request:
    """What to extract, and how.

    Attributes:
        videos: see `components.extract_features.video_list.read_video_list`.
        source: of the networks; None: as the extractor has them, or `NetworkSource`'s own.
        weights: folder of their files, where there is no source.
        pca: public matrices for frames in place of fitted ones.
        extractor: `feature_extractor.npz` of an earlier extraction or of a model (or the folder
            that has it), whose projections are used again; empty: as the networks have it.
        vocabulary: the classes' names; None: those beside the extractor, or of the labels.
        validate_share: of the labelled videos without a split.
        limits: of decoding one video.
        pace: how much at once.
        shard_videos: records a shard, at most.
        max_failed: share of the videos, 0 to 1, that may have no features.
        work: folder for what is done so far; empty: beside the output.
        workers: processes of this machine, of Beam's own engine.
        beam_arguments: Beam's options.
        overwrite: whether an output folder that exists is replaced.
        by_content: whether the output is a folder of extractions, each in one that is named by all
            that its records depend on; what is there already is not written again.
    """

    videos: str
    source: NetworkSource | None = None
    weights: str = "weights"
    pca: str = ""
    extractor: str = ""
    vocabulary: Vocabulary | None = None
    validate_share: float = 0.2
    limits: Limits = dataclasses.field(default_factory=Limits)
    pace: Pace = dataclasses.field(default_factory=Pace)
    shard_videos: int = 100
    max_failed: float = 1.0
    work: str = ""
    workers: int = 1
    beam_arguments: Sequence[str] = ()
    overwrite: bool = False
    by_content: bool = False


def check_request(request: Request) -> None:
    """Raise `InputError` for a request that can not be met, whatever the videos are."""
    if request.pca and request.extractor:
        raise InputError("pca: an extractor has its own, expected one of the two")
    if request.limits.frames > request.limits.seconds:
        raise InputError(
            f"frames is {request.limits.frames}, expected at most {request.limits.seconds}"
        )
    if not 0 <= request.max_failed <= 1:
        raise InputError(f"max_failed is {request.max_failed}, expected 0 to 1")
    for name, value in (
        ("workers", request.workers),
        ("batch_size", request.pace.batch_size),
        ("decoders", request.pace.decoders),
        ("shard_videos", request.shard_videos),
        ("seconds", request.limits.seconds),
        ("frames", request.limits.frames),
        ("memory_mb", request.limits.memory_mb),
        ("processor_seconds", request.limits.processor_seconds),
    ):
        if value < 1:
            raise InputError(f"{name} is {value}, expected at least 1")


def source_of(request: Request, earlier: FeatureExtractor | None) -> NetworkSource:
    """The networks that are asked for, which an earlier extractor prescribes."""
    if not earlier:
        return request.source or NetworkSource(weights=request.weights)
    expected = NetworkSource.of_extractor(earlier, request.weights, request.extractor)
    asked = request.source or expected
    if (asked.features, asked.random_seed) != (expected.features, expected.random_seed):
        raise InputError(
            f"features is {asked.features} (seed {asked.seed}), those of {request.extractor} are "
            f"{expected.features} (seed {expected.seed})"
        )
    return expected


def vocabulary_beside(extractor: str) -> Vocabulary | None:
    """The classes of an earlier extraction or a model, so that class i means the same again."""
    if not extractor:
        return None
    path = local_path(extractor)
    beside = (path if path.is_dir() else path.parent) / VOCABULARY
    return read_vocabulary(beside) if beside.is_file() else None
