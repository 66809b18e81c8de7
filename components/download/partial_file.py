"""A file on its way into a local folder.

Until it is proved, it is `.NAME.part`, and beside it `.NAME.part.json` says what it is part of.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.download.sink import Digests, Sink
from trainer.errors import InputError
from trainer.files import read_json

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
        self._descriptor = -1
        try:
            self._size = self._partial.stat().st_size
            self._is_new = False
        except FileNotFoundError:
            self._size, self._is_new = 0, True

    @property
    def md5(self) -> str:
        return self._digests.md5

    def have(self) -> int:
        return self._size

    def note(self) -> Mapping[str, Any]:
        if self._is_new:
            return {}
        try:
            note = read_json(self._note)
        except InputError:
            return {}
        return note if isinstance(note, dict) else {}

    def begin(self, note: Mapping[str, Any]) -> None:
        self.discard()
        self._is_new = False
        # One that is cut off, or lost with the power, is no note: then the file starts over.
        self._note.write_bytes(json.dumps(note).encode())

    def expect(self, count: int) -> None:
        free = shutil.disk_usage(self._target.parent).free
        if count > free:
            raise OSError(errno.ENOSPC, f"{count:,} bytes to come, {free:,} free")

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        self._is_new = False
        with self._open(os.O_RDWR | os.O_CREAT):
            if self._digests.count == self._size:
                os.lseek(self._descriptor, self._size, os.SEEK_SET)
            else:
                self._hash()
            yield

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:  # a nearly full disk may take less than all
            written = os.write(self._descriptor, rest)
            self._size += written
            rest = rest[written:]
        self._digests.update(chunk)

    def seal(self) -> None:
        with self._open(os.O_RDONLY):
            if self._digests.count != self._size:
                self._hash()
            os.fsync(self._descriptor)
        self._digests.check()
        self._partial.replace(self._target)
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        if not self._is_new:
            self._partial.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self._size, self._is_new = 0, True
        self._digests = Digests(self._checksum)

    @contextlib.contextmanager
    def _open(self, flags: int) -> Iterator[None]:
        self._descriptor = os.open(self._partial, flags | os.O_CLOEXEC, 0o666)
        try:
            yield
        finally:
            os.close(self._descriptor)

    def _hash(self) -> None:
        self._digests = Digests(self._checksum)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        while block := os.read(self._descriptor, _BLOCK):
            self._digests.update(block)
