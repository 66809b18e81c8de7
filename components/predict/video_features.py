"""Features of one video by what made those that a model was trained on, and its frames to show."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.download.bucket_folder import in_bucket
from components.download.cloud_storage import CloudStorage
from components.extract_features.decoder_process import Limits
from components.extract_features.feature_kinds import RANDOM
from components.extract_features.features import Networks, Pace, VideoFeatures, features_of
from components.extract_features.model_features import extractor_of_model, features_of_model
from components.extract_features.networks import NetworkSource, ids_of, load_networks
from components.extract_features.video_list import short_id
from trainer.errors import InputError
from trainer.exported_model import ExportedModel
from trainer.feature_networks.feature_extractor import FEATURE_EXTRACTOR, FeatureExtractor
from trainer.feature_networks.projection import Projection
from trainer.files import local_path
from trainer.progress import Progress
from trainer.record_format import AUDIO_SIZE, RGB_SIZE
from trainer.records import VideoRecord
from trainer.statistics.covariance import ValueCovariance


@dataclasses.dataclass(frozen=True)
class SeenVideo:
    """A video, as a model and as a person sees it.

    Attributes:
        record: frame-level, of T seconds.
        facts: of its file, see `components.extract_features.features.VideoFeatures`.
        frames: T images uint8 [299,299,3], one a second.
        extractor: that made the features.
    """

    record: VideoRecord
    facts: dict[str, Any]
    frames: list[NDArray[np.uint8]]
    extractor: FeatureExtractor


def source_for(
    model: ExportedModel, weights: str, random_weights: bool = False, seed: int | None = None
) -> tuple[NetworkSource, FeatureExtractor | None]:
    """The networks whose features a model knows, and the extractor that is kept with it.

    Without an extractor that is YouTube-8M's own networks: nothing else was its features' source.

    Args:
        model: to be asked about a video.
        weights: folder with the published files.
        random_weights: whether networks that know nothing will do.
        seed: of these; None: the model's own, or 0.

    Raises:
        InputError: no network makes such features, or the model's folder was changed.
    """
    if seed is not None and not random_weights:
        raise InputError("seed is of --random-weights, which is not given")
    kept = extractor_of_model(model.folder)
    if random_weights and (kept is None or kept.seed is None):
        return NetworkSource(RANDOM, weights, seed or 0), None
    if kept and seed not in (None, kept.seed):
        raise InputError(f"seed is {seed}, expected {kept.seed}, of the features of {model.folder}")
    instead = ", or --random-weights to see how it goes"
    return features_of_model(model.folder, kept, weights, instead), kept


def look_at(
    video: str, source: NetworkSource, kept: FeatureExtractor | None, accept_damaged: bool = False
) -> SeenVideo:
    """Decode a video and make its features.

    Args:
        video: path or `gs://` URI.
        source: of the networks.
        kept: extractor whose projections and limits are used; None: YouTube-8M's, or of random
            networks such as are fitted on this one video.
        accept_damaged: whether what decodes of a damaged file will do.

    Raises:
        InputError: a file of the networks is absent or another, or the video has no features.
    """
    networks = load_networks(source)
    if kept:
        kept.check_networks(*ids_of(networks), FEATURE_EXTRACTOR)
        limits = Limits(seconds=kept.seconds, frames=kept.frames, accept_damaged=accept_damaged)
    else:
        limits = Limits(accept_damaged=accept_damaged)
    with _local_video(video, limits) as path:
        size = path.stat().st_size
        found, frames = _features(video, path, networks, limits)
    extractor = kept or _extractor(found, networks, source, limits)
    record = VideoRecord(
        id_of(video),
        np.zeros(0, np.int64),
        extractor.rgb.codes(found.rgb),
        extractor.audio.codes(found.audio),
        mark=extractor.mark,
        silent=not found.facts["has_audio"],
        extractor=extractor.digest,
    )
    return SeenVideo(record, {"bytes": size, **found.facts}, frames, extractor)


def _features(
    video: str, path: Path, networks: Networks, limits: Limits
) -> tuple[VideoFeatures, list[NDArray[np.uint8]]]:
    frames: list[NDArray[np.uint8]] = []
    # How many there are is known at the end alone.
    progress = Progress("predict", limits.frames, "frames")

    def on_frame(_: int, frame: NDArray[np.float32]) -> None:
        frames.append(np.rint(np.clip(frame, 0, 255)).astype(np.uint8))
        if len(frames) < progress.total:
            progress.advance(note="at most")

    # One video has one decoder.
    pace = Pace(decoders=1)
    with contextlib.closing(features_of([str(path)], networks, limits, pace, on_frame)) as each:
        (found,) = each
    if not isinstance(found, VideoFeatures):
        raise InputError(f"{video}: {found.reason}")
    progress.total = len(frames)
    progress.advance(len(frames) - progress.done)
    return found, frames


def _extractor(
    found: VideoFeatures, networks: Networks, source: NetworkSource, limits: Limits
) -> FeatureExtractor:
    """Of YouTube-8M's projections; of random networks, fitted on the video itself."""
    rgb, audio = source.projections() or (
        _fitted(found.rgb, RGB_SIZE),
        _fitted(found.audio, AUDIO_SIZE),
    )
    return FeatureExtractor(
        *ids_of(networks), rgb, audio, limits.seconds, limits.frames, source.random_seed
    )


def _fitted(features: NDArray[np.float32], size: int) -> Projection:
    sums = ValueCovariance(features.shape[1])
    sums.add(features)
    source = f"fitted on {sums.count:,} frames of this one video"
    return Projection.of_sums(sums, size, source)


@contextlib.contextmanager
def _local_video(uri: str, limits: Limits) -> Iterator[Path]:
    """The file on this machine: itself, or a copy that goes with the context."""
    if not in_bucket(uri):
        path = local_path(uri)
        if not path.is_file():
            raise InputError(f"{uri}: {'is no regular file' if path.exists() else 'no such file'}")
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "video"
        CloudStorage().copy(uri, target, limits.most_bytes)
        yield target


def id_of(video: str) -> str:
    """Of a video's record: its file's name without suffix, the end of one that is too long."""
    return short_id(shown_name(PurePosixPath(video).with_suffix("").name))


def shown_name(path: str) -> str:
    """A path as text that any file can hold: bytes that are no UTF-8 are escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
