"""The statistics pass against reading alone, against tf.data, and against a pass by records.

`python -m benchmarks.statistics_pass`: in turn, on the same files, each on one core; then the pass
by two worker processes against one.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from numpy.typing import NDArray

from benchmarks.synthetic import synthetic_manifest
from benchmarks.timing import machine, time_in_turn
from components.statistics.beam_pass import run_pass
from components.statistics.engines import IN_PROCESS_RUNNER, engine_options
from trainer import records, tensor_records
from trainer.example_proto import SequenceExample
from trainer.manifest import Manifest


def raw(paths: list[str]) -> None:
    for _ in tf.data.TFRecordDataset(paths, buffer_size=1 << 20).batch(256):
        pass


def with_tensorflow(paths: list[str], frames: int) -> None:
    """Read and parsed a batch at a time; nothing is computed."""

    def parse(serialized: Any) -> Any:
        if frames:
            parsed = tensor_records.parse_frame_batch(serialized, frames)
            return parsed["rgb"], parsed["audio"]
        parsed = tensor_records.parse_video_batch(serialized)
        return parsed["mean_rgb"], parsed["mean_audio"]

    dataset = tf.data.TFRecordDataset(paths, buffer_size=1 << 20).batch(32 if frames else 256)
    for _ in dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2):
        pass


class Moments(beam.CombineFn):
    """Count, sum, sum of squares, minimum and maximum of each dimension, a record at a time."""

    def create_accumulator(self) -> tuple[int, NDArray[Any], NDArray[Any], Any, Any]:
        size = records.FEATURE_SIZE
        return 0, np.zeros(size), np.zeros(size), np.full(size, np.inf), np.full(size, -np.inf)

    def add_input(self, accumulator: Any, element: NDArray[Any]) -> Any:
        rows = np.atleast_2d(element).astype(np.float64)
        own = (len(rows), rows.sum(0), np.square(rows).sum(0), rows.min(0), rows.max(0))
        return self.merge_accumulators([accumulator, own])

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        counts, sums, squares, least, most = zip(*accumulators, strict=True)
        merged = (np.sum(part, axis=0) for part in (counts, sums, squares))
        return (*merged, np.min(least, axis=0), np.max(most, axis=0))

    def extract_output(self, accumulator: Any) -> Any:
        return accumulator


def _values(payload: bytes) -> NDArray[Any]:
    message = SequenceExample.FromString(payload)
    context, lists = message.context.feature, message.feature_lists.feature_list
    if records.MEAN_RGB_KEY in context:
        keys = (records.MEAN_RGB_KEY, records.MEAN_AUDIO_KEY)
        return np.concatenate([np.array(context[k].float_list.value, np.float32) for k in keys])
    parts = []
    for key, size in ((records.RGB_KEY, records.RGB_SIZE), (records.AUDIO_KEY, records.AUDIO_SIZE)):
        joined = b"".join(frame.bytes_list.value[0] for frame in lists[key].feature)
        parts.append(np.frombuffer(joined, np.uint8).reshape(-1, size))
    return records.dequantise(np.concatenate(parts, axis=1))


def by_records(paths: list[str]) -> None:
    """What is usual in Beam: a record is the element."""
    with beam.Pipeline(options=PipelineOptions([f"--runner={IN_PROCESS_RUNNER}"])) as pipeline:
        _ = (
            pipeline
            | beam.Create(paths)
            | beam.io.ReadAllFromTFRecord()
            | beam.Map(_values)
            | beam.CombineGlobally(Moments())
            | beam.Map(lambda _: None)
        )


def ours(manifest: Manifest, *arguments: str) -> None:
    """The whole pass: everything that it counts, with Beam's start and end."""
    with tempfile.NamedTemporaryFile() as bad_records:
        options = engine_options(arguments or [f"--runner={IN_PROCESS_RUNNER}"])
        findings = run_pass(manifest, options, False, bad_records.name)
    expected = sum(shard.records for shard in manifest.shards)
    assert findings.by_split["train"].records == expected, findings.bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[0, 300], help="0: video level")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument(
        "--videos", type=int, default=0, help="of a shard; 0: 8,000, or 300 of 300 frames"
    )
    parser.add_argument("--times", type=int, default=96, help="the files over, for two workers")
    parser.add_argument("--one-core-times", type=int, default=16, help="the same, on one core")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    print(f"{machine()}; TensorFlow {tf.__version__}, Beam {beam.__version__}")
    for frames in arguments.frames:
        videos = arguments.videos or (300 if frames else 8000)
        with tempfile.TemporaryDirectory() as folder:
            manifest = synthetic_manifest(Path(folder), arguments.shards, videos, frames)
            os.sched_setaffinity(0, cores[:1])  # the threads that are started later, too
            _one_core(_times(manifest, arguments.one_core_times), frames, arguments.rounds)
            os.sched_setaffinity(0, cores)
            if len(cores) > 1 and arguments.times:
                _two_workers(_times(manifest, arguments.times))


def _times(manifest: Manifest, times: int) -> Manifest:
    """The same files several times: more data than there is room for."""
    return dataclasses.replace(manifest, shards=manifest.shards * times)


def _one_core(manifest: Manifest, frames: int, rounds: int) -> None:
    paths = [shard.uri for shard in manifest.shards]
    things: dict[str, Callable[[], None]] = {
        "raw TFRecord read": lambda: raw(paths),
        "tf.data, parsed by batch": lambda: with_tensorflow(paths, frames),
        "Beam, a record an element": lambda: by_records(paths),
        "the pass": lambda: ours(manifest),
    }
    timed = time_in_turn(things, rounds, warm_up=1)
    count = sum(shard.records for shard in manifest.shards)
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    print(f"\n{count:,} {manifest.level}-level records, {size:,.0f} MB, one core")
    print(f"{'':30} records/s     MB/s  spread  the pass ×")
    own = timed["the pass"].median
    for name, one in timed.items():
        print(
            f"{name:30} {count / one.median:9,.0f} {size / one.median:8,.0f} {one.spread:7.1%} "
            f"{one.median / own:11.2f}"
        )


def _two_workers(manifest: Manifest) -> None:
    processes = "--direct_running_mode=multi_processing"
    timed = time_in_turn(
        {
            "one worker": lambda: ours(manifest, processes, "--direct_num_workers=1"),
            "two workers": lambda: ours(manifest, processes, "--direct_num_workers=2"),
        },
        rounds=1,
        warm_up=0,
    )
    size = sum(shard.bytes for shard in manifest.shards) / 1e6
    one, two = (timed[name].median for name in ("one worker", "two workers"))
    print(f"{size:,.0f} MB: one worker process {one:.1f} s, two {two:.1f} s: {one / two:.2f} ×")


if __name__ == "__main__":
    main()
