"""The YouTube-8M records: reading and writing.

The one place that does: download, statistics, training, evaluation and serving all come here (the
graph form of the same parsing is `trainer.tensor_records`). Names and sizes are
`trainer.record_format`'s, the file around the records is `trainer.tfrecord`'s.

Format: https://research.google.com/youtube8m/download.html. A shard is a TFRecord file; a
frame-level record is a `SequenceExample` (context `id`, `labels`; feature lists `rgb` and `audio`
of one byte string a frame, one frame a second), a video-level record an `Example` with `mean_rgb`
and `mean_audio`. Release 1 calls the id `video_id` and has 4,716 classes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from trainer import record_layout
from trainer.errors import InputError
from trainer.example_proto import Example, SequenceExample
from trainer.record_format import (
    AUDIO_KEY,
    AUDIO_SIZE,
    EXTRACTOR_KEY,
    FEATURE_SIZE,
    FEATURES_KEY,
    FRAME,
    ID_KEYS,
    LABELS_KEY,
    MAX_FRAMES,
    MEAN_AUDIO_KEY,
    MEAN_RGB_KEY,
    NUM_CLASSES,
    QUANTISED_MAX,
    QUANTISED_MIN,
    RGB_KEY,
    RGB_SIZE,
    SEGMENT_END_KEY,
    SEGMENT_FRAMES,
    SEGMENT_LABELS_KEY,
    SEGMENT_SCORES_KEY,
    SEGMENT_START_KEY,
    SILENCE_KEY,
    VIDEO,
    Level,
    dequantise,
    quantise,
)
from trainer.tfrecord import Record, read_records, write_records

__all__ = [
    "AUDIO_KEY",
    "AUDIO_SIZE",
    "FEATURE_SIZE",
    "FRAME",
    "ID_KEYS",
    "LABELS_KEY",
    "MAX_FRAMES",
    "MEAN_AUDIO_KEY",
    "MEAN_RGB_KEY",
    "NUM_CLASSES",
    "QUANTISED_MAX",
    "QUANTISED_MIN",
    "RGB_KEY",
    "RGB_SIZE",
    "SEGMENT_FRAMES",
    "VIDEO",
    "Level",
    "Record",
    "Segments",
    "VideoRecord",
    "check_labels",
    "dequantise",
    "encode",
    "id_text",
    "parse",
    "parse_checked",
    "quantise",
    "read_records",
    "read_videos",
    "values_if_not_finite",
    "write_records",
]


@dataclasses.dataclass(frozen=True)
class Segments:
    """Ratings of release 3: a person's verdict on a class in five seconds of a video.

    Attributes:
        starts: int64 [P], seconds (frames) from the start.
        labels: int64 [P], class indices.
        scores: float32 [P], 1: the class is there, 0: it is not.
    """

    starts: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class VideoRecord:
    """One parsed record.

    Attributes:
        video_id: as stored, undecodable bytes escaped.
        labels: int64 [number of labels], as stored.
        rgb: frame level: uint8 codes [T, 1024]; video level: float32 means [1024].
        audio: frame level: uint8 codes [T, 128]; video level: float32 means [128].
        segments: ratings, if the record has any.
        mark: what its maker says is wrong with its features; empty: nothing.
        silent: whether its maker says that the video has no sound.
        extractor: digest of the feature extractor that made it; empty: not known.

    The features of a parsed record are views of its bytes: read-only, neither contiguous nor
    aligned.
    """

    video_id: str
    labels: NDArray[np.int64]
    rgb: NDArray[np.uint8] | NDArray[np.float32]
    audio: NDArray[np.uint8] | NDArray[np.float32]
    segments: Segments | None = None
    mark: str = ""
    silent: bool = False
    extractor: str = ""

    @property
    def level(self) -> Level:
        return FRAME if self.rgb.ndim == 2 else VIDEO

    @property
    def num_frames(self) -> int:
        """Frames that have both features; 1 for a video-level record."""
        return min(len(self.rgb), len(self.audio)) if self.level == FRAME else 1


def parse(record: Record) -> VideoRecord:
    """Parse a record of either level.

    A video-level record may carry an empty second field (the real validate shards do), so both
    levels parse as `SequenceExample`, whose context has the field number of `Example.features`.

    Raises:
        InputError: the bytes are no such message, or a feature is absent or of the wrong size.
    """
    return _parse_in_place(record) or parse_message(record)


def _parse_in_place(record: Record) -> VideoRecord | None:
    """The record, if it is laid out as every known writer does and nothing is wrong with it."""
    payload = record.payload
    layout = record_layout.locate(payload)
    # Whether what is not read here is a feature at all, the message library has to say.
    if layout is None or not layout.context.keys() <= _READ_IN_PLACE:
        return None
    context, lists = layout.context, layout.lists
    labels = record_layout.integers(payload, context.get(_LABELS, _NO_INTEGERS))
    ids = [record_layout.single_bytes(payload, context[key]) for key in _IDS if key in context]
    mark, extractor = (
        record_layout.single_bytes(payload, context[key]) if key in context else b""
        for key in (_MARK, _EXTRACTOR)
    )
    silence = record_layout.integers(payload, context.get(_SILENCE, _NO_INTEGERS))
    if labels is None or None in ids or None in (mark, extractor, silence):
        return None
    rgb: NDArray[np.uint8] | NDArray[np.float32] | None
    audio: NDArray[np.uint8] | NDArray[np.float32] | None
    if _MEAN_RGB in context and _MEAN_AUDIO in context and not lists:
        rgb = record_layout.floats(payload, context[_MEAN_RGB], RGB_SIZE)
        audio = record_layout.floats(payload, context[_MEAN_AUDIO], AUDIO_SIZE)
        if (
            rgb is None
            or audio is None
            or not (np.isfinite(rgb).all() and np.isfinite(audio).all())
        ):
            return None
    elif _MEAN_RGB in context or _MEAN_AUDIO in context or lists.keys() != {_RGB, _AUDIO}:
        return None
    else:
        rgb = record_layout.frame_codes(payload, lists[_RGB], RGB_SIZE)
        audio = record_layout.frame_codes(payload, lists[_AUDIO], AUDIO_SIZE)
        if rgb is None or audio is None:
            return None
    found = np.array(labels, np.int64)
    said = id_text(mark or b""), any(silence or ()), id_text(extractor or b"")
    return VideoRecord(_video_id(ids), found, rgb, audio, None, *said)


_LABELS, _RGB, _AUDIO = LABELS_KEY.encode(), RGB_KEY.encode(), AUDIO_KEY.encode()
_MEAN_RGB, _MEAN_AUDIO = MEAN_RGB_KEY.encode(), MEAN_AUDIO_KEY.encode()
_IDS = tuple(key.encode() for key in ID_KEYS)
_MARK, _SILENCE = FEATURES_KEY.encode(), SILENCE_KEY.encode()
_EXTRACTOR = EXTRACTOR_KEY.encode()
_READ_IN_PLACE = {*_IDS, _LABELS, _MEAN_RGB, _MEAN_AUDIO, _MARK, _SILENCE, _EXTRACTOR}
_NO_INTEGERS = (record_layout.INT64, 0, 0)


def _video_id(ids: Sequence[bytes | None]) -> str:
    return id_text(next(filter(None, ids), b""))


def id_text(stored: bytes) -> str:
    """The id of a video as text, undecodable bytes escaped."""
    return stored.decode("utf-8", "backslashreplace")


def parse_message(record: Record) -> VideoRecord:
    """`parse` through the message library alone: any layout, and every error."""
    try:
        message = SequenceExample.FromString(record.payload)
    except DecodeError:
        raise record.error(
            f"its {len(record.payload):,} bytes are neither a SequenceExample nor an Example"
        ) from None
    context, lists = message.context.feature, message.feature_lists.feature_list
    labels = np.array(_values(record, context, LABELS_KEY, "int64_list"), np.int64)
    ids = [value for key in ID_KEYS for value in _values(record, context, key, "bytes_list", 1)]
    mark, extractor = (
        id_text(next(iter(_values(record, context, key, "bytes_list", 1)), b""))
        for key in (FEATURES_KEY, EXTRACTOR_KEY)
    )
    silent = any(_values(record, context, SILENCE_KEY, "int64_list"))
    if MEAN_RGB_KEY in context or MEAN_AUDIO_KEY in context:
        rgb = _mean_feature(record, context, MEAN_RGB_KEY, RGB_SIZE)
        audio = _mean_feature(record, context, MEAN_AUDIO_KEY, AUDIO_SIZE)
        return VideoRecord(_video_id(ids), labels, rgb, audio, None, mark, silent, extractor)
    rgb_codes = _frame_feature(record, lists, RGB_KEY, RGB_SIZE)
    audio_codes = _frame_feature(record, lists, AUDIO_KEY, AUDIO_SIZE)
    segments = _segments(record, context)
    return VideoRecord(
        _video_id(ids), labels, rgb_codes, audio_codes, segments, mark, silent, extractor
    )


def values_if_not_finite(record: Record) -> NDArray[np.float32] | None:
    """float32 [1152] of a video-level record that `parse` refuses for values that are no numbers.

    None for one with anything else the matter.
    """
    try:
        context = SequenceExample.FromString(record.payload).context.feature
        values = [
            _values(record, context, key, "float_list", size)
            for key, size in ((MEAN_RGB_KEY, RGB_SIZE), (MEAN_AUDIO_KEY, AUDIO_SIZE))
        ]
    except (DecodeError, InputError):
        return None
    joined = np.concatenate([np.array(one, np.float32) for one in values])
    return None if len(joined) != FEATURE_SIZE or np.isfinite(joined).all() else joined


def _segments(record: Record, context) -> Segments | None:  # type: ignore[no-untyped-def]
    if not any(
        key in context for key in (SEGMENT_LABELS_KEY, SEGMENT_START_KEY, SEGMENT_SCORES_KEY)
    ):
        return None
    starts = _values(record, context, SEGMENT_START_KEY, "int64_list")
    labels = _values(record, context, SEGMENT_LABELS_KEY, "int64_list")
    # The public reader takes floats, some writers store integers.
    kind = "int64_list" if _is_integer(context, SEGMENT_SCORES_KEY) else "float_list"
    scores = _values(record, context, SEGMENT_SCORES_KEY, kind)
    if not len(starts) == len(labels) == len(scores):
        raise record.error(
            f"has {len(labels)} {SEGMENT_LABELS_KEY}, {len(starts)} {SEGMENT_START_KEY} and "
            f"{len(scores)} {SEGMENT_SCORES_KEY}, expected as many of each"
        )
    rated = Segments(
        np.array(starts, np.int64), np.array(labels, np.int64), np.array(scores, np.float32)
    )
    if not np.isin(rated.scores, (0, 1)).all():
        wrong = rated.scores[~np.isin(rated.scores, (0, 1))][0]
        raise record.error(f"{SEGMENT_SCORES_KEY} holds {wrong}, expected 0 or 1")
    if (rated.starts < 0).any():
        raise record.error(f"{SEGMENT_START_KEY} holds {rated.starts.min()}, expected 0 or more")
    return rated if len(labels) else None


def _is_integer(context, key: str) -> bool:  # type: ignore[no-untyped-def]
    return key in context and context[key].WhichOneof("kind") == "int64_list"


def check_labels(record: Record, labels: NDArray[np.int64], num_classes: int) -> None:
    """Raise `InputError` if a label is not in 0 … num_classes − 1."""
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise record.error(f"label {wrong[0]} is out of range, expected 0 to {num_classes - 1:,}")


def parse_checked(record: Record, level: Level, num_classes: int) -> VideoRecord:
    """`parse`, of a record that must be of a level and have labels of 0 … num_classes − 1.

    Raises:
        InputError: it can not be read, or is not so; the message names the file, the record and its
            offset.
    """
    video = parse(record)
    if video.level != level:
        raise record.error(f"is {video.level}-level, expected {level}-level")
    check_labels(record, video.labels, num_classes)
    if video.segments:
        check_labels(record, video.segments.labels, num_classes)
    return video


def read_videos(
    path: str | os.PathLike[str], level: Level, num_classes: int
) -> Iterator[VideoRecord]:
    """Every record of a shard, parsed and checked.

    Raises:
        InputError: the first record that can not be read, is of another level, or has a label that
            is not in 0 … num_classes − 1; the message names the file, the record and its offset.
    """
    for record in read_records(path):
        yield parse_checked(record, level, num_classes)


def _values(  # type: ignore[no-untyped-def]
    record: Record, context, key: str, kind: str, count: int | None = None
):
    """The values of an optional feature, which must be of `kind`, and `count` of them."""
    if key not in context or (found := context[key].WhichOneof("kind")) is None:
        return ()
    if found != kind:
        raise record.error(f"{key} is a {found}, expected a {kind}")
    values = getattr(context[key], kind).value
    if count is not None and len(values) != count:
        raise record.error(f"{key} has {len(values)} values, expected {count}")
    return values


def _mean_feature(record: Record, context, key: str, size: int) -> NDArray[np.float32]:  # type: ignore[no-untyped-def]
    if key not in context:
        raise record.error(f"has no feature {key} (found: {_names(context)})")
    values = np.array(_values(record, context, key, "float_list", size), np.float32)
    if not values.size:
        raise record.error(f"{key} has no values, expected {size}")
    if not np.isfinite(values).all():
        raise record.error(f"{key} holds values that are not finite, expected numbers")
    return values


def _frame_feature(record: Record, lists, key: str, size: int) -> NDArray[np.uint8]:  # type: ignore[no-untyped-def]
    if key not in lists:
        raise record.error(
            f"has no feature list {key} (found: {_names(lists) or _names_of_context(record)})"
        )
    frames = [
        values[0] if len(values := feature.bytes_list.value) == 1 else b""
        for feature in lists[key].feature
    ]
    if not frames:
        raise record.error(f"{key} has no frames, expected at least one")
    codes = b"".join(frames)
    if len(codes) != size * len(frames) or any(len(frame) != size for frame in frames):
        index = next(i for i, frame in enumerate(frames) if len(frame) != size)
        raise record.error(
            f"frame {index} of {key} has {len(frames[index])} bytes, expected {size}"
        )
    return np.frombuffer(codes, np.uint8).reshape(len(frames), size)


def _names(mapping) -> str:  # type: ignore[no-untyped-def]
    return ", ".join(sorted(mapping))


def _names_of_context(record: Record) -> str:
    context = SequenceExample.FromString(record.payload).context.feature
    return f"no feature lists; context {_names(context) or 'empty'}"


def encode(video: VideoRecord) -> bytes:
    """The record's payload as the public releases lay it out; equal input, equal bytes."""
    message = SequenceExample() if video.level == FRAME else Example()
    context = (message.context if video.level == FRAME else message.features).feature
    context[ID_KEYS[0]].bytes_list.value.append(video.video_id.encode())
    context[LABELS_KEY].int64_list.value.extend(video.labels.tolist())
    if video.mark:
        context[FEATURES_KEY].bytes_list.value.append(video.mark.encode())
    if video.extractor:
        context[EXTRACTOR_KEY].bytes_list.value.append(video.extractor.encode())
    if video.silent:
        context[SILENCE_KEY].int64_list.value.append(1)
    if video.level == FRAME:
        lists = message.feature_lists.feature_list
        for key, codes in ((RGB_KEY, video.rgb), (AUDIO_KEY, video.audio)):
            feature_list = lists[key]
            for frame in np.ascontiguousarray(codes, np.uint8):
                feature_list.feature.add().bytes_list.value.append(frame.tobytes())
        if video.segments:
            rated = video.segments
            for key, values in (
                (SEGMENT_START_KEY, rated.starts),
                (SEGMENT_END_KEY, rated.starts + SEGMENT_FRAMES),
                (SEGMENT_LABELS_KEY, rated.labels),
            ):
                context[key].int64_list.value.extend(values.tolist())
            context[SEGMENT_SCORES_KEY].float_list.value.extend(rated.scores.tolist())
    else:
        for key, means in ((MEAN_RGB_KEY, video.rgb), (MEAN_AUDIO_KEY, video.audio)):
            context[key].float_list.value.extend(np.asarray(means, np.float32).tolist())
    payload: bytes = message.SerializeToString(deterministic=True)
    return payload
