"""One file over HTTP: continued where it stopped, proved by its MD5, named only then.

Until it is proved, a file is `.NAME.part`, and beside it `.NAME.part.json` says what it is part of:
the address and the validator with which a server confirms that its object is still the same
(https://www.rfc-editor.org/rfc/rfc9110#name-if-range).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import random
import re
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import tenacity
import urllib3

from components.download.display import Shown
from components.download.plan import RemoteFile
from components.download.proofs import md5_of
from components.download.servers import (
    ANSWER_ERRORS,
    RETRIED,
    Limits,
    Rate,
    Servers,
    in_words,
    number_in,
    seconds_asked,
)
from trainer.errors import InputError
from trainer.files import read_json, write_json

_CHUNK = 1 << 18
_LONGEST_WAIT, _LONGEST_ASKED = 60.0, 300.0
_WRONG_TWICE = 2
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)")
_LEAST_GAIN = 1 << 16


class FailedError(Exception):
    """A file can not be had; the message says why."""


class NoSpaceError(Exception):
    """The disk is full: nothing else can be had either."""


class StoppedError(Exception):
    """The run is to end."""


class _MirrorError(Exception):
    """A server that does not have the file; another one may."""


class _TransientError(Exception):
    """Something that may go better next time."""

    def __init__(self, message: str, wait: float = 0.0, blames: bool = True) -> None:
        super().__init__(message)
        self.wait, self.blames = wait, blames


@dataclasses.dataclass(eq=False)
class Transfer:
    """A file on its way into a folder.

    Attributes:
        file: what to fetch.
        folder: where it goes.
        servers, limits, rate: of all transfers.
        stop: set when the run is to end.
        shown: is told of the bytes that are on the disk, and of the file's size.
    """

    file: RemoteFile
    folder: Path
    servers: Servers
    limits: Limits
    rate: Rate
    stop: threading.Event
    shown: Shown

    def __post_init__(self) -> None:
        self._target = self.folder / self.file.name
        self._partial = self.folder / f".{self.file.name}.part"
        self._note = self.folder / f".{self.file.name}.part.json"
        self._urls = list(self.file.urls)
        self._refused: list[str] = []
        self._wrong: dict[str, int] = {}
        if self._noted().get("md5") != self.file.md5:  # of another plan, or nobody knows of what
            self._partial.unlink(missing_ok=True)
        self._size: int | None = None
        self._best = self._have()
        self._in_vain = 0
        self._counted = 0
        self._response: urllib3.BaseHTTPResponse | None = None

    def run(self) -> None:
        """Fetch the file.

        Raises:
            FailedError: no server has it, or too many attempts in a row brought nothing forward.
            NoSpaceError: the disk is full.
            InputError: it can not be written to for another reason.
            StoppedError: `stop` was set.
        """

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait if isinstance(error, _TransientError) else 0.0
            # "Full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
            most = min(_LONGEST_WAIT, self.limits.first_wait * 2.0 ** max(0, self._in_vain - 1))
            return max(random.uniform(0, most), min(asked, _LONGEST_ASKED))

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=lambda _: self._in_vain >= self.limits.attempts,
            wait=wait,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            attempts(self._attempt)
        except _TransientError as error:
            raise FailedError(
                f"{self._in_vain} attempts brought nothing; the last: {error}"
            ) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpaceError(f"{self.folder}: {error.strerror}") from None
            raise InputError(f"{self._target}: can not be written: {error.strerror}") from None

    def abort(self) -> None:
        """End a read that waits, of another thread; after `stop` was set."""
        response = self._response
        if response is not None:
            # It may have ended by itself in the meantime.
            with contextlib.suppress(Exception):
                response.shutdown()  # type: ignore[attr-defined]

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise StoppedError

    def _attempt(self) -> None:
        if self.stop.is_set():
            raise StoppedError
        while self._urls:
            url = self.servers.best(self._urls)
            try:
                self._fetch(url)
            except _MirrorError as error:
                self._urls.remove(url)
                self._refused.append(f"{url}: {error}")
                continue
            except (_TransientError, *ANSWER_ERRORS) as error:
                if self.stop.is_set():
                    raise StoppedError from None
                if not isinstance(error, _TransientError) or error.blames:
                    self.servers.note(url, failed=True)
                gained = self._have() - self._best
                self._best = max(self._best, self._have())
                # Not by any byte, or a server could keep this going for ever.
                least = min(_LEAST_GAIN, (self._size or 0) // 100)
                self._in_vain = 1 if gained > least else self._in_vain + 1
                asked = error.wait if isinstance(error, _TransientError) else 0.0
                raise _TransientError(f"{url}: {in_words(error)}", asked) from None
            self.servers.note(url, failed=False)
            return
        raise FailedError("; ".join(self._refused))

    def _fetch(self, url: str) -> None:
        have = self._have()
        headers = {}
        if have:
            headers["Range"] = f"bytes={have}-"
            validator = self._validator(url)
            if validator:
                headers["If-Range"] = validator
        response = self._response = self.servers.open(url, headers)
        try:
            if self.stop.is_set():
                raise StoppedError
            if response.status == 416 and have:  # there is no more of it
                response.close()
                whole, digest = False, ""
            else:
                whole, digest = self._receive(url, response, have)
        except BaseException:
            response.close()  # what is left of the body is not wanted
            raise
        response.release_conn()
        self._prove(url, whole, digest)

    def _receive(self, url: str, response: urllib3.BaseHTTPResponse, have: int) -> tuple[bool, str]:
        """Write the body; whether all of the file came at once, and its MD5."""
        start, size = self._place(response, have)
        self._size = size
        self._count(start)
        if size is not None:
            self.shown.sized(size)
            free = shutil.disk_usage(self.folder).free
            if size - start > free:
                raise OSError(errno.ENOSPC, f"{size - start:,} bytes to come, {free:,} free")
        if not start:
            self._partial.unlink(missing_ok=True)
            strong = response.headers.get("ETag", "")
            validator = response.headers.get("Last-Modified", "")
            if strong and not strong.startswith("W/"):
                validator = strong
            write_json(self._note, {"url": url, "validator": validator, "md5": self.file.md5})
        digest = hashlib.md5(usedforsecurity=False)
        with self._partial.open("r+b" if start else "wb", buffering=0) as file:
            while start and (known := file.read(1 << 20)):
                digest.update(known)
            self._copy(response, file, digest)
            received = file.tell()
        if size is not None and received < size:
            raise _TransientError(f"ended after {received:,} of {size:,} bytes")
        return not start and size is not None, digest.hexdigest()

    def _copy(self, response: urllib3.BaseHTTPResponse, file: Any, digest: Any) -> None:
        since, held, window = time.monotonic(), 0.0, 0
        while chunk := response.read1(_CHUNK, decode_content=False):
            if self.stop.is_set():
                raise StoppedError
            rest = memoryview(chunk)
            while rest:  # a nearly full disk may take less than all
                rest = rest[file.write(rest) :]
            digest.update(chunk)
            self._count(self._counted + len(chunk))
            window += len(chunk)
            held += self.rate.wait(len(chunk), self.stop)
            seconds = time.monotonic() - since - held
            if seconds > self.limits.stall_seconds:
                if window < self.limits.least_rate * seconds:
                    raise _TransientError(f"sends {window / seconds:,.0f} bytes/s")
                since, held, window = time.monotonic(), 0.0, 0

    def _place(self, response: urllib3.BaseHTTPResponse, have: int) -> tuple[int, int | None]:
        """Where the body starts in the file, and the file's size if it is stated."""
        status = response.status
        if status in RETRIED:
            wait = seconds_asked(response.headers.get("Retry-After", ""))
            raise _TransientError(f"answers {status} {response.reason or ''}".rstrip(), wait)
        if status not in (200, 206):
            raise _MirrorError(f"answers {status} {response.reason or ''}".rstrip())
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise _MirrorError(f"sends it encoded as {encoding}")
        if status == 200:
            return 0, number_in(response.headers.get("Content-Length", ""))
        stated = response.headers.get("Content-Range", "")
        found = _CONTENT_RANGE.fullmatch(stated)
        if not found or found[1] is None or int(found[1]) != have:
            self._discard()
            raise _TransientError(f"sends the range {stated!r}, expected it from byte {have:,}")
        return have, int(found[3]) if found[3] != "*" else int(found[2]) + 1

    def _prove(self, url: str, whole: bool, digest: str) -> None:
        """Give the file its name, if its bytes are the right ones, and on the disk."""
        digest = digest or md5_of(self._partial)
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        if digest != self.file.md5:
            size = self._have()
            self._discard()
            said = f"sends {size:,} bytes with the MD5 {digest}, expected {self.file.md5}"
            # Parts of several answers say nothing against the last one's server.
            self._wrong[url] = self._wrong.get(url, 0) + whole
            if self._wrong[url] >= _WRONG_TWICE:
                raise _MirrorError(f"{said}, twice")
            raise _TransientError(said, blames=whole)
        self._partial.replace(self._target)
        self._note.unlink(missing_ok=True)

    def _validator(self, url: str) -> str:
        note = self._noted()
        return str(note.get("validator", "")) if note.get("url") == url else ""

    def _noted(self) -> dict[str, Any]:
        try:
            note = read_json(self._note)
        except InputError:
            return {}
        return note if isinstance(note, dict) else {}

    def _have(self) -> int:
        try:
            return self._partial.stat().st_size
        except FileNotFoundError:
            return 0

    def _discard(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self._best = 0
        self._count(0)

    def _count(self, done: int) -> None:
        self.shown.advance(done - self._counted)
        self._counted = done
