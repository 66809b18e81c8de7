"""Videos in, shards of YouTube-8M records out."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from components.download.bucket_folder import in_bucket
from components.download.cloud_storage import CloudStorage
from components.download.extras import VOCABULARY
from components.extract_features import decoder_process, features, media, sampling, write
from components.extract_features.beam_pass import (
    REASON,
    STEP,
    Extraction,
    Job,
    extract_videos,
    fit_projections,
    project_videos,
)
from components.extract_features.decoder_process import Limits
from components.extract_features.features import Pace
from components.extract_features.networks import NetworkSource, ids_of, load_networks
from components.extract_features.video_list import TRAIN, Video, VideoList, read_video_list
from components.extract_features.work_folder import WorkFolder
from components.extract_features.write import (
    FAILED,
    SUMMARY,
    VIDEOS,
    write_failed,
    write_lines,
    write_manifest,
    write_shards,
)
from components.statistics.engines import arguments_of, engine_options, is_service
from trainer import record_format, records
from trainer.errors import InputError
from trainer.feature_networks import log_mel
from trainer.feature_networks.feature_extractor import (
    FeatureExtractor,
    NetworkId,
    read_feature_extractor,
)
from trainer.feature_networks.projection import Projection
from trainer.files import (
    atomic_directory,
    check_output,
    local_path,
    locked,
    read_json,
    write_json,
)
from trainer.manifest import MANIFEST
from trainer.progress import duration, say
from trainer.record_format import AUDIO_SIZE, RGB_SIZE
from trainer.source_digest import source_digest
from trainer.statistics import covariance
from trainer.vocabulary import Vocabulary, read_vocabulary

FITTED = "fitted"
"""How the source of a projection begins that was fitted on the extraction's own videos."""
_FEW_FRAMES = 10 * RGB_SIZE
_MOST_SAID = 20


@dataclasses.dataclass(frozen=True)
class Request:
    """What to extract, and how.

    Attributes:
        videos: see `components.extract_features.video_list.read_video_list`.
        source: of the networks.
        pca: public matrices for frames in place of fitted ones.
        extractor: `feature_extractor.npz` of an earlier extraction or of a model (or the folder
            that has it), whose projections are used again; empty: as the networks have it.
        vocabulary: the classes' names; None: those beside the extractor, or of the labels.
        validate_share: of the labelled videos without a split.
        limits: of decoding one video.
        pace: how much at once.
        shard_videos: records a shard, at most.
        most_bytes: of a video in a bucket.
        max_failed: share of the videos, 0 to 1, that may have no features.
        work: folder for what is done so far; empty: beside the output.
        workers: processes of this machine, of Beam's own engine.
        beam_arguments: Beam's options.
        overwrite: whether an output folder that exists is replaced.
        by_content: whether the output is a folder of extractions, each in one that is named by all
            that its records depend on; what is there already is not written again.
    """

    videos: str
    source: NetworkSource = dataclasses.field(default_factory=NetworkSource)
    pca: str = ""
    extractor: str = ""
    vocabulary: Vocabulary | None = None
    validate_share: float = 0.2
    limits: Limits = dataclasses.field(default_factory=Limits)
    pace: Pace = dataclasses.field(default_factory=Pace)
    shard_videos: int = 100
    most_bytes: int = 8 << 30
    max_failed: float = 1.0
    work: str = ""
    workers: int = 1
    beam_arguments: Sequence[str] = ()
    overwrite: bool = False
    by_content: bool = False


def run_extract(request: Request, output: str | Path) -> tuple[Path, dict[str, Any]]:
    """Write shards, `manifest.json`, `feature_extractor.npz`, `vocabulary.csv`, `videos.jsonl`,
    `failed.jsonl` and `summary.json`, all or none.

    Args:
        request: what and how.
        output: folder to write.

    Returns:
        The folder, and the content of `summary.json`.

    Raises:
        InputError: a request that can not be met, no video has features, or more than
            `max_failed` of them have none.
    """
    place = Path(output).absolute()
    _check(request)
    if not request.by_content:
        check_output(place, request.overwrite, SUMMARY, "folder of an extraction")
    options = engine_options(arguments_of(request.workers, request.beam_arguments))
    start = time.monotonic()
    listed = _listed(request)
    known = _known_extractor(request)
    networks = load_networks(request.source)
    ids = ids_of(networks)
    if known:
        known.check_networks(*ids, request.extractor)
    work = WorkFolder(request.work or str(place.with_name(f".{place.name}.work")))
    if is_service(options) and work.is_local:
        raise InputError(f"work is {work.uri}, expected gs://, which the engine's workers share")
    with _held(work):
        if not request.by_content:
            # Another extraction may have been done while this one waited for it.
            check_output(place, request.overwrite, SUMMARY, "folder of an extraction")
        jobs = _jobs(listed.videos, ids, request.limits)
        _extract(jobs, request, work, options)
        refused = _refused(jobs, work)
        _check_failed(len(jobs), refused, request.max_failed, place)
        good = [(v, j) for v, j in zip(listed.videos, jobs, strict=True) if v.uri not in refused]
        extractor = known or _fitted(good, request, ids, work, options)
        coded = _codes(good, extractor, work, options)
        if request.by_content:
            place /= _content_digest(coded, listed, refused, request)
        if request.by_content and (place / SUMMARY).is_file():
            say(STEP, f"nothing changed since {place} was written")
            summary = read_json(place / SUMMARY)
            os.utime(place / SUMMARY)  # the latest of those with equal records
        else:
            with atomic_directory(place) as partial:
                summary = _write(partial, place, request, listed, coded, refused, work, extractor)
                summary["seconds"] = round(time.monotonic() - start, 2)
                write_json(partial / SUMMARY, summary)
        if not request.work:
            shutil.rmtree(work.uri, ignore_errors=True)
    _say_result(summary, refused, place)
    return place, summary


