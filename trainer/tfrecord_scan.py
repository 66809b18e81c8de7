"""Reading a TFRecord file from its start to its end, over what is damaged in it.

For who counts or proves: small records come many at a time, and a damaged one is said, not raised.
The framing itself is `trainer.tfrecord`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol

from trainer.errors import InputError
from trainer.tfrecord import (
    CRC,
    FRAME_BYTES,
    HEADER,
    Record,
    checked_length,
    masked_crc32c,
    mismatch,
    stated_length,
)

_READ_AHEAD = 1 << 18
_SMALL = 1 << 16


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
            begins, ends = sound_in_memory(source.data, source.at, source.at + end - offset)
            if begins:
                yield Chunk(name, index, offset, source.data, begins, ends)
                index += len(begins)
                offset += ends[-1] + CRC.size - source.at
                source.at = ends[-1] + CRC.size
                continue
            # The next record is not in memory, not as a whole, or something is the matter with it.
            header = source.peek(HEADER.size, read_ahead)
            try:
                length = checked_length(name, header, index, offset, size)
            except InputError as error:
                yield Damage(index, offset, without_place(error, name), whole_rest=True)
                return
            if length <= _SMALL:
                read_ahead = _READ_AHEAD
                framed = source.peek(length + FRAME_BYTES, read_ahead)
                payload, checksum = framed[HEADER.size : -CRC.size], framed[-CRC.size :]
                whole = len(framed) == length + FRAME_BYTES
                if whole and CRC.unpack(checksum)[0] == masked_crc32c(payload):
                    continue  # with all the others that are in memory now
                source.at += len(framed)
            else:
                source.at += HEADER.size
                payload = source.take(length)
                # Of what follows only the next header, so that its record has its own memory, too.
                read_ahead = 0
                checksum = source.peek(FRAME_BYTES)[: CRC.size]
                source.at += len(checksum)
                whole = len(checksum) == CRC.size
            if not whole:
                yield Damage(index, offset, "the file has become shorter: cut off", whole_rest=True)
                return
            if CRC.unpack(checksum)[0] != masked_crc32c(payload):
                yield Damage(index, offset, mismatch(payload), whole_rest=False)
            else:
                yield Chunk(name, index, offset, payload, [0], [length])
            index += 1
            offset += length + FRAME_BYTES
    except OSError as error:
        yield Damage(index, offset, f"can not be read on: {error.strerror or error}", True)


def sound_in_memory(data: bytes, at: int, end: int) -> tuple[list[int], list[int]]:
    """Begins and ends of the payloads from a header at `at` on, up to the first not sound one."""
    begins, ends = [], []
    while at < end:
        length = stated_length(data[at : at + HEADER.size])
        begin = at + HEADER.size
        stop = begin + length
        at = stop + CRC.size
        if length < 0 or at > len(data):
            break
        if CRC.unpack_from(data, stop)[0] != masked_crc32c(data[begin:stop]):
            break
        begins.append(begin)
        ends.append(stop)
    return begins, ends


def without_place(error: InputError, name: str) -> str:
    """What an error of `trainer.tfrecord` says, but for the file and the record."""
    reason = str(error).removeprefix(f"{name}: ").partition("): ")
    return reason[2] or reason[0]


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
