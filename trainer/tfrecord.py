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
from typing import Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
FRAME_BYTES = _HEADER.size + _CRC.size
"""What the framing adds to a payload."""
_READ_AHEAD = 1 << 18
_SMALL = 1 << 16
_KNOWN_HEADERS = 4096


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


def _masked_crc32c(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def index_file(path: str | os.PathLike[str]) -> Index:
    """Walk over the headers of a file, verifying them; the payloads are not read.

    Raises:
        InputError: the file is absent, empty or no TFRecord file; the message names it.
    """
    name = os.fspath(path)
    descriptor = open_file(name)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            raise InputError(f"{name}: is empty; expected a TFRecord file with records")
        offsets, offset = [0], 0
        checksums: list[int] = []
        damage = None
        header = os.pread(descriptor, _HEADER.size, 0)
        while offset < size:
            try:
                length = _checked_length(name, header, len(checksums), offset, size)
            except InputError as error:
                if "is no TFRecord file" in str(error):
                    raise
                damage = error.with_traceback(None)  # which would keep this function's lists alive
                break
            offset += length + FRAME_BYTES
            # A record's last bytes and the next one's first in one call.
            tail = os.pread(descriptor, FRAME_BYTES, offset - _CRC.size)
            checksums.append(_CRC.unpack_from(tail)[0])
            offsets.append(offset)
            header = tail[_CRC.size :]
    finally:
        os.close(descriptor)
    return Index(name, np.array(offsets, np.int64), np.array(checksums, np.uint32), damage)


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
    first = offsets[0] + _HEADER.size
    data = os.pread(descriptor, offsets[-1] - _CRC.size - first, first)
    for i in range(count):
        begin, end = offsets[i] + _HEADER.size - first, offsets[i + 1] - _CRC.size - first
        payload = data if count == 1 else data[begin:end]
        record = Record(index.path, start + i, offsets[i], payload)
        if len(payload) != end - begin:
            raise record.error("the file has become shorter: cut off")
        if index.checksums[start + i] != _masked_crc32c(payload):
            raise record.error(_mismatch(payload))
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
            length = _checked_length(name, file.read(_HEADER.size), index, offset, size)
            body = file.read(length + _CRC.size)
            record = Record(name, index, offset, body[:length])
            if _CRC.unpack_from(body, length)[0] != _masked_crc32c(record.payload):
                raise record.error(_mismatch(record.payload))
            yield record
            index += 1
            offset += length + FRAME_BYTES


class ByteSource(Protocol):
    """A file to read on and on: of this machine, or of a bucket through Beam."""

    def read(self, size: int, /) -> bytes | None: ...


@dataclasses.dataclass(frozen=True)
class Damage:
    """What a file has in place of records.

    Attributes:
        record: number of the first that is lost.
        offset: of its first byte.
        reason: what was found and expected.
        whole_rest: whether no record after it can be found either.
    """

    record: int
    offset: int
    reason: str
    whole_rest: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive sound records in one piece of memory.

    Attributes:
        path: the file.
        index, offset: of the first of them: its number, and its first byte in the file.
        data: bytes of the file.
        begins, ends: of each record's payload in `data`.
    """

    path: str
    index: int
    offset: int
    data: bytes
    begins: list[int]
    ends: list[int]

    def __len__(self) -> int:
        return len(self.begins)

    def __iter__(self) -> Iterator[Record]:
        return (self.record(place) for place in range(len(self)))

    def record(self, place: int) -> Record:
        begin = self.begins[place]
        offset = self.offset + begin - self.begins[0]
        payload = self.data[begin : self.ends[place]]
        return Record(self.path, self.index + place, offset, payload)


def scan_records(
    file: ByteSource, name: str, size: int, first: int = 0, offset: int = 0, end: int | None = None
) -> Iterator[Record | Damage]:
    """`scan_chunks`, a record at a time."""
    for found in scan_chunks(file, name, size, first, offset, end):
        if isinstance(found, Damage):
            yield found
        else:
            yield from found


def scan_chunks(
    file: ByteSource, name: str, size: int, first: int = 0, offset: int = 0, end: int | None = None
) -> Iterator[Chunk | Damage]:
    """Every record of a file that can be read, and what can not: it goes on after a damaged one.

    Each record is read once: a large one into memory of its own, small ones many at a time.

    Args:
        file: stands at `offset`, where record `first` starts.
        name: of the file, for messages.
        size: of the whole file in bytes.
        first, offset: where to start.
        end: the byte to stop at, where a record ends; None: at the end of the file.
    """
    source = _Buffered(file)
    index, end = first, size if end is None else min(end, size)
    if size == 0:
        yield Damage(0, 0, "is empty; expected a TFRecord file with records", whole_rest=True)
    read_ahead = 0
    try:
        while offset < end:
            begins, ends = _sound_in_memory(source.data, source.at, source.at + end - offset)
            if begins:
                yield Chunk(name, index, offset, source.data, begins, ends)
                index += len(begins)
                offset += ends[-1] + _CRC.size - source.at
                source.at = ends[-1] + _CRC.size
                continue
            # The next record is not in memory, not as a whole, or something is the matter with it.
            header = source.peek(_HEADER.size, read_ahead)
            try:
                length = _checked_length(name, header, index, offset, size)
            except InputError as error:
                reason = str(error).removeprefix(f"{name}: ").partition("): ")
                yield Damage(index, offset, reason[2] or reason[0], whole_rest=True)
                return
            if length <= _SMALL:
                read_ahead = _READ_AHEAD
                framed = source.peek(length + FRAME_BYTES, read_ahead)
                payload, checksum = framed[_HEADER.size : -_CRC.size], framed[-_CRC.size :]
                whole = len(framed) == length + FRAME_BYTES
                if whole and _CRC.unpack(checksum)[0] == _masked_crc32c(payload):
                    continue  # with all the others that are in memory now
                source.at += len(framed)
            else:
                source.at += _HEADER.size
                payload = source.take(length)
                # Of what follows only the next header, so that its record has its own memory, too.
                read_ahead = 0
                checksum = source.peek(FRAME_BYTES)[: _CRC.size]
                source.at += len(checksum)
                whole = len(checksum) == _CRC.size
            if not whole:
                yield Damage(index, offset, "the file has become shorter: cut off", whole_rest=True)
                return
            if _CRC.unpack(checksum)[0] != _masked_crc32c(payload):
                yield Damage(index, offset, _mismatch(payload), whole_rest=False)
            else:
                yield Chunk(name, index, offset, payload, [0], [length])
            index += 1
            offset += length + FRAME_BYTES
    except OSError as error:
        yield Damage(index, offset, f"can not be read on: {error.strerror or error}", True)


def _sound_in_memory(data: bytes, at: int, end: int) -> tuple[list[int], list[int]]:
    """Begins and ends of the payloads from a header at `at` on, up to the first not sound one."""
    begins, ends = [], []
    while at < end:
        length = _stated_length(data[at : at + _HEADER.size])
        begin = at + _HEADER.size
        stop = begin + length
        at = stop + _CRC.size
        if length < 0 or at > len(data):
            break
        if _CRC.unpack_from(data, stop)[0] != _masked_crc32c(data[begin:stop]):
            break
        begins.append(begin)
        ends.append(stop)
    return begins, ends


@functools.lru_cache(_KNOWN_HEADERS)
def _stated_length(header: bytes) -> int:
    """The payload's length that a header states; −1 if it is not sound."""
    if len(header) < _HEADER.size:
        return -1
    length, length_crc = _HEADER.unpack(header)
    return int(length) if _masked_crc32c(header[:8]) == length_crc else -1


class _Buffered:
    """Reads small pieces of a source in large ones, and large pieces without a copy."""

    def __init__(self, file: ByteSource) -> None:
        self._file = file
        self._failed: OSError | None = None
        self.data, self.at = b"", 0

    def peek(self, count: int, read_ahead: int = 0) -> bytes:
        """The next `count` bytes, which are still there afterwards; fewer at the end of the file.

        What is missing is read together with as much as makes `read_ahead` bytes.
        """
        missing = count - (len(self.data) - self.at)
        if missing > 0:
            self.data = self.data[self.at :] + self._read(max(missing, read_ahead))
            self.at = 0
            if self._failed and len(self.data) < count:
                raise self._failed
        return self.data[self.at : self.at + count]

    def take(self, count: int) -> bytes:
        """The next `count` bytes, and none ahead; fewer at the end of the file."""
        found = self.data[self.at : self.at + count]
        self.at += len(found)
        if len(found) == count:
            return found
        rest = self._read(count - len(found))
        if self._failed and len(found) + len(rest) < count:
            raise self._failed
        return found + rest if found else rest

    def _read(self, count: int) -> bytes:
        """Of the file; it may give less at a time than it has."""
        parts: list[bytes] = []
        while count > 0:
            try:
                part = self._file.read(count)
            except OSError as error:  # what came before it is sound
                self._failed = error
                break
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


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


def open_file(name: str) -> int:
    """A descriptor to read with.

    Raises:
        InputError: no such file.
    """
    if not Path(name).is_file():
        raise InputError(f"{name}: no such file")
    return os.open(name, os.O_RDONLY | os.O_CLOEXEC)


def _mismatch(payload: bytes) -> str:
    return f"the checksum of its {len(payload):,} bytes does not match: damaged"


def _checked_length(name: str, header: bytes, index: int, offset: int, size: int) -> int:
    """The payload's length that a header states, if it is sound and the file long enough."""
    if len(header) < _HEADER.size:
        if index == 0:
            raise InputError(f"{name}: is no TFRecord file: only {size} bytes long")
        raise Record(name, index, offset, b"").error(
            f"the file ends inside its header, {size:,} bytes long: cut off"
        )
    length = _stated_length(header)
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
