"""Prediction by Beam: workers read windows of shards, score them, and leave a file for each shard.

The windows and their batches are those of the direct way, so the answers are, too.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.ml.inference.base import RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from components.predict.beam_inference import ExportedModelHandler
from components.predict.scoring import Outcome, Settings, of_json, to_json
from components.predict.windows import InputShard, Piece, Window, pieces_of, read_windows
from components.statistics.engines import (
    beam_says_nothing,
    engine_errors,
    is_in_process,
    run_pipeline,
)
from components.statistics.results import results_folder
from trainer.errors import InputError
from trainer.progress import Progress, say

REFUSED = "refused"

Numbered = tuple[int, tuple[int, str]]
"""Of an outcome: the shard's number, the record's, and itself as a line."""


class ReadWindows(beam.DoFn):
    """Pieces of shards → the records of each window; what is refused goes to another output."""

    def __init__(self, shards: list[InputShard], size: int, progress: bool = False) -> None:
        self._shards, self._size, self._shows_progress = shards, size, progress

    def setup(self) -> None:
        total = sum(shard.bytes for shard in self._shards)
        self._progress = Progress("predict", max(1, total >> 20), "MB")
        self._done = 0

    def process(self, piece: Piece) -> Iterator[Any]:
        before = piece.offset
        for window in read_windows(self._shards[piece.shard].uri, self._size, piece):
            yield from self._parts(window)
            # Asked for more, what came before is scored: the steps are one in a worker.
            self._done += max(0, window.end - before)
            before = window.end
            if self._shows_progress and self._done >> 20 > self._progress.done:
                self._progress.advance((self._done >> 20) - self._progress.done)

    def _parts(self, window: Window) -> Iterator[Any]:
        if window.records:
            yield window.records
        for one in window.refused:
            yield beam.pvalue.TaggedOutput(REFUSED, one)


class WriteShard(beam.DoFn):
    """The outcomes of a shard → its file, a line each by number; written again it is the same."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, found: tuple[int, Iterable[tuple[int, str]]]) -> None:
        number, lines = found
        with FileSystems.create(_part(self._folder, number), "text/plain") as file:
            for _, line in sorted(lines):
                file.write(f"{line}\n".encode())


@beam.ptransform_fn
def PredictShards(  # noqa: N802
    numbers: Any,
    model: Path,
    shards: list[InputShard],
    settings: Settings,
    folder: str,
    progress: bool = False,
) -> Any:
    """Numbers of shards → a file for each in `folder`."""
    by_uri = {shard.uri: number for number, shard in enumerate(shards)}

    def numbered(outcome: Outcome) -> Numbered:
        return by_uri[outcome.uri], (outcome.record, to_json(outcome))

    size = settings.window
    read = (
        numbers
        | "Pieces" >> beam.FlatMap(lambda number: pieces_of(number, shards[number], size))
        | "SpreadPieces" >> beam.Reshuffle()
        | "ReadWindows"
        >> beam.ParDo(ReadWindows(shards, size, progress)).with_outputs(REFUSED, main="windows")
    )
    # Batches of their own making: which records share one must not depend on the workers.
    handler = ExportedModelHandler(model, settings).with_no_batching()
    scored = read.windows | "Score" >> RunInference(handler)
    return (
        (scored, read[REFUSED])
        | "All" >> beam.Flatten()
        | "Number" >> beam.Map(numbered)
        | "ByShard" >> beam.GroupByKey()
        | "WriteShard" >> beam.ParDo(WriteShard(folder))
    )


def predict_by_beam(
    model: Path, shards: list[InputShard], settings: Settings, options: PipelineOptions
) -> Generator[list[Outcome], None, None]:
    """The outcomes of all records, by shard and number, after all of them were scored.

    Args:
        model: folder that the engine's workers can read.
        shards: that they can, too.
        settings: how to score.
        options: of the engine. Workers on other machines write below its `temp_location`.

    Raises:
        InputError: the engine can not be reached, lost a worker, or its workers share no place to
            write with this machine.
    """
    progress = is_in_process(options)
    if not progress:
        say("predict", "workers score; the next line comes when they are done")
    quiet = beam_says_nothing() if progress else contextlib.nullcontext()
    with quiet, results_folder(options, "predict") as folder, engine_errors(options):

        def build(pipeline: beam.Pipeline) -> None:
            _ = (
                pipeline
                | "Shards" >> beam.Create(range(len(shards)), reshuffle=True)
                | "Predict" >> PredictShards(model, shards, settings, folder, progress)
            )

        run_pipeline(build, options, "predict")
        joined = Progress("predict", len(shards), "shards joined")
        for number in range(len(shards)):
            yield from _read(_part(folder, number), settings.window)
            joined.advance()


def _part(folder: str, number: int) -> str:
    return f"{folder}/{number:08}.jsonl"


def _read(part: str, size: int) -> Iterator[list[Outcome]]:
    if not FileSystems.exists(part):
        raise InputError(
            f"the engine's workers did not leave {part}, in a folder which they do not share with "
            "this machine; give --temp_location, a place where all of them can write"
        )
    with FileSystems.open(part, compression_type="uncompressed") as file:
        lines = iter(file.readline, b"")
        while some := list(itertools.islice(lines, size)):
            yield [of_json(line.decode()) for line in some]
