"""An exported model: what it says of itself, and its answers for records."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import records
from trainer.errors import InputError
from trainer.files import read_json

ABOUT = "export.json"
"""What the export step says of a model, beside its `saved_model`."""
SAVED_MODEL = "saved_model"
SIGNATURE = "serving_default"
FEATURES = {records.FRAME: "features", records.VIDEO: "video_level"}
"""The signature that takes the features themselves, by level."""
SEGMENTS = "segments"
"""The signature that answers with a timeline."""
_EXPECTED = {
    "level": str, "top_k": int, "num_classes": int, "max_frames": int, "data_fingerprint": str,
    "vocabulary_digest": str,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Answer:
    """The best classes of N videos, each row best first.

    Attributes:
        classes: int64 [N,k].
        names: str [N,k], object array.
        verticals: str [N,k], of each class the first one.
        scores: float32 [N,k].
    """

    classes: NDArray[np.int64]
    names: NDArray[Any]
    verticals: NDArray[Any]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.classes)

    @staticmethod
    def joined(parts: Sequence[Answer]) -> Answer:
        """The answers of parts, one after the other."""
        columns = zip(*(one._arrays() for one in parts), strict=True)
        return Answer(*(np.concatenate(column) for column in columns))

    def between(self, start: int, end: int) -> Answer:
        """Those of videos `start` to before `end`."""
        return Answer(*(values[start:end] for values in self._arrays()))

    def sound(self) -> NDArray[np.bool_]:
        """[N]: whether all scores of a video are numbers."""
        return np.asarray(np.isfinite(self.scores).all(axis=1))

    def cut(self, k: int) -> Answer:
        """The first `k` of each row."""
        return Answer(*(values[:, :k] for values in self._arrays()))

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.classes, self.names, self.verticals, self.scores

    def rows(self) -> list[list[dict[str, Any]]]:
        """Of each video its classes: class, name, vertical and score."""
        lists = zip(
            self.classes.tolist(), self.names.tolist(), self.verticals.tolist(),
            self.scores.tolist(), strict=True,
        )  # fmt: skip
        return [
            [
                {"class": index, "name": name, "vertical": vertical, "score": score}
                for index, name, vertical, score in zip(*row, strict=True)
            ]
            for row in lists
        ]


class ExportedModel:
    """A SavedModel of the export step, loaded.

    Args:
        folder: of the step: `saved_model/` and `export.json`.

    Attributes:
        folder: the same.
        about: the content of `export.json`.
        level: frame or video, of the records that it takes.
        top_k: k of its answers.
        num_classes: C.
        max_frames: frames used of a video.

    Raises:
        InputError: no such model, one that an earlier version exported, or one that does not load.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.about = read_about(self.folder)
        self.level: records.Level = records.FRAME if self.about["level"] == "frame" else "video"
        self.top_k: int = self.about["top_k"]
        self.num_classes: int = self.about["num_classes"]
        self.max_frames: int = self.about["max_frames"]
        saved_model = self.folder / SAVED_MODEL
        if not (saved_model / "saved_model.pb").is_file():
            raise InputError(f"{saved_model}: is no SavedModel: it has no saved_model.pb")
        try:
            # Held: a signature does not keep the variables alive.
            self._loaded = tf.saved_model.load(str(saved_model))
        except (OSError, ValueError, tf.errors.OpError) as error:
            # An error may have no words.
            first, *_ = [*str(error).strip().splitlines(), type(error).__name__]
            raise InputError(f"{saved_model}: does not load ({first})") from None
        self.signatures: Any = self._loaded.signatures
        wanted = {SIGNATURE, FEATURES[self.level]}
        if missing := wanted - set(self.signatures):
            raise InputError(
                f"{saved_model}: has no signature {', '.join(sorted(missing))} (found: "
                f"{', '.join(sorted(self.signatures))}); export the model anew"
            )
        self._answer = self.signatures[FEATURES[self.level]]

    @property
    def has_segments(self) -> bool:
        """Whether it answers with timelines."""
        return SEGMENTS in self.signatures

    def windows(self, num_frames: int) -> int:
        """How many windows the timeline of a video of so many frames has."""
        most: int = self.signatures[SEGMENTS].structured_outputs["classes"].shape[1]
        step = -(-records.MAX_FRAMES // most)
        return -(-min(num_frames, records.MAX_FRAMES) // step)

    def parse(self, record: records.Record) -> records.VideoRecord:
        """A record that it can score.

        Raises:
            InputError: no record of its level, or one of other features than it takes.
        """
        video = records.parse(record)
        if video.level != self.level:
            raise record.error(
                f"is a {video.level}-level record, the model takes {self.level}-level ones"
            )
        expected = self.about.get("feature_extractor")
        if expected and video.extractor and video.extractor != expected:
            raise record.error(
                f"its features were made by the extractor {video.extractor[:12]}, the model takes "
                f"those of {expected[:12]}"
            )
        return video

    def answer(self, videos: Sequence[records.VideoRecord]) -> Answer:
        """The best classes of parsed records of its level, in one call."""
        inputs = features_of(videos, self.level, self.max_frames)
        found = self._answer(**{name: tf.constant(value) for name, value in inputs.items()})
        return Answer(
            found["classes"].numpy(),
            _text(found["names"].numpy()),
            _text(found["verticals"].numpy()),
            found["scores"].numpy(),
        )

    def warm_up(self) -> None:
        """Answer for a video without content: what TensorFlow prepares then is prepared."""
        shape = (self.max_frames,) if self.level == records.FRAME else ()
        kind = np.uint8 if self.level == records.FRAME else np.float32
        rgb, audio = (
            np.zeros((*shape, size), kind) for size in (records.RGB_SIZE, records.AUDIO_SIZE)
        )
        self.answer([records.VideoRecord("", np.zeros(0, np.int64), rgb, audio)])

    def timeline(self, video: records.VideoRecord) -> tuple[NDArray[np.int32], Answer]:
        """First seconds [W] of a video's windows, and the best classes of each, [W,k].

        Args:
            video: of its level, parsed.

        Raises:
            InputError: the model has no signature for it.
        """
        if not self.has_segments:
            raise InputError(f"{self.folder}: has no signature {SEGMENTS}: it is video-level")
        # Encoded anew: the graph's parser is stricter in what it reads than `parse` is.
        payload = records.encode(video)
        found = self.signatures[SEGMENTS](examples=tf.constant([payload]))
        windows = int(found["windows"][0])
        return found["starts"].numpy()[0, :windows], Answer(
            found["classes"].numpy()[0, :windows],
            _text(found["names"].numpy()[0, :windows]),
            _text(found["verticals"].numpy()[0, :windows]),
            found["scores"].numpy()[0, :windows],
        )


def features_of(
    videos: Sequence[records.VideoRecord], level: records.Level, max_frames: int
) -> dict[str, NDArray[Any]]:
    """What the signature of the features takes for N parsed records of a level.

    Returns:
        `rgb` uint8 [N,T,1024], `audio` uint8 [N,T,128], T = `max_frames`, and `num_frames` int32
        [N]; of video-level ones `mean_rgb` float32 [N,1024] and `mean_audio` float32 [N,128].
    """
    if level == records.VIDEO:
        return {
            records.MEAN_RGB_KEY: np.stack([video.rgb for video in videos]),
            records.MEAN_AUDIO_KEY: np.stack([video.audio for video in videos]),
        }
    shape = (len(videos), max_frames)
    rgb = np.zeros((*shape, records.RGB_SIZE), np.uint8)
    audio = np.zeros((*shape, records.AUDIO_SIZE), np.uint8)
    counts = np.array([min(video.num_frames, max_frames) for video in videos], np.int32)
    for row, (video, count) in enumerate(zip(videos, counts, strict=True)):
        rgb[row, :count] = video.rgb[:count]
        audio[row, :count] = video.audio[:count]
    return {"rgb": rgb, "audio": audio, "num_frames": counts}


def read_about(folder: Path) -> dict[str, Any]:
    """The content of `export.json`, of what is an exported model.

    Raises:
        InputError: it is none, or an earlier version exported it.
    """
    path = folder / ABOUT
    if not path.is_file():
        raise InputError(
            f"{folder}: is no exported model: expected {ABOUT} and {SAVED_MODEL}/ there (the "
            "serving_model of a run)"
        )
    about = read_json(path)
    if not isinstance(about, dict):
        raise InputError(f"{path}: expected an object, found {type(about).__name__}")
    for name, kind in _EXPECTED.items():
        if not isinstance(about.get(name), kind):
            raise InputError(
                f"{path}: {name} is {about.get(name)!r}, expected {kind.__name__}: another version "
                "exported this model; export it anew"
            )
    if about["level"] not in FEATURES:
        raise InputError(f"{path}: level is {about['level']!r}, expected frame or video")
    return about


def _text(values: NDArray[Any]) -> NDArray[Any]:
    """Strings of byte strings, each distinct one decoded once."""
    distinct, where = np.unique(values, return_inverse=True)
    decoded = np.array([one.decode("utf-8", "replace") for one in distinct], object)
    return decoded[where].reshape(values.shape)
