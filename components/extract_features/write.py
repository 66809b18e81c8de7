"""What an extraction leaves: shards, their manifest, and what became of each video."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.download.extras import VOCABULARY
from components.download.local_store import md5_of
from components.extract_features.video_list import Video, VideoList
from components.extract_features.work_folder import WorkFolder
from trainer import records
from trainer.feature_networks.feature_extractor import FEATURE_EXTRACTOR, FeatureExtractor
from trainer.manifest import MANIFEST, SPLITS, Manifest, Shard, digest_of_files
from trainer.vocabulary import COLUMNS, Vocabulary

VIDEOS, FAILED, SUMMARY = "videos.jsonl", "failed.jsonl", "summary.json"
"""What each record was made of; the dead letters, each with its reason; the whole in numbers."""
_FEWEST_SHARDS = 4
"""So that a training can keep one out, and readers share the work."""


def write_shards(
    folder: Path,
    found: Sequence[tuple[Video, str]],
    work: WorkFolder,
    extractor: FeatureExtractor,
    shard_videos: int,
) -> Iterator[tuple[str, Path, int, list[dict[str, Any]]]]:
    """Write records in shards of so many, by split and in the list's order.

    Args:
        folder: to write into, a folder for each split.
        found: videos that have features, each with the work folder's file of its codes.
        work: that folder.
        extractor: that made them.
        shard_videos: records a shard at most; a split has at least four, if it has as many videos.

    Yields:
        Of each shard the split, the file, how many records it has, and what they were made of.
    """
    for split in SPLITS:
        of_split = [one for one in found if one[0].split == split]
        size = max(1, min(shard_videos, -(-len(of_split) // _FEWEST_SHARDS)))
        for number, start in enumerate(range(0, len(of_split), size)):
            path = folder / split / f"{split}{number:05}.tfrecord"
            path.parent.mkdir(exist_ok=True)
            facts: list[dict[str, Any]] = []
            part = of_split[start : start + size]
            count = records.write_records(path, _payloads(part, work, extractor, facts))
            for one in facts:
                one["shard"] = f"{split}/{path.name}"
            yield split, path, count, facts


def _payloads(
    videos: Iterable[tuple[Video, str]],
    work: WorkFolder,
    extractor: FeatureExtractor,
    facts: list[dict[str, Any]],
) -> Iterator[bytes]:
    mark, digest = extractor.mark, extractor.digest
    for video, file in videos:
        about, codes = work.read(file)
        facts.append(_facts(video, about))
        yield records.encode(
            records.VideoRecord(
                video.video_id,
                np.array(video.labels, np.int64),
                codes["rgb"],
                codes["audio"],
                mark=mark,
                silent=not about["has_audio"],
                extractor=digest,
            )
        )


def _facts(video: Video, about: dict[str, Any]) -> dict[str, Any]:
    return {"video": video.uri, "id": video.video_id, "split": video.split, **about}


def write_lines(path: Path, content: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(one, allow_nan=False)}\n" for one in content)


def write_failed(path: Path, refused: dict[str, str]) -> None:
    """Write the dead letters: of each video's URI why it has no features."""
    write_lines(path, ({"video": uri, "reason": reason} for uri, reason in refused.items()))


def write_vocabulary(path: Path, vocabulary: Vocabulary, videos: Iterable[Video]) -> None:
    """The classes' names in YouTube-8M's columns, with how many videos of train have each."""
    counts = np.zeros(vocabulary.num_classes, np.int64)
    for video in videos:
        counts[list(video.labels)] += video.split == "train"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for index, (name, verticals) in enumerate(
            zip(vocabulary.names, vocabulary.verticals, strict=True)
        ):
            three = [*verticals, "", ""][:3]
            rows.writerow([index, counts[index], "", name, "", *three, ""])


def write_manifest(
    partial: Path,
    place: Path,
    source: str,
    listed: VideoList,
    extractor: FeatureExtractor,
    shards: Iterable[tuple[Path, str, int]],
) -> Manifest:
    """Write `manifest.json`, the vocabulary and the feature extractor beside the shards.

    Args:
        partial: folder that is being filled.
        place: where it will be.
        source: of the videos.
        listed: they.
        extractor: that made the features.
        shards: of each the file in `partial`, its split and how many records it has.
    """
    write_vocabulary(partial / VOCABULARY, listed.vocabulary, listed.videos)
    extractor.write(partial)
    manifest = Manifest(
        source=source,
        level=records.FRAME,
        num_classes=listed.vocabulary.num_classes,
        shards=tuple(
            _shard(path, place / path.relative_to(partial), split, count)
            for path, split, count in shards
        ),
        vocabulary=str(place / VOCABULARY),
        content=digest_of_files([partial / VOCABULARY, partial / FEATURE_EXTRACTOR]),
        feature_extractor=str(place / FEATURE_EXTRACTOR),
        features_mark=extractor.mark,
    )
    manifest.write(partial / MANIFEST)
    return manifest


def _shard(path: Path, place: Path, split: str, count: int) -> Shard:
    return Shard(split, str(place), path.stat().st_size, md5_of(path), count)
