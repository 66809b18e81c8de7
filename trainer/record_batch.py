"""Many video-level records parsed at once.

One record is 4.7 kB of which all but some fifty bytes are numbers, so that reading them one after
the other is mostly work in Python. Here records of the same layout (equal length, equal tags,
lengths and names) are compared with one that was read in place, and then read as one array. What
is laid out in another way goes through `trainer.records.parse`; so does what is wrong with a
record.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer import record_layout
from trainer.errors import InputError
from trainer.record_format import (
    AUDIO_SIZE,
    FEATURE_SIZE,
    ID_KEYS,
    LABELS_KEY,
    MEAN_AUDIO_KEY,
    MEAN_RGB_KEY,
    RGB_SIZE,
    VIDEO,
)
from trainer.records import id_text, parse_checked
from trainer.tfrecord import Record

_LABELS, _RGB, _AUDIO = LABELS_KEY.encode(), MEAN_RGB_KEY.encode(), MEAN_AUDIO_KEY.encode()
_IDS = tuple(key.encode() for key in ID_KEYS)
_FEWEST = 3
"""Records of one layout for which an array pays."""
_SMALL = 128
"""Batches of fewer records are joined: who counts them pays by the batch, too."""


@dataclasses.dataclass(frozen=True)
class VideoBatch:
    """Video-level records.

    Attributes:
        places: int64 [n], of each record in what was parsed.
        ids: [n], empty where a record has none.
        labels: int64, of all records, one after the other, as stored.
        label_rows: int64, the row (0 … n − 1) that each label belongs to.
        features: float32 [n, 1152], rgb then audio.
    """

    places: NDArray[np.int64]
    ids: list[str]
    labels: NDArray[np.int64]
    label_rows: NDArray[np.int64]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


def parse_video_batches(
    records: Sequence[Record], num_classes: int
) -> tuple[list[VideoBatch], list[tuple[int, InputError]]]:
    """Parse records as `trainer.records.parse_checked` does, at video level.

    Returns:
        The sound records in batches, and of each other record its place in `records` and what is
        wrong with it.
    """
    parts: list[VideoBatch] = []
    single: list[int] = []
    by_length = collections.defaultdict(list)
    for place, record in enumerate(records):
        by_length[len(record.payload)].append(place)
    for length, all_places in by_length.items():
        places = all_places
        while len(places) >= _FEWEST:
            layout = _Layout.of(records[places[0]].payload)
            if layout is None:
                single.append(places.pop(0))
                continue
            joined = b"".join([records[place].payload for place in places])
            alike = layout.alike(np.frombuffer(joined, np.uint8).reshape(-1, length))
            part, rest = layout.read(joined, alike, np.array(places, np.int64), num_classes)
            parts.append(part)
            single += rest
            places = [place for place, same in zip(places, alike.tolist(), strict=True) if not same]
        single += places
    wrong: list[tuple[int, InputError]] = []
    for place in single:
        try:
            parts.append(_of_one(records[place], place, num_classes))
        except InputError as error:
            wrong.append((place, error))
    wrong.sort(key=lambda one: one[0])
    small = [part for part in parts if len(part) < _SMALL]
    whole = [part for part in parts if len(part) >= _SMALL]
    return whole + ([_joined(small)] if small else []), wrong


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where the values stand that differ from record to record, each as (first byte, end)."""

    id: tuple[int, int]
    labels: tuple[int, int]
    rgb: int
    audio: int
    fixed: tuple[tuple[int, int], ...]
    sample: bytes

    @classmethod
    def of(cls, payload: bytes) -> _Layout | None:
        found = record_layout.locate(payload)
        if found is None or found.lists:
            return None
        context = found.context
        names = [name for name in _IDS if name in context]
        if len(names) != 1 or context.keys() != {*names, _LABELS, _RGB, _AUDIO}:
            return None
        rgb = record_layout.floats_at(payload, context[_RGB], RGB_SIZE)
        audio = record_layout.floats_at(payload, context[_AUDIO], AUDIO_SIZE)
        labels = record_layout.integers_at(payload, context[_LABELS])
        video_id = record_layout.single_bytes_at(payload, context[names[0]])
        if rgb is None or audio is None or labels is None or video_id is None:
            return None
        varying = sorted(
            [video_id, labels, (rgb, rgb + 4 * RGB_SIZE), (audio, audio + 4 * AUDIO_SIZE)]
        )
        starts = [0, *(end for _, end in varying)]
        ends = [*(start for start, _ in varying), len(payload)]
        fixed = tuple(zip(starts, ends, strict=True))
        return cls(video_id, labels, rgb, audio, fixed, payload)

    def alike(self, payloads: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """bool [n], of the payloads [n, length] that are laid out like this."""
        sample = np.frombuffer(self.sample, np.uint8)
        same = np.ones(len(payloads), bool)
        for start, end in self.fixed:
            same &= (payloads[:, start:end] == sample[start:end]).all(axis=1)
        return same

    def read(
        self,
        joined: bytes,
        alike: NDArray[np.bool_],
        places: NDArray[np.int64],
        num_classes: int,
    ) -> tuple[VideoBatch, list[int]]:
        """The sound ones of the records that are alike, and the places of the others of them."""
        length = len(self.sample)
        payloads = np.frombuffer(joined, np.uint8).reshape(-1, length)
        first, end = self.labels
        rows, labels, sound = _varints(payloads[:, first:end])
        features = np.empty((len(places), FEATURE_SIZE), np.float32)
        for at, start, size in ((self.rgb, 0, RGB_SIZE), (self.audio, RGB_SIZE, AUDIO_SIZE)):
            features[:, start : start + size] = np.ndarray(
                (len(places), size), "<f4", joined, at, (length, 4)
            )
        # A sum is finite only if each of its numbers is (and no sum of these overflows float64).
        with np.errstate(invalid="ignore"):
            sound &= np.isfinite(features.sum(axis=1, dtype=np.float64))
        np.logical_and.at(sound, rows, labels < num_classes)
        keep = alike & sound
        row_of = np.cumsum(keep) - 1
        kept_labels = keep[rows]
        id_first, id_end = self.id
        ids = [
            id_text(joined[at + id_first : at + id_end])
            for at in (np.flatnonzero(keep) * length).tolist()
        ]
        batch = VideoBatch(
            places[keep],
            ids,
            labels[kept_labels],
            row_of[rows[kept_labels]],
            features if keep.all() else features[keep],
        )
        return batch, places[alike & ~sound].tolist()


def _varints(
    data: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Integers of rows of packed varints [n, s]: their rows, their values, which rows are sound.

    A row is not sound that ends inside an integer, or has one of more than four bytes (of 2²⁸ and
    more, or negative).
    """
    count, size = data.shape
    sound = np.ones(count, bool)
    value, shift = np.zeros(count, np.int64), np.zeros(count, np.int64)
    rows, values = [], []
    for column in range(size):
        byte = data[:, column].astype(np.int64)
        value += (byte & 0x7F) << shift
        ended = byte < 0x80
        rows.append(np.flatnonzero(ended))
        values.append(value[ended])
        value[ended] = 0
        shift = np.where(ended, 0, shift + 7)
        sound &= shift < 28
        shift = np.minimum(shift, 28)
    sound &= shift == 0
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), sound
    row, all_values = np.concatenate(rows), np.concatenate(values)
    order = np.argsort(row, kind="stable")
    return row[order], all_values[order], sound


def _of_one(record: Record, place: int, num_classes: int) -> VideoBatch:
    video = parse_checked(record, VIDEO, num_classes)
    return VideoBatch(
        np.array([place], np.int64),
        [video.video_id],
        video.labels,
        np.zeros(len(video.labels), np.int64),
        np.concatenate([video.rgb, video.audio])[None].astype(np.float32),
    )


def _joined(parts: Sequence[VideoBatch]) -> VideoBatch:
    starts = np.cumsum([0, *(len(part) for part in parts)])[:-1].tolist()
    return VideoBatch(
        np.concatenate([part.places for part in parts]),
        [video_id for part in parts for video_id in part.ids],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([p.label_rows + start for p, start in zip(parts, starts, strict=True)]),
        np.concatenate([part.features for part in parts]),
    )
