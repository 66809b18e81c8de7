"""The compiled loops behind `trainer.record_batch`: fields of video-level records in place.

Importing this compiles them, about a second for each process: only who parses batches does. They
are not kept in files, as a container's file system may be read-only and two processes may start at
once.

They read bytes that anything may have written: no byte outside a record is looked at. Wire format:
https://protobuf.dev/programming-guides/encoding; messages:
https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/core/example/feature.proto.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from numba import types

from trainer.record_format import (
    AUDIO_SIZE,
    FEATURE_SIZE,
    ID_KEYS,
    LABELS_KEY,
    LONGEST_ID,
    MEAN_AUDIO_KEY,
    MEAN_RGB_KEY,
    RGB_SIZE,
)
from trainer.record_layout import BYTES, FLOAT, INT64

ID, LABELS, RGB, AUDIO = 0, 2, 4, 6
"""Columns of the places of a record's parts: the first byte of each, and in the next its end."""
COLUMNS = 8
_ALL = 1 << ID | 1 << LABELS | 1 << RGB | 1 << AUDIO

_NAMES = tuple(key.encode() for key in (*ID_KEYS, LABELS_KEY, MEAN_RGB_KEY, MEAN_AUDIO_KEY))
_SIZES = np.array([len(name) for name in _NAMES])
_LETTERS = np.array([[*name.ljust(_SIZES.max(), b"\0")] for name in _NAMES], np.uint8)
_COLUMN_OF = np.array([ID] * len(ID_KEYS) + [LABELS, RGB, AUDIO])
_KIND_OF = np.array([BYTES] * len(ID_KEYS) + [INT64, FLOAT, FLOAT])
_FIRST, _SECOND = 0x0A, 0x12  # tags of the fields 1 and 2, length-delimited
_LENGTH_BYTES = 5
_LABEL_BYTES = 4
_INFINITY = np.uint32(0x7F800000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)

_INT = types.int64
_RAW = types.Array(types.uint8, 1, "C", readonly=True)
_VECTOR, _TABLE = types.Array(_INT, 1, "C"), types.Array(_INT, 2, "C")
_FLAGS = types.Array(types.boolean, 1, "C")
_BYTES, _BYTES_TABLE = types.Array(types.uint8, 1, "C"), types.Array(types.uint8, 2, "C")
_WORDS = types.Array(types.uint32, 1, "C")
_compiled = functools.partial(numba.njit, nogil=True)
# Compiled loops look whether a signed index is negative.
_unsigned = np.uint64
_RGB_BYTES, _AUDIO_BYTES = _unsigned(4 * RGB_SIZE), _unsigned(4 * AUDIO_SIZE)
_FEATURE_SIZE = _unsigned(FEATURE_SIZE)


@_compiled(types.UniTuple(_INT, 2)(_RAW, _INT, _INT, _INT))
def _field(data: Any, start: Any, end: Any, tag: Any) -> Any:
    """First byte and end of a length-delimited field of a tag; −1 if it is not there, and whole."""
    found = -1, -1
    length: Any = 0
    if start < end and data[start] == tag:
        at = start + 1
        for i in range(min(_LENGTH_BYTES, end - at)):
            byte = np.int64(data[at + i])
            length |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                first = at + i + 1
                if length <= end - first:
                    found = first, first + length
                break
    return found


@_compiled(_INT(_RAW, _INT, _INT))
def _feature_number(data: Any, start: Any, end: Any) -> Any:
    """Which of `_NAMES` the bytes are; −1 if none."""
    for number in range(len(_SIZES)):
        if end - start == _SIZES[number]:
            equal = True
            for i in range(end - start):
                equal &= data[start + i] == _LETTERS[number, i]
            if equal:
                return number
    return -1


@_compiled(_INT(_RAW, _INT, _INT, _VECTOR))
def _entry(data: Any, start: Any, end: Any, places: Any) -> Any:
    """Note the place of the values of a map's entry; its column, or −1."""
    key, key_end = _field(data, start, end, _FIRST)
    if key < 0:
        return -1
    feature, feature_end = _field(data, key_end, end, _SECOND)
    number = _feature_number(data, key, key_end)
    if feature < 0 or feature_end != end or number < 0:
        return -1
    values, values_end = _field(data, feature, feature_end, _KIND_OF[number])
    if values < 0 or values_end != feature_end:
        return -1
    column = _COLUMN_OF[number]
    first, last = values, values_end  # of a list of labels, which may be empty
    if column != LABELS or values < values_end:
        first, last = _field(data, values, values_end, _FIRST)
    size = last - first
    fits = (
        (column == LABELS)
        | ((column == ID) & (size <= LONGEST_ID))
        | ((column == RGB) & (size == 4 * RGB_SIZE))
        | ((column == AUDIO) & (size == 4 * AUDIO_SIZE))
    )
    if first < 0 or last != values_end or not fits:
        return -1
    places[column], places[column + 1] = first, last
    return column


