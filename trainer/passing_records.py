"""The records of a file whose bytes pass by, on their way to somewhere else."""

from __future__ import annotations

import sys

from trainer.errors import InputError
from trainer.tfrecord import (
    CRC,
    FRAME_BYTES,
    HEADER,
    Record,
    checked_length,
    mismatch,
    stated_length,
)
from trainer.tfrecord_scan import Damage, sound_in_memory, without_place

_LONGEST = 1 << 28
_MOST_DAMAGES = 100


class PassingRecords:
    """`scan_chunks` of a file whose bytes pass by in pieces of any sizes.

    Attributes:
        name: of the file, for messages.
        count: sound records.
        first: the first of them.
        damages: what the file has in place of records, the first hundred.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.first: Record | None = None
        self.damages: list[Damage] = []
        self._data = b""
        self._index = self._offset = 0
        self._over = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the file."""
        if self._over:
            return
        self._data = self._data + piece if self._data else piece
        at = 0
        while not self._over and (step := self._next(at)):
            at += step
        self._data = self._data[at:]

    def finish(self) -> None:
        """The file is at its end."""
        size = self._offset + len(self._data)
        if self._over or (size and not self._data):
            return
        try:
            if not size:
                raise InputError("is empty; expected a TFRecord file with records")
            header = self._data[: HEADER.size]
            checked_length(self.name, header, self._index, self._offset, size)
        except InputError as error:
            self._lost(without_place(error, self.name), True)

    def _next(self, at: int) -> int:
        """Count what is whole from there on; how many bytes that was."""
        data = self._data
        begins, ends = sound_in_memory(data, at, len(data))
        if begins:
            if not self.count:
                self.first = Record(self.name, self._index, self._offset, data[begins[0] : ends[0]])
            self.count += len(begins)
            return self._passed(len(begins), ends[-1] + CRC.size - at)
        if len(data) - at < HEADER.size:
            return 0
        header = data[at : at + HEADER.size]
        length = stated_length(header)
        if not 0 <= length <= _LONGEST:
            try:
                checked_length(self.name, header, self._index, self._offset, sys.maxsize)
                reason = f"states {length:,} bytes, expected {_LONGEST:,} at most"
            except InputError as error:
                reason = without_place(error, self.name)
            self._lost(reason, True)
            return 0
        if len(data) - at < length + FRAME_BYTES:
            return 0
        begin = at + HEADER.size
        self._lost(mismatch(data[begin : begin + length]), False)
        return self._passed(1, length + FRAME_BYTES)

    def _passed(self, records: int, size: int) -> int:
        self._index += records
        self._offset += size
        return size

    def _lost(self, reason: str, whole_rest: bool) -> None:
        self._over = whole_rest
        if len(self.damages) < _MOST_DAMAGES:
            self.damages.append(Damage(self._index, self._offset, reason, whole_rest))
