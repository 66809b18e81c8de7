"""A file on its way into a local folder.

Until it is proved, it is `.NAME.part`, and beside it `.NAME.part.json` says what it is part of.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.download.sink import Digests, Sink
from trainer.errors import InputError
from trainer.files import read_json, write_json

_BLOCK = 1 << 20


class PartialFile(Sink):
    """A sink into a folder.

    Args:
        target: the file.
        checksum: what proves it.
    """

    def __init__(self, target: Path, checksum: str) -> None:
        self._target, self._checksum = target, checksum
        self._partial = target.with_name(f".{target.name}.part")
        self._note = target.with_name(f".{target.name}.part.json")
        self._digests = Digests(checksum)
        self._file: Any = None

    @property
    def md5(self) -> str:
        return self._digests.md5

    def have(self) -> int:
        try:
            return self._partial.stat().st_size
        except FileNotFoundError:
            return 0

    def note(self) -> Mapping[str, Any]:
        try:
            note = read_json(self._note)
        except InputError:
            return {}
        return note if isinstance(note, dict) else {}

    def begin(self, note: Mapping[str, Any]) -> None:
        self.discard()
        write_json(self._note, note)

    def expect(self, count: int) -> None:
        free = shutil.disk_usage(self._target.parent).free
        if count > free:
            raise OSError(errno.ENOSPC, f"{count:,} bytes to come, {free:,} free")

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        start = self.have()
        with self._partial.open("r+b" if start else "wb", buffering=0) as self._file:
            if self._digests.count == start:
                self._file.seek(start)
            else:
                self._hash()
            yield

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:  # a nearly full disk may take less than all
            rest = rest[self._file.write(rest) :]
        self._digests.update(chunk)

    def seal(self) -> None:
        with self._partial.open("rb", buffering=0) as self._file:
            if self._digests.count != self.have():
                self._hash()
            os.fsync(self._file.fileno())
        self._digests.check()
        self._partial.replace(self._target)
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._digests = Digests(self._checksum)

    def _hash(self) -> None:
        self._digests = Digests(self._checksum)
        self._file.seek(0)
        while block := self._file.read(_BLOCK):
            self._digests.update(block)