def _content_digest(
    coded: Sequence[tuple[Video, str]],
    listed: VideoList,
    refused: dict[str, str],
    request: Request,
) -> str:
    facts = [
        source_digest([Path(str(m.__file__)) for m in (write, records, record_format)]),
        [(video.video_id, video.labels, video.split, codes) for video, codes in coded],
        listed.vocabulary.names,
        sorted(refused.items()),
        request.shard_videos,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _check(request: Request) -> None:
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


def _listed(request: Request) -> VideoList:
    names = request.vocabulary or _vocabulary_beside(request.extractor)
    listed = read_video_list(request.videos, names, request.validate_share)
    counts = collections.Counter(video.split for video in listed.videos)
    splits = ", ".join(f"{count:,} {split}" for split, count in sorted(counts.items()))
    say(STEP, f"{len(listed.videos):,} videos of {request.videos}: {splits}")
    return listed


def _vocabulary_beside(extractor: str) -> Vocabulary | None:
    """The classes of an earlier extraction or a model, so that class i means the same again."""
    if not extractor:
        return None
    path = local_path(extractor)
    beside = (path if path.is_dir() else path.parent) / VOCABULARY
    return read_vocabulary(beside) if beside.is_file() else None


def _known_extractor(request: Request) -> FeatureExtractor | None:
    """The extractor whose projections are known before any video is."""
    limits = request.limits
    if request.extractor:
        if request.pca:
            raise InputError("pca: an extractor has its own, expected one of the two")
        found = read_feature_extractor(local_path(request.extractor))
        # Of the same frames it makes the same codes, however many of them are looked at.
        return dataclasses.replace(found, seconds=limits.seconds, frames=limits.frames)
    projections = request.source.projections(request.pca)
    if projections is None:
        return None
    ids = ids_of(load_networks(request.source))
    return FeatureExtractor(
        *ids, *projections, limits.seconds, limits.frames, request.source.random_seed
    )


def _jobs(videos: Sequence[Video], ids: tuple[NetworkId, NetworkId], limits: Limits) -> list[Job]:
    how = [dataclasses.asdict(one) for one in ids]
    how += [limits.seconds, limits.frames, limits.accept_damaged, _code(), _libraries()]  # type: ignore[list-item]
    jobs = []
    for video in videos:
        facts = [video.uri, *_stamp(video.uri), how]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
        jobs.append(Job(video.uri, f"{key}.features.npz", f"{key}.refused.npz"))
    return jobs


def _code() -> str:
    """Digest of the code that features depend on: what other code made is not gone on with."""
    modules = (covariance, decoder_process, features, media, record_format, sampling)
    files = [Path(str(module.__file__)) for module in modules]
    return source_digest([*files, *Path(str(log_mel.__file__)).parent.glob("*.py")])


def _libraries() -> dict[str, str]:
    """Versions of those that features depend on."""
    names = ("av", "keras", "numpy", "tensorflow", "tensorflow-cpu")
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _stamp(uri: str) -> tuple[object, ...]:
    """What tells a change of a file."""
    if in_bucket(uri):
        stored = CloudStorage().stat(uri)
        return (stored.bytes, stored.checksum) if stored else ()
    try:
        status = local_path(uri).stat()
    except (OSError, InputError):
        return ()
    return status.st_size, status.st_mtime_ns


def _extract(
    jobs: Sequence[Job], request: Request, work: WorkFolder, options: PipelineOptions
) -> None:
    there = work.names()
    left = [job for job in jobs if job.file not in there]
    if len(left) < len(jobs):
        say(STEP, f"{len(jobs) - len(left):,} of {len(jobs):,} videos were done before")
    extraction = Extraction(request.source, request.limits, request.pace, request.most_bytes, work)
    extract_videos(left, extraction, options, request.workers)


def _refused(jobs: Sequence[Job], work: WorkFolder) -> dict[str, str]:
    """Why videos have no features, by their URI."""
    there = work.names()
    return {
        job.uri: str(work.read(job.refused)[0][REASON]) for job in jobs if job.file not in there
    }


def _check_failed(videos: int, refused: dict[str, str], most: float, place: Path) -> None:
    for uri, reason in list(refused.items())[:_MOST_SAID]:
        say(STEP, f"failed: {uri}: {reason}")
    if len(refused) > _MOST_SAID:
        say(STEP, f"failed: {len(refused) - _MOST_SAID:,} more")
    if len(refused) <= most * videos and len(refused) < videos:
        return
    first = next(f"{uri}: {reason}" for uri, reason in refused.items())
    letters = place.with_name(f"{place.name}.{FAILED}")
    letters.parent.mkdir(parents=True, exist_ok=True)
    write_failed(letters, refused)
    if len(refused) == videos:
        raise InputError(f"none of the {videos:,} videos has features ({letters}); {first}")
    raise InputError(
        f"{len(refused):,} of the {videos:,} videos have no features, expected at most max_failed, "
        f"{most:g} of them ({letters}); {first}"
    )


def _fitted(
    good: Sequence[tuple[Video, Job]],
    request: Request,
    ids: tuple[NetworkId, NetworkId],
    work: WorkFolder,
    options: PipelineOptions,
) -> FeatureExtractor:
    """An extractor with the PCA of the videos to train on, or of all if there are none."""
    files = [job.file for video, job in good if video.split == TRAIN] or [j.file for _, j in good]
    name = hashlib.sha256("".join(files).encode()).hexdigest()[:16]
    sums = fit_projections(files, work, f"covariance-{name}", options)
    frames = sums["rgb"].count
    source = f"{FITTED} on {frames:,} frames of {len(files):,} videos"
    rgb = Projection.of_sums(sums["rgb"], RGB_SIZE, source)
    audio = Projection.of_sums(sums["audio"], AUDIO_SIZE, source)
    say(STEP, f"PCA {source}: {rgb.rank:,} directions of frames, {audio.rank:,} of sound")
    if frames < _FEW_FRAMES:
        say(
            STEP,
            f"warning: {frames:,} frames are few for a PCA of {RGB_SIZE:,} directions, expected "
            f"{_FEW_FRAMES:,} or more: other videos are not seen as these are",
        )
    limits = request.limits
    return FeatureExtractor(
        *ids, rgb, audio, limits.seconds, limits.frames, request.source.random_seed
    )


def _codes(
    good: Sequence[tuple[Video, Job]],
    extractor: FeatureExtractor,
    work: WorkFolder,
    options: PipelineOptions,
) -> list[tuple[Video, str]]:
    suffix = f".codes-{extractor.digest[:16]}.npz"
    coded = [(video, job.file.replace(".features.npz", suffix)) for video, job in good]
    there = work.names()
    left = {
        (job.file, codes) for (_, job), (_, codes) in zip(good, coded, strict=True)
        if codes not in there
    }  # fmt: skip
    project_videos(sorted(left), work, extractor, options)
    return coded


def _write(
    partial: Path,
    place: Path,
    request: Request,
    listed: VideoList,
    coded: Sequence[tuple[Video, str]],
    refused: dict[str, str],
    work: WorkFolder,
    extractor: FeatureExtractor,
) -> dict[str, Any]:
    made = list(write_shards(partial, coded, work, extractor, request.shard_videos))
    shards = [(path, split, count) for split, path, count, _ in made]
    facts = [one for _, _, _, some in made for one in some]
    manifest = write_manifest(partial, place, request.videos, listed, extractor, shards)
    write_lines(partial / VIDEOS, facts)
    write_failed(partial / FAILED, refused)
    return {
        "videos": len(facts),
        "failed": len(refused),
        "frames": sum(one["frames"] for one in facts),
        "silent": sum(not one["has_audio"] for one in facts),
        "splits": {shard.split: manifest.records(shard.split) for shard in manifest.shards},
        "num_classes": manifest.num_classes,
        "data_fingerprint": manifest.fingerprint,
        "feature_extractor": extractor.digest,
        "rgb": {"network": extractor.rgb_network.name, "projection": extractor.rgb.source,
                "directions": extractor.rgb.rank},
        "audio": {"network": extractor.audio_network.name, "projection": extractor.audio.source,
                  "directions": extractor.audio.rank},
        "features_mark": extractor.mark,
    }  # fmt: skip


def _say_result(summary: dict[str, Any], refused: dict[str, str], place: Path) -> None:
    silent = f", {summary['silent']:,} without sound" if summary["silent"] else ""
    failed = f"; {len(refused):,} failed, see {FAILED}" if refused else ""
    say(
        STEP,
        f"{summary['videos']:,} videos, {summary['frames']:,} frames{silent}, in "
        f"{duration(summary['seconds'])}: {place / MANIFEST}{failed}",
    )
    if summary["features_mark"]:
        say(STEP, f"warning: the features are of {summary['features_mark']}: of no meaning")


@contextlib.contextmanager
def _held(work: WorkFolder) -> Iterator[None]:
    """The work folder, which one process at a time has; on what has no locks, all have it."""
    if not work.is_local:
        yield
        return
    while True:
        work.make()
        with locked(work.path, _waits):
            # Whoever held it before may have been done, and have taken it away.
            if work.path.is_dir():
                yield
                return


def _waits() -> None:
    say(STEP, "waits for another extraction into the same folder")
