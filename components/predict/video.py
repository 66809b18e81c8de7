"""One video file in, what the model says of it out: a table, a page, and files for machines."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from components.predict.inputs import (
    chosen_top_k,
    digest_of_model,
    find_model,
)
from components.predict.scoring import Classes
from components.predict.timeline import Segment, Timeline, describe_model, segments_of
from components.predict.timeline_page import timeline_page
from components.predict.timeline_table import timeline_table
from components.predict.video_features import SeenVideo, look_at, shown_name, source_for
from trainer.errors import InputError
from trainer.exported_model import Answer, ExportedModel
from trainer.files import atomic_directory, check_output, write_file, write_json
from trainer.progress import duration, say
from trainer.record_format import VIDEO, dequantise
from trainer.records import VideoRecord, encode, write_records

PAGE, PREDICTION, RECORD = "timeline.html", "prediction.json", "video.tfrecord"
"""To look at; to be read by programs; the features, for `--data`."""


@dataclasses.dataclass(frozen=True)
class VideoRequest:
    """Which video, and how.

    Attributes:
        video: path or `gs://` URI of a file.
        model: folder of the export step; empty: of the newest run.
        runs: folder of runs.
        overwrite: whether an output folder that exists is replaced.
        top_k: classes of the video and of a segment; None: as many as the model gives.
        segments: whether a model that gives no timeline is refused.
        weights: folder with the networks' published files.
        random_weights: whether networks that know nothing make the features.
        seed: of these; None: as the model's, or 0.
        accept_damaged: whether what decodes of a damaged file will do.
    """

    video: str
    model: str = ""
    runs: str = "runs"
    overwrite: bool = False
    top_k: int | None = None
    segments: bool = False
    weights: str = "weights"
    random_weights: bool = False
    seed: int | None = None
    accept_damaged: bool = False


def run_video(request: VideoRequest, output: str | Path) -> dict[str, Any]:
    """Write `timeline.html`, `prediction.json` and `video.tfrecord`, all or none.

    Args:
        request: what and how.
        output: folder to write.

    Returns:
        The content of `prediction.json`.

    Raises:
        InputError: a request that can not be met, or a video that can not be decoded.
    """
    check_output(Path(output), request.overwrite, PREDICTION, "folder of a video's prediction")
    start = time.monotonic()
    model = find_model(request.model, request.runs)
    top_k = chosen_top_k(request.top_k, model)
    if request.segments and not model.has_segments:
        raise InputError(f"{model.folder}: gives no timeline: it takes {model.level}-level records")
    source, kept = source_for(model, request.weights, request.random_weights, request.seed)
    seen = look_at(request.video, source, kept, request.accept_damaged)
    record = seen.record if model.level != VIDEO else video_level(seen.record)
    found = Timeline(
        shown_name(request.video.rpartition("/")[2]),
        _classes(model, model.answer([record]), top_k)[0],
        _segments(model, seen, top_k),
        seen.facts,
        seen.extractor,
        describe_model(model, digest_of_model(model.folder)),
    )
    with atomic_directory(output) as partial:
        write_records(partial / RECORD, [encode(record)])
        write_file(partial / PAGE, timeline_page(found, seen.frames).encode())
        content = {**found.as_dict(), "seconds": round(time.monotonic() - start, 2)}
        write_json(partial / PREDICTION, content)
    _say_result(found, str(output), content["seconds"])
    return content


def video_level(record: VideoRecord) -> VideoRecord:
    """The means of a frame-level record's features over its frames, as YouTube-8M has them."""
    means = (
        dequantise(codes[: record.num_frames]).mean(axis=0, dtype=np.float64).astype(np.float32)
        for codes in (record.rgb, record.audio)
    )
    rgb, audio = means
    return dataclasses.replace(record, rgb=rgb, audio=audio)


def _segments(model: ExportedModel, seen: SeenVideo, top_k: int) -> list[Segment] | None:
    if not model.has_segments:
        return None
    starts, answer = model.timeline(seen.record)
    return segments_of(starts.tolist(), _classes(model, answer, top_k), seen)


def _classes(model: ExportedModel, answer: Answer, top_k: int) -> list[Classes]:
    if not answer.sound().all():
        raise InputError(f"{model.folder}: the model's scores of this video are not numbers")
    return answer.cut(top_k).rows()


def _say_result(found: Timeline, output: str, seconds: float) -> None:
    print(f"\n{timeline_table(found)}\n", flush=True)
    for one in found.notes:
        say("predict", one)
    if found.meaningless:
        say("predict", f"warning: the labels mean nothing: {found.meaningless}")
    say("predict", f"{found.facts['frames']:,} frames in {duration(seconds)}: {output}/{PAGE}")
