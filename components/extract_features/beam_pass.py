"""The passes of an extraction in Beam: features of videos, the covariance of them, codes.

Each leaves a file for each element in the work folder, so that what an engine repeats changes
nothing, and what it did not come to is done the next time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from numpy.typing import NDArray

from components.download.bucket_folder import in_bucket
from components.download.cloud_storage import CloudStorage, UnusableObjectError
from components.extract_features.decoder_process import Limits
from components.extract_features.features import Pace, Refused, VideoFeatures, features_of
from components.extract_features.jobs import Job
from components.extract_features.networks import NetworkSource, load_networks
from components.extract_features.work_folder import WorkFolder
from components.statistics.engines import (
    beam_says_nothing,
    engine_errors,
    is_in_process,
    run_pipeline,
)
from trainer.feature_networks.feature_extractor import FeatureExtractor
from trainer.feature_networks.projection import Projection
from trainer.files import local_path
from trainer.progress import Progress, say
from trainer.statistics.covariance import ValueCovariance

STEP = "extract"
REASON = "reason"
KINDS = ("rgb", "audio")
_BLOCK = 32
"""Videos that a worker takes at once; its networks' batches run over from one to the next."""
_COVARIANCE_BLOCK = 64


@dataclasses.dataclass(frozen=True)
class Extraction:
    """How videos are extracted.

    Attributes:
        source: of the networks.
        limits, pace: of decoding, and how much at once.
        work: where results go.
    """

    source: NetworkSource
    limits: Limits
    pace: Pace
    work: WorkFolder


class ExtractVideos(beam.DoFn):
    """Blocks of jobs → their files."""

    def __init__(self, extraction: Extraction, total: int, progress: bool) -> None:
        self._extraction, self._total, self._shows_progress = extraction, total, progress

    def setup(self) -> None:
        self._progress = Progress(STEP, self._total, "videos")

    def process(self, jobs: Sequence[Job]) -> None:
        extraction = self._extraction
        # A block that an engine repeats may have been done in part.
        there = extraction.work.names()
        jobs = [job for job in jobs if job.file not in there]
        networks = load_networks(extraction.source)
        with tempfile.TemporaryDirectory() as scratch:
            paths = _Paths(jobs, Path(scratch), extraction.limits.most_bytes)
            found = features_of(paths, networks, extraction.limits, extraction.pace)
            with contextlib.closing(found):
                for place, (job, features) in enumerate(zip(jobs, found, strict=True)):
                    write_features(extraction.work, job, paths.reason(place) or features)
                    paths.done(place)
                    if self._shows_progress:
                        self._progress.advance(note=job.uri.rpartition("/")[2])


def write_features(work: WorkFolder, job: Job, found: VideoFeatures | Refused) -> None:
    if isinstance(found, Refused):
        work.write(job.refused, {REASON: found.reason}, {})
    else:
        work.write(job.file, found.facts, {"rgb": found.rgb, "audio": found.audio})


class _Paths(Sequence[str]):
    """Paths on this machine of jobs' videos; one in a bucket is copied when it is asked for."""

    def __init__(self, jobs: Sequence[Job], scratch: Path, most_bytes: int) -> None:
        self._jobs, self._scratch, self._most = jobs, scratch, most_bytes
        self._refused: dict[int, Refused] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        uri = self._jobs[place].uri
        try:
            if not in_bucket(uri):
                return str(local_path(uri))
            target = self._scratch / str(place)
            CloudStorage().copy(uri, target, self._most)
            return str(target)
        except UnusableObjectError as error:
            self._refused[place] = Refused(str(error).removeprefix(f"{uri}: "))
            return str(self._scratch / "absent")

    def reason(self, place: int) -> Refused | None:
        """Why a video could not be had."""
        return self._refused.get(place)

    def done(self, place: int) -> None:
        (self._scratch / str(place)).unlink(missing_ok=True)


