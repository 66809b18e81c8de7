"""What a model says of one video, as its table, its page and its file show it."""

from __future__ import annotations

import dataclasses
from typing import Any

from components.extract_features.model_features import data_source
from components.predict.scoring import Classes
from components.predict.video_features import SeenVideo
from trainer.exported_model import ExportedModel
from trainer.feature_networks.feature_extractor import FeatureExtractor
from trainer.record_format import FRAME, MAX_FRAMES, SEGMENT_FRAMES


@dataclasses.dataclass(frozen=True)
class Segment:
    """A window of a timeline.

    Attributes:
        start, end: seconds.
        classes: best first.
    """

    start: int
    end: int
    classes: Classes


@dataclasses.dataclass(frozen=True)
class Timeline:
    """A video's labels, and when they are seen.

    Attributes:
        name: of the file.
        labels: of the whole video, best first.
        segments: in order; None: the model gives none.
        facts: of the file, see `components.predict.video_features.SeenVideo`.
        extractor: that made the features.
        model: folder, digest and facts of it, as `describe_model` gives them.
    """

    name: str
    labels: Classes
    segments: list[Segment] | None
    facts: dict[str, Any]
    extractor: FeatureExtractor
    model: dict[str, Any]

    @property
    def meaningless(self) -> str:
        """Why the labels mean nothing; empty: they do mean something."""
        reasons = []
        if self.extractor.mark:
            reasons.append(f"the video's features come from networks with {self.extractor.mark}")
        if self.model["features_mark"]:
            reasons.append(f"the model was trained on features of {self.model['features_mark']}")
        return ", and ".join(reasons)

    @property
    def notes(self) -> list[str]:
        """What a reader of the labels should know of how much of the video they are of."""
        facts, notes = self.facts, []
        seconds, duration = facts["frames"], facts["duration"]
        if duration > seconds + 1:
            notes.append(f"The first {clock(seconds)} of {clock(duration)} are looked at.")
        if self.model["level"] == FRAME and seconds > self.model["max_frames"]:
            notes.append(
                f"The labels of the whole video are of its first "
                f"{clock(self.model['max_frames'])}: so many frames the model takes."
            )
        if facts["broken"] or facts["broken_audio_packets"]:
            notes.append(
                f"The file is damaged: {facts['broken']:,} packets of its picture and "
                f"{facts['broken_audio_packets']:,} of its sound do not decode."
            )
        if not facts["has_audio"]:
            notes.append("The video has no sound: the model is given silence.")
        return notes

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON has it; scores in six digits."""
        segments = None
        if self.segments is not None:
            segments = [
                {"start": one.start, "end": one.end, "classes": _rounded(one.classes)}
                for one in self.segments
            ]
        made = self.extractor
        return {
            "video": self.name,
            "meaningless": self.meaningless,
            "notes": self.notes,
            "labels": _rounded(self.labels),
            "timeline": segments,
            "facts": self.facts,
            "model": self.model,
            "extractor": {
                "digest": made.digest,
                **{
                    kind: {
                        "network": network.name, "weights": network.weights,
                        "projection": projection.source,
                    }
                    for kind, network, projection in (
                        ("rgb", made.rgb_network, made.rgb),
                        ("audio", made.audio_network, made.audio),
                    )
                },
                "mark": made.mark,
            },
        }  # fmt: skip


def describe_model(model: ExportedModel, digest: str) -> dict[str, Any]:
    """What is told of a model."""
    return {
        "folder": str(model.folder),
        "digest": digest,
        "level": model.level,
        "num_classes": model.num_classes,
        "max_frames": model.max_frames,
        "data_source": data_source(model.folder, model.about),
        "data_fingerprint": model.about["data_fingerprint"],
        "features_mark": model.about.get("features_mark") or "",
    }


def segments_of(starts: list[int], rows: list[Classes], seen: SeenVideo) -> list[Segment]:
    """The windows of a timeline, the last of which ends with the video."""
    frames = min(seen.record.num_frames, MAX_FRAMES)
    return [
        Segment(start, min(start + SEGMENT_FRAMES, frames), classes)
        for start, classes in zip(starts, rows, strict=True)
    ]


def clock(seconds: float) -> str:
    """A time within a video: `0:05`, `1:02:03`."""
    whole = max(0, int(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def score_text(score: float) -> str:
    """A score in two digits; one that is less is not called nothing."""
    return "<0.01" if 0 < score < 0.005 else f"{score:.2f}"


def _rounded(classes: Classes) -> Classes:
    return [row | {"score": float(f"{row['score']:.6g}")} for row in classes]
