"""Reading an object of a bucket whole, for what it proves."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from components.download.cloud_storage import StoredObject
from components.download.display import Silent
from components.download.plan import RemoteFile
from components.download.servers import Rate, Servers
from components.download.sink import Digests, FailedError, Sink
from components.download.transfer import Transfer
from trainer.errors import InputError
from trainer.passing_records import PassingRecords


class Seen(Sink):
    """A sink that keeps what was seen, not what came.

    Attributes:
        records: those that passed.
    """

    def __init__(self, uri: str, checksum: str) -> None:
        self._uri, self._checksum = uri, checksum
        self._note: Mapping[str, Any] = {}
        self.discard()

    @property
    def md5(self) -> str:
        return self._digests.md5

    def have(self) -> int:
        return self._digests.count

    def note(self) -> Mapping[str, Any]:
        return self._note

    def begin(self, note: Mapping[str, Any]) -> None:
        self.discard()
        self._note = note

    def write(self, chunk: bytes) -> None:
        self._digests.update(chunk)
        self.records.feed(chunk)

    def seal(self) -> None:
        self._digests.check()
        self.records.finish()

    def discard(self) -> None:
        self._note = {}
        self._digests = Digests(self._checksum)
        self.records = PassingRecords(self._uri)


def read_object(stored: StoredObject, servers: Servers) -> Seen:
    """Read all of an object.

    Raises:
        InputError: it can not be had, or its bytes are not those that it should have.
    """
    name = stored.uri.rpartition("/")[2]
    file = RemoteFile("", "", name, stored.checksum, (stored.uri,), stored.bytes)
    seen = Seen(stored.uri, stored.checksum)
    transfer = Transfer(file, seen, stored.uri, servers, Rate(0), threading.Event(), Silent())
    try:
        transfer.run()
    except FailedError as error:
        raise InputError(str(error)) from None
    return seen