@_compiled(types.boolean(_RAW, _INT, _INT, _VECTOR))
def _locate_one(data: Any, begin: Any, end: Any, places: Any) -> Any:
    at, context_end = _field(data, begin, end, _FIRST)
    if at < 0:
        return False
    # A second field may follow if it is empty, as in the public validate shards.
    if context_end != end and not (
        context_end + 2 == end and data[context_end] == _SECOND and data[context_end + 1] == 0
    ):
        return False
    found = 0
    while at < context_end:
        entry, at = _field(data, at, context_end, _FIRST)
        column = _entry(data, entry, at, places) if entry >= 0 else -1
        if column < 0 or found & (1 << column):
            return False
        found |= 1 << column
    return found == _ALL


@_compiled(types.void(_RAW, _VECTOR, _VECTOR, _TABLE, _FLAGS))
def locate(data: Any, begins: Any, ends: Any, places: Any, sound: Any) -> None:
    """Find where the parts of records stand.

    Args:
        data: uint8, some bytes of a file.
        begins, ends: int64 [n], of each record in `data`.
        places: int64 [n, `COLUMNS`], to fill in; zeros for records that are not read.
        sound: bool [n], to fill in: whether the record has an id, labels and both features, each
            once, and nothing else, laid out as every known writer does.
    """
    for row in range(len(begins)):
        sound[row] = _locate_one(data, begins[row], ends[row], places[row])
        if not sound[row]:
            places[row] = 0


@_compiled(_INT(_RAW, _TABLE, _INT, _FLAGS, _BYTES_TABLE, _VECTOR, _VECTOR, _BYTES, _WORDS))
def read(
    data: Any, places: Any, num_classes: Any, sound: Any, ids: Any, labels: Any, rows: Any,
    codes: Any, words: Any,
) -> Any:  # fmt: skip
    """Read the parts of records.

    Args:
        data, places: as of `locate`.
        num_classes: C.
        sound: bool [n], which records to read. Taken back from those with an id that is no plain
            text, a label that is none of C, or a value that is not finite.
        ids: uint8 [n, longest], to fill in.
        labels, rows: int64, to fill in: labels one after the other, and whose each is.
        codes, words: uint8 [n · 4608] and uint32 [n · 1152], the memory of the features, to fill
            in.

    Returns:
        The number of labels.
    """
    kept = 0
    for row in range(len(sound)):
        if not sound[row]:
            continue
        good: Any = True
        first = places[row, ID]
        for i in range(places[row, ID + 1] - first):
            # What is no ASCII may have to be escaped, a zero would end the text.
            good &= 0 < data[first + i] < 0x80
            ids[row, i] = data[first + i]
        value: Any = 0
        count, used = kept, 0
        for at in range(places[row, LABELS], places[row, LABELS + 1]):
            byte = np.int64(data[at])
            value |= (byte & 0x7F) << (7 * used)
            if byte >= 0x80:
                used = min(used + 1, _LABEL_BYTES)
                good &= used < _LABEL_BYTES
            else:
                good &= value < num_classes
                labels[count], rows[count] = value, row
                count, value, used = count + 1, 0, 0
        good &= used == 0
        to, start = _unsigned(4 * FEATURE_SIZE * row), _unsigned(places[row, RGB])
        for i in range(_RGB_BYTES):
            codes[to + i] = data[start + i]
        to, start = to + _RGB_BYTES, _unsigned(places[row, AUDIO])
        for i in range(_AUDIO_BYTES):
            codes[to + i] = data[start + i]
        largest, to = np.uint32(0), _unsigned(FEATURE_SIZE * row)
        for i in range(_FEATURE_SIZE):
            largest = max(largest, words[to + i] & _MAGNITUDE)
        good &= largest < _INFINITY  # whose bits those of NaN are above
        sound[row] = good
        if good:
            kept = count
    return kept
