"""What the pass found, from the engine's workers to this process: through files that both see."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from trainer import tfrecord, tfrecord_scan
from trainer.errors import InputError
from trainer.manifest import SPLITS, Manifest
from trainer.statistics.feature_statistics import FeatureStatistics
from trainer.statistics.findings import BadRecord, BadRecords, Duplicates, Findings

STATISTICS, COUNTED, BAD, DUPLICATES = "statistics", "counted", "bad", "duplicates"
"""Outputs of the pass, and how their files' names start."""
_IN_MEMORY = 100_000


@contextlib.contextmanager
def results_folder(options: PipelineOptions, name: str = "statistics") -> Iterator[str]:
    """A folder that only this run knows, where the engine's workers can write; removed after it.

    Args:
        options: of the engine; of its `temp_location` the folder is, if there is one.
        name: how the folder's begins there.
    """
    shared = options.view_as(GoogleCloudOptions).temp_location
    if not shared:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
        return
    folder = FileSystems.join(shared, f"{name}-{uuid.uuid4().hex}")
    try:
        yield folder
    finally:
        # What can not be tidied up must not hide why the pass ended.
        with contextlib.suppress(Exception):
            FileSystems.delete([folder] if "://" not in folder else [f"{folder}/"])


def write_results(results: Mapping[str, Any], folder: str) -> None:
    """Write the outputs of the pass, a PCollection each, into a folder; part of the pipeline."""
    _ = (
        results[STATISTICS]
        | "Serialise" >> beam.MapTuple(lambda split, one: _with_name(split, one.to_bytes()))
        | "WriteStatistics" >> beam.io.WriteToTFRecord(f"{folder}/{STATISTICS}")
    )
    _ = (
        results[COUNTED]
        | "CountedAsJson" >> beam.Map(json.dumps)
        | "WriteCounted" >> beam.io.WriteToText(f"{folder}/{COUNTED}")
    )
    _ = (
        results[BAD]
        | "BadAsJson" >> beam.Map(BadRecord.to_json)
        | "WriteBad" >> beam.io.WriteToText(f"{folder}/{BAD}")
    )
    _ = (
        results[DUPLICATES]
        | "DuplicatesAsJson" >> beam.Map(Duplicates.to_json)
        | "WriteDuplicates" >> beam.io.WriteToText(f"{folder}/{DUPLICATES}")
    )


def read_results(folder: str, manifest: Manifest, bad_records: str) -> Findings:
    """Read them after the pipeline's end.

    Args:
        folder: that they were written into.
        manifest: of the data.
        bad_records: a file of this machine to write: each bad record as a line of JSON, by split,
            shard and number.

    Raises:
        InputError: there is nothing in the folder: the workers write to another place.
    """
    # Beam writes a file even where there was nothing to write.
    if not any(True for _ in _written_files(folder, STATISTICS)):
        raise InputError(
            f"the engine's workers left nothing in {folder}, which they do not share with this "
            "machine; give --temp_location, a place where all of them can write"
        )
    by_split: dict[str, FeatureStatistics] = {}
    for record in _written_records(folder, STATISTICS):
        split, data = _split_name(record.payload)
        one = FeatureStatistics.of_bytes(data)
        by_split[split] = by_split[split].merge(one) if split in by_split else one
    bad = BadRecords.of(_copied(_in_order(_written_lines(folder, BAD)), bad_records))
    by_shard: dict[str, int] = {}
    for line in _written_lines(folder, COUNTED):
        shard, count = json.loads(line)
        uri = manifest.shards[shard].uri
        by_shard[uri] = by_shard.get(uri, 0) + count
    duplicates = Duplicates()
    for line in _written_lines(folder, DUPLICATES):
        duplicates = duplicates.merge(Duplicates.of_json(line))
    order = sorted(by_split, key=SPLITS.index)
    counted = {split: by_split[split] for split in order if by_split[split].records}
    return Findings(counted, by_shard, bad, duplicates)


def _with_name(name: str, data: bytes) -> bytes:
    return name.encode() + b"\n" + data


def _split_name(payload: bytes) -> tuple[str, bytes]:
    name, _, data = payload.partition(b"\n")
    return name.decode(), data


def _written_files(folder: str, name: str) -> Iterator[Any]:
    (match,) = FileSystems.match([f"{folder}/{name}*"])
    for one in sorted(match.metadata_list, key=lambda metadata: metadata.path):
        with FileSystems.open(one.path, compression_type="uncompressed") as file:
            yield file, one


def _written_records(folder: str, name: str) -> Iterator[tfrecord.Record]:
    for file, one in _written_files(folder, name):
        # Beam writes a file without a byte where there was nothing to write.
        for record in tfrecord_scan.scan_records(file, one.path, one.size_in_bytes):
            if isinstance(record, tfrecord.Record):
                yield record
            elif one.size_in_bytes:
                raise InputError(f"{one.path}: {record.reason}")


def _written_lines(folder: str, name: str) -> Iterator[str]:
    for file, _ in _written_files(folder, name):
        for line in iter(file.readline, b""):
            yield line.decode().rstrip("\n")


def _in_order(lines: Iterable[str]) -> Iterator[BadRecord]:
    """Bad records by split, shard and number; any number of them, in memory for some."""
    read = map(BadRecord.of_json, lines)
    with contextlib.ExitStack() as files:
        runs = []
        while some := sorted(itertools.islice(read, _IN_MEMORY)):
            run = files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
            run.writelines(f"{one.to_json()}\n" for one in some)
            run.seek(0)
            runs.append(map(BadRecord.of_json, run))
        yield from heapq.merge(*runs)


def _copied(bad: Iterable[BadRecord], path: str) -> Iterator[BadRecord]:
    """The same, each also written into a file as a line of JSON."""
    with open(path, "w", encoding="utf-8") as file:
        for one in bad:
            file.write(f"{one.to_json()}\n")
            yield one
