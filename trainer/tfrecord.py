"""The TFRecord framing: length, masked CRC-32C of it, payload, masked CRC-32C of that.

https://www.tensorflow.org/tutorials/load_data/tfrecord. A file of it has no table of contents; one
walk over the headers makes an `Index`, by which each record is then read on its own.
"""

from __future__ import annotations

import dataclasses
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


def scan_records(
    file: ByteSource,
    name: str,
    size: int,
    first: int = 0,
    offset: int = 0,
    end: int | None = None,
) -> Iterator[Record | Damage]:
    """Every record of a file that can be read, and what can not: it goes on after a damaged one.

    Each byte is read once. Records of some size are read into the memory that they stay in, small
    ones many at a time.

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
    known: dict[bytes, int] = {}  # lengths by headers that were found sound
    while offset < end:
        # A small record that is in memory as a whole.
        data, at = source.data, source.at
        length = known.get(data[at : at + _HEADER.size], -1)
        stop = at + _HEADER.size + length
        if length >= 0 and stop + _CRC.size <= len(data):
            payload = data[at + _HEADER.size : stop]
            if _CRC.unpack_from(data, stop)[0] == _masked_crc32c(payload):
                yield Record(name, index, offset, payload)
            else:
                yield Damage(index, offset, _mismatch(payload), whole_rest=False)
            source.at = stop + _CRC.size
            index += 1
            offset += length + FRAME_BYTES
            continue
        header = source.take(_HEADER.size)
        try:
            length = _checked_length(name, header, index, offset, size)
        except InputError as error:
            reason = str(error).removeprefix(f"{name}: ").partition("): ")
            yield Damage(index, offset, reason[2] or reason[0], whole_rest=True)
            return
        if len(known) < _KNOWN_HEADERS:
            known[header] = length
        payload = source.take(length)
        checksum = source.take(_CRC.size)
        if len(checksum) < _CRC.size:
            yield Damage(index, offset, "the file has become shorter: cut off", whole_rest=True)
            return
        if _CRC.unpack(checksum)[0] != _masked_crc32c(payload):
            yield Damage(index, offset, _mismatch(payload), whole_rest=False)
        else:
            yield Record(name, index, offset, payload)
        index += 1
        offset += length + FRAME_BYTES


class _Buffered:
    """Reads small pieces of a source in large ones, and large pieces without a copy."""

    def __init__(self, file: ByteSource) -> None:
        self._file, self._large = file, True
        self.data, self.at = b"", 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes; fewer at the end of the file."""
        at = self.at
        if at + count <= len(self.data):
            self.at = at + count
            return self.data[at : at + count]
        rest = self.data[at:]
        # After a large record only the next one's header is read ahead of it.
        if count > _READ_AHEAD // 4:
            self._large = True
            self.data, self.at = b"", 0
            return rest + self._read(count - len(rest)) if rest else self._read(count)
        ahead = FRAME_BYTES if self._large and count <= FRAME_BYTES else _READ_AHEAD
        self._large = False
        self.data = rest + self._read(max(ahead, count) - len(rest))
        self.at = min(count, len(self.data))
        return self.data[: self.at]

    def _read(self, count: int) -> bytes:
        """Of the file; it may give less at a time than it has."""
        parts: list[bytes] = []
        while count > 0:
            part = self._file.read(count)
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
    length, length_crc = _HEADER.unpack(header)
    if _masked_crc32c(header[:8]) != length_crc:
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
    return int(length)
