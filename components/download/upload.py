"""A file on its way into a bucket: no copy of it on this machine.

A resumable upload takes the bytes as they come. The last ones are held back until the MD5 of all is
right, and Cloud Storage is told that MD5 at the start and refuses another content: no object ever
has its name with wrong bytes. What a large upload needs to go on is noted in the bucket, so that
another process, on another machine, can
(https://cloud.google.com/storage/docs/performing-resumable-uploads).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import threading
from collections.abc import Mapping
from typing import Any

import tenacity
import urllib3

from components.download.cloud_storage import CloudStorage, StoredObject
from components.download.plan import RemoteFile
from components.download.servers import ANSWER_ERRORS, RETRIED, Servers, in_words
from components.download.sink import (
    Digests,
    FailedError,
    LostError,
    Sink,
    StoppedError,
    WrongBytesError,
)
from trainer.errors import InputError
from trainer.passing_records import PassingRecords

CHUNK = 4 << 20
"""Bytes of a request; a multiple of `_UNIT`."""
NOTED_BYTES = 32 << 20
"""What has to come again at most, if the process is killed, of an upload that is not noted."""
_UNIT = 1 << 18
"""Cloud Storage keeps multiples of this of what is unfinished."""
_RANGE = re.compile(r"bytes=0-(\d{1,19})")
_DONE = (200, 201)
_GONE = (404, 410)


class _RefusedError(Exception):
    """An answer that may be another the next time."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an object goes.

    Attributes:
        uri: of the object.
        note: of the object that keeps what the upload needs to go on.
        known: the content of `note`, as it was when the run began.
    """

    uri: str
    note: str
    known: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Upload(Sink):
    """A sink into a bucket.

    Attributes:
        made: the object, once it is there.
        records: those that passed, if all did.

    Args:
        file: what comes.
        place: where it goes.
        storage: Cloud Storage.
        servers: to ask by.
        stop: set when the run is to end.
    """

    def __init__(
        self,
        file: RemoteFile,
        place: Place,
        storage: CloudStorage,
        servers: Servers,
        stop: threading.Event,
    ) -> None:
        self.made: StoredObject | None = None
        self._file, self._place = file, place
        self._storage, self._servers = storage, servers
        self._stop = stop
        self._note: dict[str, Any] = {}
        self._session = ""
        self._sent, self._held = 0, bytearray()
        self._is_noted = bool(place.known)
        self._digests: Digests | None = None
        self._passing: PassingRecords | None = None
        if place.known:
            self._take_up(dict(place.known))

    @property
    def records(self) -> PassingRecords | None:
        return self._passing

    @property
    def md5(self) -> str:
        """Of the object that was made."""
        if self._digests:
            return self._digests.md5
        return self.made.md5 if self.made else ""

    def have(self) -> int:
        return self._sent + len(self._held)

    def note(self) -> Mapping[str, Any]:
        return self._note

    def begin(self, note: Mapping[str, Any]) -> None:
        self._end_session()
        self._session = self._storage.begin_upload(self._place.uri, self._file.checksum)
        self._note = {**note, "session": self._session}
        self._sent, self._held = 0, bytearray()
        self._digests = Digests(self._file.checksum)
        self._passing = PassingRecords(self._place.uri)

    def write(self, chunk: bytes) -> None:
        self._held += chunk
        if self._digests and self._passing:
            self._digests.update(chunk)
            self._passing.feed(chunk)
        while len(self._held) > CHUNK:  # never the last byte: that waits for the proof
            self._persistently(CHUNK, None)
            if not self._is_noted and self._sent >= NOTED_BYTES:
                self._storage.write(self._place.note, json.dumps(self._note).encode())
                self._is_noted = True

    def seal(self) -> None:
        if self._digests:
            self._digests.check()
        self._persistently(len(self._held), self.have())
        if self.made is None:
            raise LostError("the upload ended without an object")
        if not self.made.has(self._file.checksum):
            # Cloud Storage was not told, or this is none that listens.
            self._storage.delete(self._place.uri)
            raise WrongBytesError(f"{self.made.bytes:,} bytes that are not the file's")
        if self._passing:
            self._passing.finish()
        self._forget_note()

    def discard(self) -> None:
        self._end_session()
        self._forget_note()

    def _end_session(self) -> None:
        if self._session:
            self._servers.delete(self._session)
        self._session, self._note = "", {}
        self._sent, self._held = 0, bytearray()
        self._digests = self._passing = None

    def _forget_note(self) -> None:
        if self._is_noted:
            self._storage.delete(self._place.note)
            self._is_noted = False

    def _take_up(self, note: dict[str, Any]) -> None:
        """Go on with what another process began: its bytes are not read again."""
        self._session = str(note.get("session", ""))
        persisted = 0

        def once() -> None:
            nonlocal persisted
            answer = self._servers.put(self._session, b"", "bytes */*")
            if answer.status in RETRIED:
                raise _RefusedError(f"answers {answer.status}")
            persisted = _persisted(answer) if answer.status == 308 else 0

        # What can not be told, even after several times, begins anew; a stop is heard later.
        with contextlib.suppress(_RefusedError, StoppedError, *ANSWER_ERRORS):
            self._attempts()(once)
        if persisted:
            self._sent, self._note = persisted, note
        else:
            self._session = ""

    def _attempts(self) -> tenacity.Retrying:
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((_RefusedError, *ANSWER_ERRORS))
            & tenacity.retry_if_not_exception_type(InputError),
            stop=tenacity.stop_after_attempt(self._servers.limits.attempts),
            wait=tenacity.wait_random_exponential(self._servers.limits.first_wait, max=60),
            sleep=self._sleep,
            reraise=True,
        )

    def _persistently(self, count: int, total: int | None) -> None:
        """Send the next `count` bytes; they are the last ones if `total` is given.

        Raises:
            LostError: the upload does not exist any more.
            FailedError: too many attempts brought nothing forward.
            InputError: it is not allowed.
        """
        target = self._sent + count
        unsure = False

        def once() -> None:
            nonlocal unsure
            if unsure:
                self._advance(self._ask(b"", f"bytes */{'*' if total is None else total}"))
            while self.made is None and (self._sent < target or total is not None):
                unsure = True
                body = bytes(self._held[: target - self._sent])
                last = self._sent + len(body) - 1
                span = f"bytes {self._sent}-{last}" if body else "bytes *"
                before = self._sent
                self._advance(self._ask(body, f"{span}/{'*' if total is None else total}"))
                if self.made is None and self._sent == before:
                    raise _RefusedError("takes no bytes")
                unsure = False

        try:
            self._attempts()(once)
        except InputError:
            raise
        except (_RefusedError, *ANSWER_ERRORS) as error:
            if self._stop.is_set():
                raise StoppedError from None
            raise FailedError(
                f"{self._place.uri}: can not be written to, {self._servers.limits.attempts} "
                f"attempts; the last: {in_words(error)}"
            ) from None

    def _ask(self, body: bytes, span: str) -> urllib3.BaseHTTPResponse:
        if self._stop.is_set():
            raise StoppedError
        answer = self._servers.put(self._session, body, span)
        status = answer.status
        said = " ".join(answer.data.decode(errors="replace").split())[:200]
        if status in RETRIED:
            raise _RefusedError(f"answers {status} {said}")
        if status in _GONE:  # gone, or done by somebody: the answer to it may be lost
            there = self._storage.stat(self._place.uri)
            if there is None or not there.has(self._file.checksum):
                raise LostError(f"{self._place.uri}: the upload is gone ({status})")
            self.made = there
        elif status == 400:
            raise LostError(f"{self._place.uri}: Cloud Storage answers 400 {said}")
        elif status not in (*_DONE, 308):
            raise InputError(f"{self._place.uri}: Cloud Storage answers {status} {said}")
        return answer

    def _advance(self, answer: urllib3.BaseHTTPResponse) -> None:
        """Let go of what Cloud Storage has."""
        if self.made is not None:
            return
        if answer.status in _DONE:
            self.made = self._storage.stat(self._place.uri)
            return
        persisted = _persisted(answer)
        if not self._sent <= persisted <= self.have():
            raise LostError(
                f"{self._place.uri}: the upload has {persisted:,} bytes, expected {self._sent:,}"
            )
        del self._held[: persisted - self._sent]
        self._sent = persisted

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise StoppedError


def _persisted(answer: urllib3.BaseHTTPResponse) -> int:
    """Bytes that a resumable upload has for good."""
    found = _RANGE.fullmatch(answer.headers.get("Range", ""))
    return (int(found[1]) + 1) // _UNIT * _UNIT if found else 0
