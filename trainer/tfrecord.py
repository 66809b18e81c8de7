"""The TFRecord framing: length, masked CRC-32C of it, payload, masked CRC-32C of that.

https://www.tensorflow.org/tutorials/load_data/tfrecord. A file of it has no table of contents; one
walk over the headers makes an `Index`, by which each record is then read on its own.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError

HEADER = struct.Struct("<QI")
CRC = struct.Struct("<I")
FRAME_BYTES = HEADER.size + CRC.size
"""What the framing adds to a payload."""
_KNOWN_HEADERS = 4096
_WINDOW = 1 << 18
_SHORT = _WINDOW // 16
"""Payloads up to this many bytes are read along with the headers: one call for many of them."""


@dataclasses.dataclass(slots=True)
class Record:
    """The bytes of one record and where they stand."""

    path: str
    index: int
    offset: int
    payload: bytes

    def error(self, message: str) -> InputError:
        return InputError(f"{self.path}: record {self.index} (at byte {self.offset:,}): {message}")


@dataclasses.dataclass(frozen=True)
class Index:
    """Where the records of a file stand.

    Attributes:
        path: the file.
        offsets: int64 [n + 1]: the first byte of each record, and the end of the last.
        checksums: uint32 [n]: of each payload, as stored.
        damage: why the records after these can not be found; None at the end of a sound file.
    """

    path: str
    offsets: NDArray[np.int64]
    checksums: NDArray[np.uint32]
    damage: InputError | None

    def __len__(self) -> int:
        return len(self.checksums)


def masked_crc32c(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def index_file(path: str | os.PathLike[str]) -> Index:
    """Walk over the headers of a file, verifying them; long payloads are not read.

    Raises:
        InputError: the file is absent, empty or no TFRecord file; the message names it.
    """
    name = os.fspath(path)
    descriptor = open_file(name)
    try:
        return index_open(name, descriptor)
    finally:
        os.close(descriptor)


def index_open(name: str, descriptor: int) -> Index:
    """`index_file` of one that is open; its position is neither used nor moved."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        raise InputError(f"{name}: is empty; expected a TFRecord file with records")
    offsets, offset = [0], 0
    tails: list[bytes] = []
    damage = None
    window, first = os.pread(descriptor, HEADER.size, 0), 0
    header = window
    while offset < size:
        length = stated_length(header)
        end = offset + length + FRAME_BYTES
        if length < 0 or end > size:
            try:
                checked_length(name, header, len(tails), offset, size)
            except InputError as error:
                if "is no TFRecord file" in str(error):
                    raise
                # The traceback would keep this function's lists alive.
                damage = error.with_traceback(None)
            break
        offset = end
        # A record's last bytes and the next one's first.
        at = end - CRC.size - first
        tail = window[at : at + FRAME_BYTES]
        if len(tail) < FRAME_BYTES:
            first = end - CRC.size
            window = os.pread(descriptor, _WINDOW if length <= _SHORT else FRAME_BYTES, first)
            if len(window) < CRC.size:
                raise InputError(f"{name}: has become shorter while it was read: cut off")
            tail = window[:FRAME_BYTES]
        tails.append(tail[: CRC.size])
        offsets.append(end)
        header = tail[CRC.size :]
    return Index(name, np.array(offsets, np.int64), np.frombuffer(b"".join(tails), "<u4"), damage)


def read_block(descriptor: int, index: Index, start: int, count: int) -> Iterator[Record]:
    """`count` consecutive records from record `start`, in one read.

    Args:
        descriptor: of the open file; its position is neither used nor moved, so that threads can
            share it.
        index: of that file.
        start, count: of records that the index has.

    Raises:
        InputError: a record whose checksum does not match, or that the file no longer has. The
            records after it can be read by another call.
    """
    offsets = index.offsets[start : start + count + 1].tolist()
    first = offsets[0] + HEADER.size
    data = os.pread(descriptor, offsets[-1] - CRC.size - first, first)
    for i in range(count):
        begin, end = offsets[i] + HEADER.size - first, offsets[i + 1] - CRC.size - first
        payload = data if count == 1 else data[begin:end]
        record = Record(index.path, start + i, offsets[i], payload)
        if len(payload) != end - begin:
            raise record.error("the file has become shorter: cut off")
        if index.checksums[start + i] != masked_crc32c(payload):
            raise record.error(mismatch(payload))
        yield record


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Every record of a TFRecord file in order, both checksums of each verified.

    Raises:
        InputError: the file is absent, empty, no TFRecord file, cut off or damaged; the message
            names the file, the record and its offset.
    """
    name = os.fspath(path)
    descriptor = open_file(name)
    with os.fdopen(descriptor, "rb", buffering=1 << 20) as file:
        size = os.fstat(descriptor).st_size
        if size == 0:
            raise InputError(f"{name}: is empty; expected a TFRecord file with records")
        index = offset = 0
        while offset < size:
            length = checked_length(name, file.read(HEADER.size), index, offset, size)
            body = file.read(length + CRC.size)
            record = Record(name, index, offset, body[:length])
            if CRC.unpack_from(body, length)[0] != masked_crc32c(record.payload):
                raise record.error(mismatch(record.payload))
            yield record
            index += 1
            offset += length + FRAME_BYTES


def write_records(path: str | os.PathLike[str], payloads: Iterable[bytes]) -> int:
    """Write a TFRecord file; returns how many records it holds."""
    count = 0
    with Path(path).open("wb", buffering=1 << 20) as file:
        for payload in payloads:
            length = struct.pack("<Q", len(payload))
            file.write(length + CRC.pack(masked_crc32c(length)))
            file.write(payload)
            file.write(CRC.pack(masked_crc32c(payload)))
            count += 1
    return count


def open_file(name: str) -> int:
    """A descriptor to read with.

    Raises:
        InputError: no such file.
    """
    if not Path(name).is_file():
        raise InputError(f"{name}: no such file")
    return os.open(name, os.O_RDONLY | os.O_CLOEXEC)


def mismatch(payload: bytes) -> str:
    return f"the checksum of its {len(payload):,} bytes does not match: damaged"


@functools.lru_cache(_KNOWN_HEADERS)
def stated_length(header: bytes) -> int:
    """The payload's length that a header states; −1 if it is not sound."""
    if len(header) < HEADER.size:
        return -1
    length, length_crc = HEADER.unpack(header)
    return int(length) if masked_crc32c(header[:8]) == length_crc else -1


def checked_length(name: str, header: bytes, index: int, offset: int, size: int) -> int:
    """The payload's length that a header states, if it is sound and the file long enough."""
    if len(header) < HEADER.size:
        if index == 0:
            raise InputError(f"{name}: is no TFRecord file: only {size} bytes long")
        raise Record(name, index, offset, b"").error(
            f"the file ends inside its header, {size:,} bytes long: cut off"
        )
    length = stated_length(header)
    if length < 0:
        if index == 0:
            raise InputError(
                f"{name}: is no TFRecord file: it starts with {header!r}, expected a record's "
                "length and the CRC-32C of that"
            )
        raise Record(name, index, offset, b"").error(
            "the checksum of its length does not match: damaged"
        )
    # Compared before reading, so that a damaged length never asks for that much memory.
    missing = offset + length + FRAME_BYTES - size
    if missing > 0:
        raise Record(name, index, offset, b"").error(
            f"the file ends {missing:,} bytes before the record does: cut off"
        )
    return length
