"""HTTP to several servers: how long to wait for them, how much to read, which of them to ask."""

from __future__ import annotations

import dataclasses
import email.utils
import http.client
import threading
import time

import urllib3

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
                return number_in(response.headers.get("Content-Length", ""))
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
