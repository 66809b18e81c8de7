"""Predict on shards with an exported model, and write what a person and the challenge read."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.predict.beam_pass import predict_by_beam
from components.predict.direct import predict_directly
from components.predict.inputs import (
    chosen_top_k,
    digest_of_model,
    examples_beside,
    find_model,
    find_shards,
)
from components.predict.prediction_files import SUMMARY, PredictionFiles
from components.predict.scoring import Settings
from components.predict.table import table_of
from components.statistics.engines import arguments_of, engine_options
from trainer.errors import InputError
from trainer.files import atomic_directory, check_output, write_json
from trainer.progress import duration, say

DIRECT, BEAM = "direct", "beam"
ENGINES = (DIRECT, BEAM)


@dataclasses.dataclass(frozen=True)
class Request:
    """What to predict on, and how.

    Attributes:
        model: folder of the export step; empty: of the newest run.
        data: as `components.predict.inputs.find_shards` takes it; empty: the examples of the run
            that made the model.
        split: of a manifest.
        runs: folder of runs.
        overwrite: whether an output folder that exists is replaced.
        skip_damaged: whether records without an answer are passed over.
        segments: whether timelines are wanted.
        top_k: classes of a video and of a window; None: as many as the model gives.
        batch_size: videos at once, at most.
        engine: direct or beam.
        workers: processes of this machine, of Beam's own engine.
        beam_arguments: Beam's options.
    """

    model: str = ""
    data: str = ""
    split: str = "validate"
    runs: str = "runs"
    overwrite: bool = False
    skip_damaged: bool = False
    segments: bool = False
    top_k: int | None = None
    batch_size: int = 64
    engine: str = DIRECT
    workers: int = 1
    beam_arguments: Sequence[str] = ()


def run_predict(request: Request, output: str | Path) -> dict[str, Any]:
    """Write `predictions.csv`, `predictions.jsonl` and `summary.json`, all or none.

    With `segments` also `segments.csv` and `segments.jsonl`; `refused.jsonl` where records were
    passed over.

    Args:
        request: what and how.
        output: folder to write.

    Returns:
        The content of `summary.json`.

    Raises:
        InputError: a request that can not be met, or a record that has no answer.
    """
    _check(request, Path(output))
    model = find_model(request.model, request.runs)
    folder, top_k = model.folder, chosen_top_k(request.top_k, model)
    if request.segments and not model.has_segments:
        raise InputError(f"{folder}: gives no timeline: it takes {model.level}-level records")
    data = request.data or examples_beside(folder)
    shards = find_shards(data, request.split, model)
    say("predict", f"{len(shards):,} shard{'' if len(shards) == 1 else 's'} of {data}")
    settings = Settings(request.batch_size, request.segments, top_k)
    start = time.monotonic()
    if request.engine == BEAM:
        options = engine_options(arguments_of(request.workers, request.beam_arguments))
        outcomes = predict_by_beam(folder, shards, settings, options)
    else:
        outcomes = predict_directly(model, shards, settings)
    with atomic_directory(output) as partial:
        files = PredictionFiles(
            partial, model.num_classes, model.top_k, top_k, request.segments, request.skip_damaged
        )
        with files, contextlib.closing(outcomes):
            for some in outcomes:
                files.add(some)
            files.finish()
        seconds = time.monotonic() - start
        summary = {
            "videos": files.videos,
            "refused": files.refused,
            "shards": len(shards),
            "seconds": round(seconds, 2),
            "videos_per_second": round(files.videos / seconds, 1),
            "engine": request.engine,
            **files.gap(),
            "data": data,
            "model": {
                "folder": str(folder),
                "digest": digest_of_model(folder),
                **{name: model.about[name] for name in (
                    "level", "top_k", "num_classes", "max_frames", "data_fingerprint",
                    "vocabulary_digest",
                )},
            },
            "first_refused": [one.as_dict() for one in files.listed],
        }  # fmt: skip
        write_json(partial / SUMMARY, summary)
    _say_result(summary, files, str(output))
    return summary


def _check(request: Request, output: Path) -> None:
    check_output(output, request.overwrite, SUMMARY, "folder of predictions")
    if request.engine not in ENGINES:
        raise InputError(f"engine is {request.engine!r}, expected {' or '.join(ENGINES)}")
    for name in ("batch_size", "workers"):
        if getattr(request, name) < 1:
            raise InputError(f"{name} is {getattr(request, name)}, expected at least 1")
    if request.engine == DIRECT and (request.workers > 1 or request.beam_arguments):
        raise InputError("workers and Beam's options are of --engine beam")


def _say_result(summary: dict[str, Any], files: PredictionFiles, output: str) -> None:
    print(f"\n{table_of(files.first)}\n", flush=True)
    if summary["refused"]:
        say("predict", f"passed over {summary['refused']:,} records, the first: "
            f"{files.listed[0].error()}")  # fmt: skip
    gap = f", GAP@20 {summary['gap_at_20']:.4f}" if "gap_at_20" in summary else ""
    say(
        "predict",
        f"{summary['videos']:,} videos in {duration(summary['seconds'])}, "
        f"{summary['videos_per_second']:,.0f} videos/s{gap}: {output}",
    )