class CovarianceOfBlock(beam.DoFn):
    """(name, files) → a file of that name with the sums of these videos' features."""

    def __init__(self, work: WorkFolder) -> None:
        self._work = work

    def process(self, block: tuple[str, Sequence[str]]) -> None:
        name, files = block
        sums: dict[str, ValueCovariance] = {}
        for file in files:
            facts, features = self._work.read(file)
            for kind, values in features.items():
                one = sums.setdefault(kind, ValueCovariance(values.shape[1]))
                # Silence that stands for no sound is none to be fitted on.
                if kind == "rgb" or facts["has_audio"]:
                    one.add(values)
        state = {f"{kind}_{key}": v for kind, one in sums.items() for key, v in one.state().items()}
        self._work.write(name, {}, state)


class ProjectVideo(beam.DoFn):
    """(features' file, codes' file) → the latter."""

    def __init__(self, work: WorkFolder, projections: str) -> None:
        # By a file: matrices of 17 MB are too large for the request that starts a job.
        self._work, self._projections = work, projections

    def setup(self) -> None:
        _, arrays = self._work.read(self._projections)
        self._by_kind = {
            kind: Projection(arrays[f"{kind}_mean"], arrays[f"{kind}_matrix"], None, "")
            for kind in KINDS
        }

    def process(self, files: tuple[str, str]) -> None:
        source, target = files
        facts, found = self._work.read(source)
        codes = {kind: one.codes(found[kind]) for kind, one in self._by_kind.items()}
        self._work.write(target, facts, codes)


def extract_videos(
    jobs: Sequence[Job], extraction: Extraction, options: PipelineOptions, workers: int
) -> None:
    """Write the features of each video, or why it has none."""
    progress = is_in_process(options)
    size = max(1, min(_BLOCK, -(-len(jobs) // (4 * workers)) if workers > 1 else _BLOCK))
    blocks = [jobs[start : start + size] for start in range(0, len(jobs), size)]
    if not progress:
        say(STEP, f"workers extract {len(jobs):,} videos; the next line comes when they are done")
    _run(blocks, ExtractVideos(extraction, len(jobs), progress), options)


def fit_projections(
    files: Sequence[str], work: WorkFolder, name: str, options: PipelineOptions
) -> dict[str, ValueCovariance]:
    """Means and covariances of the features of videos, by kind.

    Blocks of always the same videos are summed by workers and merged here in their order, so that
    the sums are the same bits whoever does it.
    """
    blocks = [
        (f"{name}-{start:08}.npz", files[start : start + _COVARIANCE_BLOCK])
        for start in range(0, len(files), _COVARIANCE_BLOCK)
    ]
    there = work.names()
    _run([block for block in blocks if block[0] not in there], CovarianceOfBlock(work), options)
    merged: dict[str, ValueCovariance] = {}
    for block, _ in blocks:
        _, state = work.read(block)
        for kind in KINDS:
            one = ValueCovariance(len(state[f"{kind}_mean"]))
            one.load({key.removeprefix(f"{kind}_"): v for key, v in state.items() if kind in key})
            merged.setdefault(kind, ValueCovariance(len(one.mean))).merge(one)
    return merged


def project_videos(
    files: Sequence[tuple[str, str]],
    work: WorkFolder,
    extractor: FeatureExtractor,
    options: PipelineOptions,
) -> None:
    """Write the codes of each video's features."""
    if not files:
        return
    name = f"projections-{extractor.digest[:16]}.npz"
    arrays: dict[str, NDArray[Any]] = {}
    for kind, one in zip(KINDS, (extractor.rgb, extractor.audio), strict=True):
        arrays |= {f"{kind}_mean": one.mean, f"{kind}_matrix": one.matrix}
    work.write(name, {}, arrays)
    _run(list(files), ProjectVideo(work, name), options)


def _run(elements: Sequence[object], work: beam.DoFn, options: PipelineOptions) -> None:
    if not elements:
        return
    quiet = beam_says_nothing() if is_in_process(options) else contextlib.nullcontext()
    with quiet, engine_errors(options):

        def build(pipeline: beam.Pipeline) -> None:
            _ = (
                pipeline
                | "Elements" >> beam.Create(elements, reshuffle=True)
                | type(work).__name__ >> beam.ParDo(work)
            )

        run_pipeline(build, options, STEP)
