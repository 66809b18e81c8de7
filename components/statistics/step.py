"""Feature statistics with Beam: a shard is the element, accumulators merge."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from components.statistics.report import statistics_page
from trainer import records
from trainer.anomalies import find_anomalies
from trainer.errors import InputError
from trainer.files import atomic_file
from trainer.manifest import Manifest, Shard, read_manifest
from trainer.progress import Progress, say
from trainer.statistics import (
    FeatureStatistics,
    collect,
    read_statistics,
    write_statistics,
)

IN_PROCESS_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""Beam's own engine in this process. `DirectRunner` may fetch and start another one (Prism)."""


class CollectShard(beam.DoFn):
    """Read one shard with the strict reader: `(split, FeatureStatistics)`, or its first error.

    An error becomes an element of the output `errors` instead of an exception: engines retry
    exceptions and bury them in their own.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.level, self.num_classes = manifest.level, manifest.num_classes
        self.shards = len(manifest.shards)

    def setup(self) -> None:
        # Of this worker: in one process, which is where a person watches, of the whole.
        self.progress = Progress("statistics", self.shards, "shards")

    def process(self, shard: Shard) -> Iterator[Any]:
        statistics = FeatureStatistics(self.level, self.num_classes)
        try:
            videos = records.read_videos(shard.path, self.level, self.num_classes)
            collect(videos, statistics)
        except InputError as error:
            yield beam.pvalue.TaggedOutput("errors", str(error))
            return
        self.progress.advance(note=shard.path.name)
        yield shard.split, statistics


class MergeStatistics(beam.CombineFn):
    """Merges the statistics of shards; the accumulator may be mutated, inputs may not."""

    def __init__(self, level: records.Level, num_classes: int) -> None:
        self.level, self.num_classes = level, num_classes

    def create_accumulator(self) -> FeatureStatistics:
        return FeatureStatistics(self.level, self.num_classes)

    def add_input(
        self, accumulator: FeatureStatistics, element: FeatureStatistics
    ) -> FeatureStatistics:
        return accumulator.merge(element)

    def merge_accumulators(self, accumulators: Iterable[FeatureStatistics]) -> FeatureStatistics:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def extract_output(self, accumulator: FeatureStatistics) -> FeatureStatistics:
        return accumulator


def run_statistics(
    examples: str, example_statistics: str, report: str, beam_pipeline_args: list[str]
) -> dict[str, Any]:
    """Read every record of the manifest; write statistics and the HTML report.

    Args:
        examples: folder of the manifest.
        example_statistics: folder to write, see `trainer.statistics.write_statistics`.
        report: HTML file to write.
        beam_pipeline_args: options of the engine; none: in this process. Workers must share this
            machine's file system.

    Returns:
        The content of `statistics.json`.

    Raises:
        InputError: bad records (the first is named, and how many shards have some), or an anomaly
            of severity error.
    """
    manifest = read_manifest(examples)
    by_split, errors = compute_statistics(manifest, beam_pipeline_args)
    if errors:
        more = f" (and {len(errors) - 1} more shards with bad records)" if len(errors) > 1 else ""
        raise InputError(f"{errors[0]}{more}")
    anomalies = find_anomalies(manifest, by_split)
    severe = [a.description for a in anomalies if a.severity == "error"]
    if severe:
        raise InputError("; ".join(severe))
    write_statistics(example_statistics, manifest, by_split, anomalies)
    summary, arrays = read_statistics(example_statistics, manifest.fingerprint)
    with atomic_file(report) as partial:
        partial.write_text(statistics_page(manifest, summary, arrays), encoding="utf-8")
    total = sum(statistics.records for statistics in by_split.values())
    frames = sum(split["frames"] for split in summary["splits"].values())
    say(
        "statistics",
        f"read {total:,} records, {frames:,} frames: counts agree with the manifest, "
        f"{len(anomalies)} warnings",
    )
    for anomaly in anomalies:
        say("statistics", f"{anomaly.severity}: {anomaly.description}")
    return summary


def compute_statistics(
    manifest: Manifest, beam_pipeline_args: list[str]
) -> tuple[dict[str, FeatureStatistics], list[str]]:
    """Statistics by split, and the first error of each shard that has one, sorted."""
    level, num_classes = manifest.level, manifest.num_classes
    options = PipelineOptions([f"--runner={IN_PROCESS_RUNNER}", *beam_pipeline_args])
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(options=options) as pipeline:
            results = (
                pipeline
                | "Shards" >> beam.Create(manifest.shards, reshuffle=True)
                | "Collect"
                >> beam.ParDo(CollectShard(manifest)).with_outputs("errors", main="statistics")
            )
            _ = (
                results.statistics
                | "Merge" >> beam.CombinePerKey(MergeStatistics(level, num_classes))
                | "Pickle" >> beam.MapTuple(lambda split, s: pickle.dumps((split, s)))
                | "WriteStatistics" >> beam.io.WriteToTFRecord(f"{folder}/statistics")
            )
            _ = results.errors | "WriteErrors" >> beam.io.WriteToText(f"{folder}/errors")
        # Pickles of our own, from a folder that only this process knows.
        payloads = [r.payload for path in _parts(folder, "statistics") for r in _records(path)]
        by_split = dict(sorted(pickle.loads(payload) for payload in payloads))
        errors = [
            line for path in _parts(folder, "errors") for line in path.read_text().splitlines()
        ]
    return by_split, sorted(errors)


def _parts(folder: str, name: str) -> list[Path]:
    return sorted(Path(folder).glob(f"{name}*"))


def _records(path: Path) -> Iterator[records.Record]:
    """Records of a file that Beam wrote, which has no bytes where there was nothing to write."""
    return records.read_records(path) if path.stat().st_size else iter(())
