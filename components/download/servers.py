"""HTTP to several servers: how long to wait for them, how much to read, which of them to ask.

Files and buckets are asked as if they were servers, too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import http.client
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import urllib3

from components.download.cloud_storage import SCHEME as BUCKET
from components.download.cloud_storage import CloudStorage
from trainer.errors import InputError

FILE = "file://"
"""How the address of a local file starts; its path follows as it is."""
_FORGOTTEN_SECONDS = 60.0
RETRIED = {408, 425, 429, 500, 502, 503, 504}
"""Answers that may be others the next time."""

ANSWER_ERRORS = (
    urllib3.exceptions.HTTPError, http.client.HTTPException, ValueError, OverflowError
)  # fmt: skip
"""What a server that is not there, or answers in an odd way, can raise."""


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


class Response(Protocol):
    """What of `urllib3.HTTPResponse` a transfer uses."""

    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def read1(self, amt: int, decode_content: bool) -> bytes: ...
    def shutdown(self) -> None: ...
    def close(self) -> None: ...
    def release_conn(self) -> None: ...


class Servers:
    """HTTP to any number of servers; which of them have failed most lately.

    Attributes:
        limits: of a request, and of what is made of several.

    Args:
        parallel: requests at once to a server.
        limits: the attribute.
        storage: what `gs://` addresses are asked of.
    """

    def __init__(self, parallel: int, limits: Limits, storage: CloudStorage | None = None) -> None:
        timeout = urllib3.Timeout(connect=limits.connect_seconds, read=limits.stall_seconds)
        # Attempts are counted here, where it is known what they brought.
        redirects = urllib3.Retry(
            total=None, connect=0, read=0, status=0, other=0, redirect=5, raise_on_redirect=True
        )
        headers = {"User-Agent": "nextvlad-pipeline", "Accept-Encoding": "identity"}
        self._pool = urllib3.PoolManager(
            maxsize=parallel, timeout=timeout, retries=redirects, headers=headers
        )
        self.limits = limits
        self._live: weakref.WeakSet[_Heard] = weakref.WeakSet()
        # The handler of a signal may come to a lock that its own thread holds.
        self._live_lock = threading.RLock()
        self._pool.pool_classes_by_scheme = _pools(self._noted)
        self._headers = headers
        self._storage = storage
        self._lock = threading.Lock()
        self._failures: dict[str, tuple[float, float]] = {}  # how many, when

    def open(self, url: str, headers: dict[str, str]) -> Response:
        """A response whose body is to be read, of `http(s)://`, `gs://` or `file://`.

        Raises:
            urllib3.exceptions.HTTPError: no answer.
            InputError: Cloud Storage lets nobody in, or a file is not there.
        """
        if url.startswith(FILE):
            return _FileResponse(Path(url.removeprefix(FILE)), headers.get("Range", ""))
        if url.startswith(BUCKET) and self._storage:
            url, more = self._storage.link(url)
            headers = headers | more
        response: Response = self._pool.request(  # type: ignore[assignment]
            "GET", url, headers={**self._headers, **headers}, preload_content=False
        )
        return response

    def put(self, url: str, body: bytes | memoryview, span: str) -> urllib3.BaseHTTPResponse:
        """The answer to bytes of a resumable upload; `span`: which of them, `bytes 0-9/10`.

        Raises:
            urllib3.exceptions.HTTPError: no answer.
        """
        headers = {**self._headers, "Content-Range": span, "Content-Length": str(len(body))}
        # 308 is no redirect here.
        return self._pool.request("PUT", url, body=bytes(body), headers=headers, redirect=False)

    def delete(self, url: str) -> None:
        """End a resumable upload; it ends by itself if nobody hears of this."""
        with contextlib.suppress(*ANSWER_ERRORS):
            self._pool.request("DELETE", url, headers=self._headers, redirect=False)

    def abort(self) -> None:
        """End every request that waits for an answer, in whatever thread."""
        with self._live_lock:
            live = list(self._live)
        for connection in live:
            connection.abort()

    def _noted(self, connection: _Heard) -> None:
        with self._live_lock:
            self._live.add(connection)

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
                return number_in(response.headers.get("Content-Length", ""))
        return None

    def best(self, urls: list[str]) -> str:
        """The one whose server failed least in the last minutes, the first of equals."""
        if len(urls) == 1:
            return urls[0]
        with self._lock:
            return min(urls, key=lambda url: round(self._score(url), 1))

    def note(self, url: str, failed: bool) -> None:
        if not failed and _host(url) not in self._failures:
            return
        with self._lock:
            score = self._score(url) + 1 if failed else self._score(url) / 2
            self._failures[_host(url)] = score, time.monotonic()

    def _score(self, url: str) -> float:
        score, then = self._failures.get(_host(url), (0.0, 0.0))
        halvings = (time.monotonic() - then) / _FORGOTTEN_SECONDS
        return float(score * 0.5**halvings)


class _Heard(urllib3.connection.HTTPConnection):
    """A connection that another thread can end while it waits."""

    def abort(self) -> None:
        # It may have ended by itself in the meantime.
        with contextlib.suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


class _HeardSecurely(urllib3.connection.HTTPSConnection, _Heard):
    pass


def _pools(note: Callable[[_Heard], None]) -> dict[str, Any]:
    """Classes of connection pools; `note` is told of each connection that they make."""

    def noted(kind: type[_Heard]) -> Any:
        def made(*args: Any, **kwargs: Any) -> _Heard:
            connection = kind(*args, **kwargs)
            note(connection)
            return connection

        return staticmethod(made)

    return {
        "http": type("Plain", (urllib3.HTTPConnectionPool,), {"ConnectionCls": noted(_Heard)}),
        "https": type(
            "Secure", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": noted(_HeardSecurely)}
        ),
    }


class _FileResponse:
    """A file as a server would send it."""

    reason = None

    def __init__(self, path: Path, asked: str) -> None:
        try:
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        size = os.fstat(self._file.fileno()).st_size
        start = min(size, int(asked.removeprefix("bytes=").rstrip("-") or 0))
        self.status = 206 if start else 200
        self.headers = {"Content-Length": str(size - start)}
        if start:
            self.headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            self._file.seek(start)

    def read1(self, amt: int, decode_content: bool) -> bytes:  # noqa: ARG002
        return self._file.read(amt)

    def shutdown(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()

    release_conn = close


def _host(url: str) -> str:
    return url if url.startswith(FILE) else "/".join(url.split("/", 3)[:3])


def number_in(text: str) -> int | None:
    """Of a header; None for anything but a number that can be."""
    return int(text) if text.isdecimal() and len(text) <= 19 else None


def seconds_asked(text: str) -> float:
    """Of a Retry-After header: seconds, or a date; what is neither asks for nothing."""
    seconds = number_in(text.strip())
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
