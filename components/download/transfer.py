"""One file over HTTP: continued where it stopped, proved by its MD5, named only then.

Until it is proved, a file is `.NAME.part`, and beside it `.NAME.part.json` says what it is part of:
the address and the validator with which a server confirms that its object is still the same
(https://www.rfc-editor.org/rfc/rfc9110#name-if-range).
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import errno
import hashlib
import http.client
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
from trainer.errors import InputError
from trainer.files import read_json, write_json

CHUNK = 1 << 18
_LONGEST_WAIT, _LONGEST_ASKED = 60.0, 300.0
_WRONG_TWICE = 2
RETRIED = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)")
_LEAST_GAIN = 1 << 16
_FORGOTTEN_SECONDS = 60.0

ANSWER_ERRORS = (
    urllib3.exceptions.HTTPError, http.client.HTTPException, ValueError, OverflowError
)  # fmt: skip
"""What a server that is not there, or answers in an odd way, can raise."""


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


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of a transfer.

    Attributes:
        attempts: in a row that bring nothing forward.
        connect_seconds: to reach a server.
        stall_seconds: without a byte; and of less than `least_rate`.
        least_rate: bytes/s.
        first_wait: seconds before the second attempt, at most; it doubles.
    """

    attempts: int = 8
    connect_seconds: float = 10.0
    stall_seconds: float = 30.0
    least_rate: float = 1000.0
    first_wait: float = 1.0


class Rate:
    """Bytes a second that all transfers share; 0: no limit."""

    def __init__(self, bytes_a_second: float) -> None:
        self._rate = bytes_a_second
        self._lock = threading.Lock()
        self._free = time.monotonic()

    def wait(self, count: int, stop: threading.Event) -> float:
        """Hold up whoever read `count` bytes; returns for how many seconds."""
        if not self._rate:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._free = max(self._free, now) + count / self._rate
            seconds = self._free - now
        stop.wait(min(seconds, threading.TIMEOUT_MAX))
        return seconds


class Servers:
    """HTTP to any number of servers; which of them have failed most lately."""

    def __init__(self, parallel: int, limits: Limits) -> None:
        timeout = urllib3.Timeout(connect=limits.connect_seconds, read=limits.stall_seconds)
        # Attempts are counted here, where it is known what they brought.
        redirects = urllib3.Retry(
            total=None, connect=0, read=0, status=0, other=0, redirect=5, raise_on_redirect=True
        )
        headers = {"User-Agent": "nextvlad-pipeline", "Accept-Encoding": "identity"}
        self._pool = urllib3.PoolManager(
            maxsize=parallel, timeout=timeout, retries=redirects, headers=headers
        )
        self._headers = headers
        self._lock = threading.Lock()
        self._failures: dict[str, tuple[float, float]] = {}  # how many, when

    def open(self, url: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """A response whose body is to be read.

        Raises:
            urllib3.exceptions.HTTPError: no answer.
        """
        return self._pool.request(
            "GET", url, headers={**self._headers, **headers}, preload_content=False
        )

    def size(self, urls: tuple[str, ...]) -> int | None:
        """Bytes of a file, if one of the servers says so."""
        left = list(urls)
        while left:
            url = self.best(left)
            left.remove(url)
            try:
                response = self._pool.request("HEAD", url)
            except ANSWER_ERRORS:
                self.note(url, failed=True)
                continue
            if response.status == 200:
                return _number(response.headers.get("Content-Length", ""))
        return None

    def best(self, urls: list[str]) -> str:
        """The one whose server failed least in the last minutes, the first of equals."""
        with self._lock:
            return min(urls, key=lambda url: round(self._score(url), 1))

    def note(self, url: str, failed: bool) -> None:
        with self._lock:
            score = self._score(url) + 1 if failed else self._score(url) / 2
            self._failures[_host(url)] = score, time.monotonic()

    def _score(self, url: str) -> float:
        score, then = self._failures.get(_host(url), (0.0, 0.0))
        halvings = (time.monotonic() - then) / _FORGOTTEN_SECONDS
        return float(score * 0.5**halvings)


def _host(url: str) -> str:
    return urllib3.util.parse_url(url).netloc or url


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
            raise

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
        while chunk := response.read1(CHUNK, decode_content=False):
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
            wait = _seconds_asked(response.headers.get("Retry-After", ""))
            raise _TransientError(f"answers {status} {response.reason or ''}".rstrip(), wait)
        if status not in (200, 206):
            raise _MirrorError(f"answers {status} {response.reason or ''}".rstrip())
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise _MirrorError(f"sends it encoded as {encoding}")
        if status == 200:
            return 0, _number(response.headers.get("Content-Length", ""))
        stated = response.headers.get("Content-Range", "")
        found = _CONTENT_RANGE.fullmatch(stated)
        if not found or found[1] is None or int(found[1]) != have:
            self._discard()
            raise _TransientError(f"sends the range {stated!r}, expected it from byte {have:,}")
        return have, int(found[3]) if found[3] != "*" else int(found[2]) + 1

    def _prove(self, url: str, whole: bool, digest: str) -> None:
        """Give the file its name, if its bytes are the right ones, and on the disk."""
        with self._partial.open("rb") as file:
            if not digest:
                digest = hashlib.file_digest(
                    file, lambda: hashlib.md5(usedforsecurity=False)
                ).hexdigest()
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
        self._count(0)

    def _count(self, done: int) -> None:
        self.shown.advance(done - self._counted)
        self._counted = done


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= 19 else None


def _seconds_asked(text: str) -> float:
    """Of a Retry-After header: seconds, or a date; what is neither asks for nothing."""
    seconds = _number(text.strip())
    if seconds is not None:
        return float(seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def in_words(error: Exception) -> str:
    """What happened to a request, without the library's names."""
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return "no byte came in time"
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
        return "could not be reached in time"
    if isinstance(error, urllib3.exceptions.MaxRetryError) and error.reason:
        return in_words(error.reason)
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "could not be reached"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "the connection broke"
    return " ".join(str(error).split()) or type(error).__name__
