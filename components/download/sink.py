"""Where the bytes of a file go as they come; it has its name only when they are proved."""

from __future__ import annotations

import abc
import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any

import google_crc32c

MD5, CRC32C = "md5:", "crc32c:"
"""How a checksum starts; hexadecimal digits follow."""


class FailedError(Exception):
    """A file can not be had; the message says why."""


class NoSpaceError(Exception):
    """The disk is full: nothing else can be had either."""


class StoppedError(Exception):
    """The run is to end."""


class WrongBytesError(Exception):
    """All bytes are there and are not those of the file; what was found is the message."""


class LostError(Exception):
    """What was received is gone; it has to come again. The message says why."""


class Sink(abc.ABC):
    """A file that comes in order, by any number of answers of any number of servers."""

    @abc.abstractmethod
    def have(self) -> int:
        """Bytes that need not come again."""

    @abc.abstractmethod
    def note(self) -> Mapping[str, Any]:
        """What they are part of, as `begin` was told; empty: there are none."""

    @abc.abstractmethod
    def begin(self, note: Mapping[str, Any]) -> None:
        """Forget what is there: what comes now is the file from its first byte."""

    def expect(self, count: int) -> None:  # noqa: B027 - a place without bounds need not look
        """So many bytes are to come.

        Raises:
            OSError: there is no room for them.
        """

    def opened(self) -> contextlib.AbstractContextManager[None]:
        """Hold open what `write` needs."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def write(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            LostError: all have to come again.
            FailedError, InputError: it can not be written to.
        """

    @abc.abstractmethod
    def seal(self) -> None:
        """Prove all bytes and give the file its name.

        Raises:
            WrongBytesError: they are not the file's.
            LostError: all have to come again.
            FailedError, InputError: it can not be written to.
        """

    @abc.abstractmethod
    def discard(self) -> None:
        """Forget what is there."""


class Digests:
    """MD5 of what passes, and CRC-32C where a file is proved by that.

    Cloud Storage knows no MD5 of an object that was put together of others
    (https://cloud.google.com/storage/docs/composite-objects).
    """

    def __init__(self, checksum: str) -> None:
        self.count = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc32c = google_crc32c.Checksum() if checksum.startswith(CRC32C) else None
        self._checksum = checksum

    def update(self, data: bytes | memoryview) -> None:
        self._md5.update(data)
        if self._crc32c:
            self._crc32c.update(bytes(data))
        self.count += len(data)

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    @property
    def checksum(self) -> str:
        """Of the kind that proves the file."""
        if self._crc32c:
            return f"{CRC32C}{self._crc32c.digest().hex()}"
        return f"{MD5}{self.md5}"

    def check(self) -> None:
        """Raise `WrongBytesError` unless these are the file's bytes."""
        if self.checksum != self._checksum:
            raise WrongBytesError(
                f"{self.count:,} bytes with the {described(self.checksum)}, expected "
                f"{self._checksum.partition(':')[2]}"
            )


def described(checksum: str) -> str:
    kind, _, digits = checksum.partition(":")
    return f"{'MD5' if kind == 'md5' else 'CRC-32C'} {digits}"
