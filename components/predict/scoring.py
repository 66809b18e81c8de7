"""Windows of records in, answers in the records' order out; what can not be scored is said."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from components.predict.windows import Refused, Window
from trainer import records
from trainer.errors import InputError
from trainer.exported_model import ExportedModel
from trainer.records import Record, VideoRecord

Classes = list[dict[str, Any]]
"""Best first, each with class, name, vertical and score."""


@dataclasses.dataclass(frozen=True)
class Predicted:
    """The answer for a video.

    Attributes:
        uri: the shard.
        record: number in it.
        video_id: as `trainer.records` gives it.
        labels: int, as stored; empty where the record has none.
        classes: of the video.
        timeline: where it was asked for, the first second and the classes of each window.
    """

    uri: str
    record: int
    video_id: str
    labels: list[int]
    classes: Classes
    timeline: list[tuple[int, Classes]] | None = None


Outcome = Predicted | Refused


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to score.

    Attributes:
        batch_size: videos at once, at most.
        segments: whether timelines are wanted.
        top_k: classes of each window of a timeline.
    """

    batch_size: int = 64
    segments: bool = False
    top_k: int = 20

    @property
    def window(self) -> int:
        """Records of a window: of so many, those of like length share a batch."""
        return 4 * self.batch_size


Parsed = tuple[list[tuple[Record, VideoRecord]], list[Refused]]
"""Records that can be scored, and the others."""


def parse_window(model: ExportedModel, window: Window) -> Parsed:
    """Parse records that must be of the model's level and have labels among its classes."""
    parsed: list[tuple[Record, VideoRecord]] = []
    refused = [*window.refused]
    for record in window.records:
        try:
            video = model.parse(record)
            records.check_labels(record, video.labels, model.num_classes)
        except InputError as error:
            refused.append(Refused.of_error(record, error))
        else:
            parsed.append((record, video))
    return parsed, refused


def score_window(model: ExportedModel, parsed: Parsed, settings: Settings) -> list[Outcome]:
    """Score the videos of a window, those of like length together, each batch in one call.

    Returns:
        An outcome of each, by their numbers. A video whose scores are not numbers is refused.
    """
    videos, refused = parsed
    outcomes: list[Outcome] = list(refused)
    # A batch is as long as its longest video: the graph cuts off what pads all of them.
    order = sorted(
        range(len(videos)), key=lambda place: min(videos[place][1].num_frames, model.max_frames)
    )
    for start in range(0, len(order), settings.batch_size):
        batch = [videos[place] for place in order[start : start + settings.batch_size]]
        answer = model.answer([video for _, video in batch])
        rows = zip(batch, answer.rows(), answer.sound(), strict=True)
        for (record, video), classes, is_sound in rows:
            outcomes.append(
                _predicted(model, record, video, classes, settings)
                if is_sound
                else _not_numbers(record)
            )
    return sorted(outcomes, key=lambda outcome: outcome.record)


def _predicted(
    model: ExportedModel, record: Record, video: VideoRecord, classes: Classes, settings: Settings
) -> Outcome:
    timeline = None
    if settings.segments:
        starts, answer = model.timeline(video)
        if not answer.sound().all():
            return _not_numbers(record)
        timeline = list(zip(starts.tolist(), answer.cut(settings.top_k).rows(), strict=True))
    labels = video.labels.tolist()
    return Predicted(record.path, record.index, video.video_id, labels, classes, timeline)


def _not_numbers(record: Record) -> Refused:
    error = record.error("the model's scores of it are not numbers")
    return Refused.of_error(record, error)


def to_json(outcome: Outcome) -> str:
    """An outcome as a line."""
    return json.dumps(dataclasses.asdict(outcome), allow_nan=False)


def of_json(line: str) -> Outcome:
    """What `to_json` was given."""
    found = json.loads(line)
    return Refused(**found) if "reason" in found else Predicted(**found)
