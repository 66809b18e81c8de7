"""The YouTube-8M records: reading and writing; their names and sizes are `trainer.record_format`'s.

The one place that does: download, statistics, training, evaluation and serving all come here (the
graph form of the same parsing is `trainer.tensor_records`).

Format: https://research.google.com/youtube8m/download.html. A shard is a TFRecord file; a
frame-level record is a `SequenceExample` (context `id`, `labels`; feature lists `rgb` and `audio`
of one byte string a frame, one frame a second), a video-level record an `Example` with `mean_rgb`
and `mean_audio`. Release 1 calls the id `video_id` and has 4,716 classes.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from trainer.errors import InputError
from trainer.example_proto import Example, SequenceExample
from trainer.record_format import (
    AUDIO_KEY,
    AUDIO_SIZE,
    FEATURE_SIZE,
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
    VIDEO,
    Level,
    dequantise,
    quantise,
)

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
    "VIDEO",
    "Level",
    "Record",
    "VideoRecord",
    "check_labels",
    "dequantise",
    "encode",
    "parse",
    "quantise",
    "read_records",
    "read_videos",
    "write_records",
]


@dataclasses.dataclass(frozen=True)
class Record:
    """The bytes of one record and where they stand."""

    path: str
    index: int
    offset: int
    payload: bytes

    def error(self, message: str) -> InputError:
        return InputError(f"{self.path}: record {self.index} (at byte {self.offset:,}): {message}")


@dataclasses.dataclass(frozen=True)
class VideoRecord:
    """One parsed record.

    Attributes:
        video_id: as stored, undecodable bytes escaped.
        labels: int64 [number of labels], as stored.
        rgb: frame level: uint8 codes [T, 1024]; video level: float32 means [1024].
        audio: frame level: uint8 codes [T, 128]; video level: float32 means [128].
    """

    video_id: str
    labels: NDArray[np.int64]
    rgb: NDArray[np.uint8] | NDArray[np.float32]
    audio: NDArray[np.uint8] | NDArray[np.float32]

    @property
    def level(self) -> Level:
        return FRAME if self.rgb.ndim == 2 else VIDEO

    @property
    def num_frames(self) -> int:
        """Frames that have both features; 1 for a video-level record."""
        return min(len(self.rgb), len(self.audio)) if self.level == FRAME else 1


# --- The TFRecord framing: https://www.tensorflow.org/tutorials/load_data/tfrecord ---

_LENGTH = struct.Struct("<QI")
_CRC = struct.Struct("<I")


def _masked_crc32c(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Every record of a TFRecord file in order, both checksums of each verified.

    Raises:
        InputError: the file is absent, empty, no TFRecord file, cut off or damaged; the message
            names the file, the record and its offset.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        raise InputError(f"{name}: no such file")
    with open(path, "rb", buffering=1 << 20) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise InputError(f"{name}: is empty; expected a TFRecord file with records")
        index = offset = 0
        while record := _next_record(file, name, index, offset, size):
            yield record
            index += 1
            offset += _LENGTH.size + len(record.payload) + _CRC.size


def _next_record(file: BinaryIO, name: str, index: int, offset: int, size: int) -> Record | None:
    record = Record(name, index, offset, b"")
    header = file.read(_LENGTH.size)
    if not header:
        return None
    if len(header) < _LENGTH.size:
        if index == 0:
            raise InputError(f"{name}: is no TFRecord file: only {size} bytes long")
        raise record.error(f"the file ends inside its header, {size:,} bytes long: cut off")
    length, length_crc = _LENGTH.unpack(header)
    if _masked_crc32c(header[:8]) != length_crc:
        if index == 0:
            raise InputError(
                f"{name}: is no TFRecord file: it starts with {header!r}, expected a record's "
                "length and the CRC-32C of that"
            )
        raise record.error("the checksum of its length does not match: damaged")
    body_size = length + _CRC.size
    # Compared before reading, so that a damaged length never asks for that much memory.
    remaining = size - offset - _LENGTH.size
    if body_size > remaining:
        raise record.error(
            f"the file ends {body_size - remaining:,} bytes before the record does: cut off"
        )
    body = file.read(body_size)
    payload = body[:length]
    if _CRC.unpack_from(body, length)[0] != _masked_crc32c(payload):
        raise record.error(f"the checksum of its {length:,} bytes does not match: damaged")
    return Record(name, index, offset, payload)


def write_records(path: str | os.PathLike[str], payloads: Iterable[bytes]) -> int:
    """Write a TFRecord file; returns how many records it holds."""
    count = 0
    with Path(path).open("wb", buffering=1 << 20) as file:
        for payload in payloads:
            length = struct.pack("<Q", len(payload))
            file.write(length + _CRC.pack(_masked_crc32c(length)))
            file.write(payload)
            file.write(_CRC.pack(_masked_crc32c(payload)))
            count += 1
    return count


# --- The payloads ---


def parse(record: Record) -> VideoRecord:
    """Parse a record of either level.

    A video-level record may carry an empty second field (the real validate shards do), so both
    levels parse as `SequenceExample`, whose context has the field number of `Example.features`.

    Raises:
        InputError: the bytes are no such message, or a feature is absent or of the wrong size.
    """
    try:
        message = SequenceExample.FromString(record.payload)
    except DecodeError:
        raise record.error(
            f"its {len(record.payload):,} bytes are neither a SequenceExample nor an Example"
        ) from None
    context, lists = message.context.feature, message.feature_lists.feature_list
    labels = np.array(_values(record, context, LABELS_KEY, "int64_list"), np.int64)
    ids = [value for key in ID_KEYS for value in _values(record, context, key, "bytes_list", 1)]
    video_id = next(filter(None, ids), b"").decode("utf-8", "backslashreplace")
    if MEAN_RGB_KEY in context or MEAN_AUDIO_KEY in context:
        rgb = _mean_feature(record, context, MEAN_RGB_KEY, RGB_SIZE)
        audio = _mean_feature(record, context, MEAN_AUDIO_KEY, AUDIO_SIZE)
        return VideoRecord(video_id, labels, rgb, audio)
    rgb_codes = _frame_feature(record, lists, RGB_KEY, RGB_SIZE)
    audio_codes = _frame_feature(record, lists, AUDIO_KEY, AUDIO_SIZE)
    return VideoRecord(video_id, labels, rgb_codes, audio_codes)


def check_labels(record: Record, labels: NDArray[np.int64], num_classes: int) -> None:
    """Raise `InputError` if a label is not in 0 … num_classes − 1."""
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise record.error(f"label {wrong[0]} is out of range, expected 0 to {num_classes - 1:,}")


def read_videos(
    path: str | os.PathLike[str], level: Level, num_classes: int
) -> Iterator[VideoRecord]:
    """Every record of a shard, parsed and checked.

    Raises:
        InputError: the first record that can not be read, is of another level, or has a label that
            is not in 0 … num_classes − 1; the message names the file, the record and its offset.
    """
    for record in read_records(path):
        video = parse(record)
        if video.level != level:
            raise record.error(f"is {video.level}-level, expected {level}-level")
        check_labels(record, video.labels, num_classes)
        yield video


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
    if video.level == FRAME:
        lists = message.feature_lists.feature_list
        for key, codes in ((RGB_KEY, video.rgb), (AUDIO_KEY, video.audio)):
            feature_list = lists[key]
            for frame in np.ascontiguousarray(codes, np.uint8):
                feature_list.feature.add().bytes_list.value.append(frame.tobytes())
    else:
        for key, means in ((MEAN_RGB_KEY, video.rgb), (MEAN_AUDIO_KEY, video.audio)):
            context[key].float_list.value.extend(np.asarray(means, np.float32).tolist())
    payload: bytes = message.SerializeToString(deterministic=True)
    return payload
