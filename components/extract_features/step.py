"""Videos in, shards of YouTube-8M records out."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from components.extract_features import write
from components.extract_features.beam_pass import (
    REASON,
    STEP,
    Extraction,
    extract_videos,
    project_videos,
)
from components.extract_features.fitting import fitted_extractor, known_extractor
from components.extract_features.jobs import Job, jobs_of
from components.extract_features.networks import ids_of, load_networks
from components.extract_features.request import (
    Request,
    check_request,
    source_of,
    vocabulary_beside,
)
from components.extract_features.video_list import Video, VideoList, read_video_list
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
from trainer.feature_networks.feature_extractor import (
    FeatureExtractor,
    read_feature_extractor,
)
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
from trainer.source_digest import source_digest

_MOST_SAID = 20


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
    check_request(request)
    if not request.by_content:
        check_output(place, request.overwrite, SUMMARY, "folder of an extraction")
    options = engine_options(arguments_of(request.workers, request.beam_arguments))
    start = time.monotonic()
    listed = _listed(request)
    earlier = read_feature_extractor(local_path(request.extractor)) if request.extractor else None
    source = source_of(request, earlier)
    ids = ids_of(load_networks(source))
    if earlier:
        earlier.check_networks(*ids, request.extractor)
    known = known_extractor(ids, source, request.pca, request.limits, earlier)
    work = WorkFolder(request.work or str(place.with_name(f".{place.name}.work")))
    if is_service(options) and work.is_local:
        raise InputError(f"work is {work.uri}, expected gs://, which the engine's workers share")
    with _held(work):
        if not request.by_content:
            # Another extraction may have been done while this one waited for it.
            check_output(place, request.overwrite, SUMMARY, "folder of an extraction")
        jobs = jobs_of(listed.videos, ids, request.limits)
        extraction = Extraction(source, request.limits, request.pace, work)
        _extract(jobs, extraction, options, request.workers)
        refused = _refused(jobs, work)
        _check_failed(len(jobs), refused, request.max_failed, place)
        good = [(v, j) for v, j in zip(listed.videos, jobs, strict=True) if v.uri not in refused]
        extractor = known or fitted_extractor(good, ids, source, request.limits, work, options)
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


def _listed(request: Request) -> VideoList:
    names = request.vocabulary or vocabulary_beside(request.extractor)
    listed = read_video_list(request.videos, names, request.validate_share)
    counts = collections.Counter(video.split for video in listed.videos)
    splits = ", ".join(f"{count:,} {split}" for split, count in sorted(counts.items()))
    say(STEP, f"{len(listed.videos):,} videos of {request.videos}: {splits}")
    return listed


def _extract(
    jobs: Sequence[Job], extraction: Extraction, options: PipelineOptions, workers: int
) -> None:
    there = extraction.work.names()
    left = [job for job in jobs if job.file not in there]
    if len(left) < len(jobs):
        say(STEP, f"{len(jobs) - len(left):,} of {len(jobs):,} videos were done before")
    extract_videos(left, extraction, options, workers)


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


def _codes(
    good: Sequence[tuple[Video, Job]],
    extractor: FeatureExtractor,
    work: WorkFolder,
    options: PipelineOptions,
) -> list[tuple[Video, str]]:
    digest = extractor.digest
    coded = [(video, job.codes(digest)) for video, job in good]
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
