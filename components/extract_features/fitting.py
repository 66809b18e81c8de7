"""The extractor of an extraction: known before any video is, or fitted on what they are."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from components.extract_features.beam_pass import STEP, fit_projections
from components.extract_features.decoder_process import Limits
from components.extract_features.jobs import Job
from components.extract_features.networks import NetworkSource
from components.extract_features.video_list import TRAIN, Video
from components.extract_features.work_folder import WorkFolder
from trainer.feature_networks.feature_extractor import FeatureExtractor, NetworkId
from trainer.feature_networks.projection import Projection
from trainer.progress import say
from trainer.record_format import AUDIO_SIZE, RGB_SIZE

FITTED = "fitted"
"""How the source of a projection begins that was fitted on the extraction's own videos."""
_FEW_FRAMES = 10 * RGB_SIZE


def known_extractor(
    ids: tuple[NetworkId, NetworkId],
    source: NetworkSource,
    pca: str,
    limits: Limits,
    earlier: FeatureExtractor | None,
) -> FeatureExtractor | None:
    """The extractor whose projections are known before any video is; None: they are to be fitted.

    Args:
        ids: of the networks.
        source: of them.
        pca: public matrices for frames.
        limits: of a video.
        earlier: an extractor that is used again.
    """
    if earlier:
        # Of the same frames it makes the same codes, however many of them are looked at.
        return dataclasses.replace(earlier, seconds=limits.seconds, frames=limits.frames)
    projections = source.projections(pca)
    if projections is None:
        return None
    return FeatureExtractor(*ids, *projections, limits.seconds, limits.frames, source.random_seed)


def fitted_extractor(
    good: Sequence[tuple[Video, Job]],
    ids: tuple[NetworkId, NetworkId],
    source: NetworkSource,
    limits: Limits,
    work: WorkFolder,
    options: PipelineOptions,
) -> FeatureExtractor:
    """An extractor with the PCA of the videos to train on, or of all if there are none."""
    files = [job.file for video, job in good if video.split == TRAIN] or [j.file for _, j in good]
    name = hashlib.sha256("".join(files).encode()).hexdigest()[:16]
    sums = fit_projections(files, work, f"covariance-{name}", options)
    frames = sums["rgb"].count
    made_of = f"{FITTED} on {frames:,} frames of {len(files):,} videos"
    rgb = Projection.of_sums(sums["rgb"], RGB_SIZE, made_of)
    audio = Projection.of_sums(sums["audio"], AUDIO_SIZE, made_of)
    say(STEP, f"PCA {made_of}: {rgb.rank:,} directions of frames, {audio.rank:,} of sound")
    if frames < _FEW_FRAMES:
        say(
            STEP,
            f"warning: {frames:,} frames are few for a PCA of {RGB_SIZE:,} directions, expected "
            f"{_FEW_FRAMES:,} or more: other videos are not seen as these are",
        )
    return FeatureExtractor(*ids, rgb, audio, limits.seconds, limits.frames, source.random_seed)
