"""The Beam pass: a block of records is the element, accumulators merge.

Each record is read once. What is wrong with a record becomes an element of the output `bad` instead
of an exception: engines retry exceptions and bury them in their own.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import window
from apache_beam.utils.windowed_value import WindowedValue
from numpy.typing import NDArray

from components.statistics.engines import engine_errors, is_in_process, run_pipeline
from components.statistics.results import (
    BAD,
    COUNTED,
    DUPLICATES,
    STATISTICS,
    read_results,
    results_folder,
    write_results,
)
from components.statistics.shard_files import is_local, opened
from trainer import records, tfrecord, tfrecord_scan
from trainer.errors import InputError
from trainer.manifest import SPLITS, Manifest, Shard
from trainer.progress import Progress
from trainer.record_batch import parse_video_chunk, stored_id
from trainer.statistics.feature_statistics import FeatureStatistics
from trainer.statistics.findings import (
    BadRecord,
    Findings,
    IdBlock,
    find_duplicates,
)

BLOCK_BYTES = 64 << 20
"""Shards on a disk are read in blocks of about so many bytes, by as many workers as there are."""
IDS_A_PARTITION = 250_000
IDS = "ids"

_Counted = tuple[NDArray[np.int64], NDArray[np.bytes_], list[tuple[tfrecord.Record, InputError]]]
"""The numbers of the records that were counted, their ids, and the others with what is wrong."""


@dataclasses.dataclass(frozen=True)
class Block:
    """Records of a shard that are read in one go.

    Attributes:
        shard: its number in the manifest.
        first, offset: the first record and its first byte.
        count: records, by the manifest, that the block ends with; they end at byte `end` (None: at
            the end of the file).
    """

    shard: int
    first: int
    offset: int
    count: int
    end: int | None = None


def blocks_of(number: int, shard: Shard, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """The blocks of a shard: one, unless it is a large file of this machine."""
    if shard.bytes <= size or not is_local(shard.uri):
        yield Block(number, 0, 0, shard.records)
        return
    try:
        index = tfrecord.index_file(shard.path)
    except (InputError, OSError):  # the reader says what is wrong
        yield Block(number, 0, 0, shard.records)
        return
    # Of equal size: Beam hands elements out in turn, so that a small last one of each shard would
    # all go to the same worker.
    count = -(-shard.bytes // size)
    offsets = index.offsets
    cuts = np.searchsorted(offsets, np.arange(1, count) * (offsets[-1] / count))
    firsts = [0, *np.unique(cuts[(cuts > 0) & (cuts < len(index))]).tolist()]
    for first, following in itertools.pairwise(firsts):
        offset, end = int(offsets[first]), int(offsets[following])
        yield Block(number, first, offset, following - first, end)
    last = firsts[-1]
    yield Block(number, last, int(offsets[last]), max(0, shard.records - last))


class CollectBlocks(beam.DoFn):
    """Blocks → `(split, FeatureStatistics)`, one of each split and bundle.

    Further outputs: `counted`, of `(number of the shard, records)`; `bad`, of `BadRecord`; `ids`,
    of `(partition, IdBlock)`.
    """

    def __init__(self, manifest: Manifest, covariance: bool, progress: bool = False) -> None:
        self.level, self.num_classes = manifest.level, manifest.num_classes
        self.shards, self.covariance = manifest.shards, covariance
        self.records = sum(shard.records for shard in manifest.shards)
        self.partitions = max(1, -(-self.records // IDS_A_PARTITION))
        self.shows_progress = progress

    def setup(self) -> None:
        self.progress = Progress("statistics", self.records, "records")

    def start_bundle(self) -> None:
        self.by_split: dict[str, FeatureStatistics] = {}

    def process(self, block: Block) -> Iterator[Any]:
        shard = self.shards[block.shard]
        if shard.split not in self.by_split:
            self.by_split[shard.split] = FeatureStatistics(
                self.level, self.num_classes, self.covariance
            )
        statistics = self.by_split[shard.split]
        # Of the whole block: an element of its own for a few ids would cost more than they.
        numbers, ids = [], []
        for chunk in _chunks(shard, block):
            if isinstance(chunk, tfrecord_scan.Damage):
                yield self._bad(shard, block, chunk)
                continue
            counted = self._count_videos if self.level == records.VIDEO else self._count_frames
            chunk_numbers, chunk_ids, wrong = counted(chunk, statistics)
            numbers.append(chunk_numbers)
            ids.append(chunk_ids)
            for record, error in wrong:
                # Without the place, which a bad record has in fields of its own.
                reason = str(error).partition("): ")[2]
                yield beam.pvalue.TaggedOutput(
                    BAD, BadRecord(shard.split, shard.uri, record.index, record.offset, reason)
                )
        if numbers:
            yield beam.pvalue.TaggedOutput(COUNTED, (block.shard, sum(map(len, numbers))))
            all_ids = IdBlock(
                SPLITS.index(shard.split),
                block.shard,
                np.concatenate(numbers),
                np.concatenate(ids),
            )
            for by_partition in all_ids.partitioned(self.partitions):
                yield beam.pvalue.TaggedOutput(IDS, by_partition)
        if self.shows_progress:
            self.progress.advance(block.count, shard.uri.rpartition("/")[2])

    def finish_bundle(self) -> Iterator[Any]:
        for split, statistics in self.by_split.items():
            yield WindowedValue(
                (split, statistics), window.GlobalWindow().max_timestamp(), [window.GlobalWindow()]
            )
        self.by_split = {}

    def _bad(self, shard: Shard, block: Block, damage: tfrecord_scan.Damage) -> Any:
        rest = block.first + block.count - damage.record
        lost = max(1, rest) if damage.whole_rest else 1
        return beam.pvalue.TaggedOutput(
            BAD,
            BadRecord(shard.split, shard.uri, damage.record, damage.offset, damage.reason, lost),
        )

    def _count_videos(self, chunk: tfrecord_scan.Chunk, statistics: FeatureStatistics) -> _Counted:
        batch, wrong = parse_video_chunk(chunk, self.num_classes)
        statistics.add_batch(batch)
        statistics.bytes += batch.bytes + len(batch) * tfrecord.FRAME_BYTES
        for record, _ in wrong:
            values = records.values_if_not_finite(record)
            if values is not None:
                statistics.add_non_finite(values)
        return batch.numbers, batch.ids, wrong

    def _count_frames(self, chunk: tfrecord_scan.Chunk, statistics: FeatureStatistics) -> _Counted:
        wrong: list[tuple[tfrecord.Record, InputError]] = []
        numbers, ids = [], []
        for record in chunk:
            try:
                video = records.parse_checked(record, records.FRAME, self.num_classes)
            except InputError as error:
                wrong.append((record, error.with_traceback(None)))
                continue
            statistics.add([video])
            statistics.bytes += len(record.payload) + tfrecord.FRAME_BYTES
            numbers.append(record.index)
            ids.append(stored_id(video.video_id))
        return np.array(numbers, np.int64), np.array(ids, np.bytes_), wrong


def _chunks(shard: Shard, block: Block) -> Iterator[tfrecord_scan.Chunk | tfrecord_scan.Damage]:
    """The records of a block; what can not be read of it."""
    try:
        with opened(shard.uri) as (file, length):
            file.seek(block.offset)
            yield from tfrecord_scan.scan_chunks(
                file, shard.uri, length, block.first, block.offset, block.end
            )
    except FileNotFoundError:
        yield tfrecord_scan.Damage(block.first, block.offset, "no such file", whole_rest=True)
    except OSError as error:
        reason = f"can not be opened: {error.strerror or error}"
        yield tfrecord_scan.Damage(block.first, block.offset, reason, whole_rest=True)


class MergeStatistics(beam.CombineFn):
    """Merges statistics; the accumulator may be mutated, inputs may not."""

    def __init__(self, level: records.Level, num_classes: int, covariance: bool = False) -> None:
        self.arguments = level, num_classes, covariance

    def create_accumulator(self) -> FeatureStatistics:
        return FeatureStatistics(*self.arguments)

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


@beam.ptransform_fn
def ComputeStatistics(  # noqa: N802
    shards: Any, manifest: Manifest, covariance: bool, progress: bool = False
) -> Any:
    """Numbers of shards → `statistics` by split, records `counted` by shard, `bad` ones,
    `duplicates` of ids."""
    collect = CollectBlocks(manifest, covariance, progress)
    results = (
        shards
        | "Blocks" >> beam.FlatMap(lambda number: blocks_of(number, manifest.shards[number]))
        | "SpreadBlocks" >> beam.Reshuffle()
        | "Collect" >> beam.ParDo(collect).with_outputs(COUNTED, BAD, IDS, main=STATISTICS)
    )
    merge = MergeStatistics(manifest.level, manifest.num_classes, covariance)
    return {
        STATISTICS: results.statistics | "Merge" >> beam.CombinePerKey(merge),
        COUNTED: results[COUNTED] | "SumByShard" >> beam.CombinePerKey(sum),
        BAD: results[BAD],
        DUPLICATES: results[IDS]
        | "GroupIds" >> beam.GroupByKey()
        | "FindDuplicates" >> beam.MapTuple(lambda _, blocks: find_duplicates(list(blocks))),
    }


def run_pass(
    manifest: Manifest, options: PipelineOptions, covariance: bool, bad_records: str
) -> Findings:
    """Read every record of the manifest.

    Args:
        manifest: of the data; its URIs must be readable by the engine's workers.
        options: of the engine. Workers on other machines write their results below its
            `temp_location`.
        covariance: whether to compute it.
        bad_records: a file of this machine to write: each bad record as a line of JSON, by split,
            shard and number.

    Raises:
        InputError: the engine can not be reached, or lost a worker.
    """
    progress = is_in_process(options)
    with results_folder(options) as folder, engine_errors(options):

        def build(pipeline: beam.Pipeline) -> None:
            results = (
                pipeline
                | "Shards" >> beam.Create(range(len(manifest.shards)), reshuffle=True)
                | "ComputeStatistics" >> ComputeStatistics(manifest, covariance, progress)
            )
            write_results(results, folder)

        run_pipeline(build, options, "statistics")
        return read_results(folder, manifest, bad_records)
