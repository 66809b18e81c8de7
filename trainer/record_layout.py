"""Features of a record where they stand in its bytes, without building protocol buffers.

A frame-level record is some hundred byte strings of one length; a message library copies each of
them into an object of its own. Records as every known writer lays them out are read here in place
instead: `locate` walks over the fields and `frame_codes`, `floats`, `integers` and `single_bytes`
read one. Whatever is laid out in another way, valid or not, is None here and left to the message
library, which reads all there is and says what is wrong.

Wire format: https://protobuf.dev/programming-guides/encoding; messages:
https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/core/example/feature.proto.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_FIRST, _SECOND = 0x0A, 0x12  # tags of the fields 1 and 2, length-delimited
BYTES, FLOAT, INT64 = 0x0A, 0x12, 0x1A
"""Tags of a Feature's kinds."""
NO_KIND = 0
"""In their place: a Feature without a value."""
_MAX_LENGTH_BYTES = 5


class _OtherLayoutError(Exception):
    """The bytes are laid out in a way that this module does not read."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the features of a record stand, as (first byte, end) of their list messages.

    Attributes:
        context: by name: the kind's tag and the span of the list of its values.
        lists: by name, of the feature lists.

    The bytes of a span are not looked at before it is read: a feature that nobody reads may be
    none.
    """

    context: dict[bytes, tuple[int, int, int]]
    lists: dict[bytes, tuple[int, int]]


def locate(payload: bytes) -> Layout | None:
    """The layout of a SequenceExample or an Example; None for one in another layout."""
    try:
        context: dict[bytes, tuple[int, int, int]] = {}
        lists: dict[bytes, tuple[int, int]] = {}
        seen = 0
        for tag, start, end in _fields(payload, 0, len(payload)):
            # A repeated message would have to be merged; a third field is none of these messages.
            if not seen < tag <= _SECOND:
                return None
            seen = tag
            for name, begin, stop in _entries(payload, start, end):
                if name in (lists if tag == _SECOND else context):
                    return None
                if tag == _SECOND:
                    lists[name] = (begin, stop)
                elif begin == stop:
                    context[name] = (NO_KIND, begin, stop)
                else:
                    ((kind, first, last),) = _fields(payload, begin, stop)
                    context[name] = (kind, first, last)
    except (_OtherLayoutError, ValueError, IndexError):
        return None
    return Layout(context, lists)


def _fields(payload: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(tag, first byte, end) of each length-delimited field of a message."""
    while start < end:
        tag = payload[start]
        if tag not in (_FIRST, _SECOND, INT64):
            raise _OtherLayoutError
        length, first = _varint(payload, start + 1)
        start = first + length
        if start > end:
            raise _OtherLayoutError
        yield tag, first, start


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    """A length, and the byte after it."""
    byte = payload[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    for i in range(1, _MAX_LENGTH_BYTES):
        byte = payload[at + i]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + i + 1
        shift += 7
    raise _OtherLayoutError


def _entries(payload: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(key, first byte of the value, end) of each entry of a map's message."""
    for tag, first, last in _fields(payload, start, end):
        if tag != _FIRST:
            raise _OtherLayoutError
        (key, key_first, key_last), (value, begin, stop) = _fields(payload, first, last)
        if (key, value) != (_FIRST, _SECOND):
            raise _OtherLayoutError
        name = payload[key_first:key_last]
        if not name.isascii():  # a name that is no UTF-8 makes the message invalid
            raise _OtherLayoutError
        yield name, begin, stop


@functools.cache
def _frame_header(size: int) -> tuple[int, NDArray[np.uint64]]:
    """Length of the bytes before a frame's; the first and the last eight of them, each as uint64.

    They are of three messages inside each other: tag and length of each.
    """
    header = b""
    for tag in (_FIRST, BYTES, _FIRST):  # from inside: value of BytesList, of Feature, of the list
        header = bytes([tag]) + _as_varint(size + len(header)) + header
    return len(header), np.frombuffer(header[:8] + header[-8:], "<u8")


def _as_varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def frame_codes(payload: bytes, span: tuple[int, int], size: int) -> NDArray[np.uint8] | None:
    """uint8 [T, size] of a feature list of T byte strings of `size`: a view, not contiguous."""
    header, expected = _frame_header(size)
    start, end = span
    stride = header + size
    if start == end or (end - start) % stride:
        return None
    frames = (end - start) // stride
    # Eight bytes at a time, twice, which overlap: a frame's header is nine bytes.
    if not (np.ndarray((frames, 2), "<u8", payload, start, (stride, header - 8)) == expected).all():
        return None
    return np.ndarray((frames, size), np.uint8, payload, start + header, (stride, 1))


def floats(payload: bytes, span: tuple[int, int, int], size: int) -> NDArray[np.float32] | None:
    """float32 [size] of a packed float list: a view, not aligned."""
    kind, start, end = span
    if kind != FLOAT or start == end or payload[start] != _FIRST:
        return None
    try:
        length, first = _varint(payload, start + 1)
    except (_OtherLayoutError, IndexError):
        return None
    if length != 4 * size or first + length != end:
        return None
    return np.frombuffer(payload, "<f4", size, first)


def integers(payload: bytes, span: tuple[int, int, int]) -> list[int] | None:
    """Values of a packed list of integers that are not negative."""
    kind, start, end = span
    if kind not in (INT64, NO_KIND):
        return None
    values: list[int] = []
    if start == end:
        return values
    try:
        length, at = _varint(payload, start + 1)
        if payload[start] != _FIRST or at + length != end:
            return None
        while at < end:
            value, at = _varint(payload, at)
            values.append(value)
    except (_OtherLayoutError, IndexError):
        return None
    return values if at == end else None


def single_bytes(payload: bytes, span: tuple[int, int, int]) -> bytes | None:
    """The only value of a list of byte strings."""
    kind, start, end = span
    if kind != BYTES:
        return None
    try:
        ((tag, first, last),) = _fields(payload, start, end)
    except (_OtherLayoutError, ValueError, IndexError):
        return None
    return payload[first:last] if tag == _FIRST else None
