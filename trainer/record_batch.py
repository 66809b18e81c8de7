"""Many video-level records parsed at once.

One record is 4.7 kB of which all but some fifty bytes are numbers, so that reading them one after
the other is mostly work in Python. Here a compiled loop reads the records of a chunk where they
stand, as long as they are laid out as every known writer does and nothing is wrong with them. What
it does not read, sound or not, goes through `trainer.records.parse_checked`.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError
from trainer.record_format import FEATURE_SIZE, LONGEST_ID, RGB_SIZE, VIDEO
from trainer.records import VideoRecord, parse_checked
from trainer.tfrecord import Record
from trainer.tfrecord_scan import Chunk


@dataclasses.dataclass(frozen=True)
class VideoBatch:
    """Video-level records.

    Attributes:
        numbers: int64 [n], of each record in its file.
        ids: bytes [n], empty where a record has none; see `stored_id`.
        labels: int64, of all records, each record's together.
        label_rows: int64, the row (0 … n − 1) that each label belongs to.
        features: float32 [n, 1152], rgb then audio.
        bytes: of their payloads.
    """

    numbers: NDArray[np.int64]
    ids: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    label_rows: NDArray[np.int64]
    features: NDArray[np.float32]
    bytes: int

    def __len__(self) -> int:
        return len(self.ids)


def stored_id(video_id: str) -> bytes:
    """An id as bytes of an array, at most `LONGEST_ID` of them.

    Equal for equal ids alone. The end of a longer one, or of one that ends in a zero (which an
    array does not keep), gives way to a digest.
    """
    encoded = video_id.encode()
    if len(encoded) <= LONGEST_ID and not encoded.endswith(b"\0"):
        return encoded
    digest = hashlib.blake2b(encoded, digest_size=16).hexdigest()
    kept = encoded[: LONGEST_ID - len(digest) - 3].rstrip(b"\0").decode(errors="ignore")
    return f"{kept}…{digest}".encode()


def parse_video_chunk(
    chunk: Chunk, num_classes: int
) -> tuple[VideoBatch, list[tuple[Record, InputError]]]:
    """Parse records as `trainer.records.parse_checked` does, at video level.

    Returns:
        The sound records, and each other one with what is wrong with it.
    """
    from trainer import record_kernels as kernels  # noqa: PLC0415 (compiles)

    data = np.frombuffer(chunk.data, np.uint8)
    begins, ends = np.array(chunk.begins, np.int64), np.array(chunk.ends, np.int64)
    places = np.zeros((len(chunk), kernels.COLUMNS), np.int64)
    sound = np.zeros(len(chunk), bool)
    kernels.locate(data, begins, ends, places, sound)

    id_sizes = places[:, kernels.ID + 1] - places[:, kernels.ID]
    ids = np.zeros((len(chunk), max(1, int(id_sizes.max(initial=0)))), np.uint8)
    most = int((places[:, kernels.LABELS + 1] - places[:, kernels.LABELS]).sum())
    labels, rows = np.empty(most, np.int64), np.empty(most, np.int64)
    features = np.empty((len(chunk), FEATURE_SIZE), np.float32)
    flat = features.reshape(-1)
    bits = flat.view(np.uint8), flat.view(np.uint32)
    count = kernels.read(data, places, num_classes, sound, ids, labels, rows, *bits)
    labels, rows = labels[:count], rows[:count]
    names: NDArray[np.bytes_] = ids.view(f"S{ids.shape[1]}")[:, 0]

    wrong: list[tuple[Record, InputError]] = []
    singly: list[tuple[int, VideoRecord]] = []
    for place in np.flatnonzero(~sound).tolist():
        record = chunk.record(place)
        try:
            singly.append((place, parse_checked(record, VIDEO, num_classes)))
        except InputError as error:
            wrong.append((record, error.with_traceback(None)))
    if singly:
        added = np.array([stored_id(video.video_id) for _, video in singly], np.bytes_)
        names = names.astype(np.promote_types(names.dtype, added.dtype))
        names[[place for place, _ in singly]] = added
        for place, video in singly:
            sound[place] = True
            features[place, :RGB_SIZE], features[place, RGB_SIZE:] = video.rgb, video.audio
        labels = np.concatenate([labels, *(video.labels for _, video in singly)])
        more = [np.full(len(video.labels), place, np.int64) for place, video in singly]
        rows = np.concatenate([rows, *more])
    if wrong:
        rows = (np.cumsum(sound) - 1)[rows]
        features, names = features[sound], names[sound]
    numbers = chunk.index + np.flatnonzero(sound)
    size = int((ends - begins)[sound].sum())
    return VideoBatch(numbers, names, labels, rows, features, size), wrong
