"""One file over HTTP into a sink: continued where it stopped, whatever a server does.

A server confirms by a validator that its object is still the one that a part is of
(https://www.rfc-editor.org/rfc/rfc9110#name-if-range).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import random
import re
import threading
import time

import tenacity

from components.download.display import Shown
from components.download.plan import RemoteFile
from components.download.servers import (
    ANSWER_ERRORS,
    RETRIED,
    Rate,
    Response,
    Servers,
    in_words,
    number_in,
    seconds_asked,
)
from components.download.sink import (
    FailedError,
    LostError,
    NoSpaceError,
    Sink,
    StoppedError,
    WrongBytesError,
)
from trainer.errors import InputError

_CHUNK = 1 << 18
_LONGEST_WAIT, _LONGEST_ASKED = 60.0, 300.0
_WRONG_TWICE = 2
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)")
_LEAST_GAIN = 1 << 16


class _MirrorError(Exception):
    """A server that does not have the file; another one may."""


class _TransientError(Exception):
    """Something that may go better next time."""

    def __init__(self, message: str, wait: float = 0.0, blames: bool = True) -> None:
        super().__init__(message)
        self.wait, self.blames = wait, blames


@dataclasses.dataclass(eq=False)
class Transfer:
    """A file on its way.

    Attributes:
        file: what to fetch.
        sink: where it goes.
        where: the same, for messages.
        servers, rate: of all transfers.
        stop: set when the run is to end.
        shown: is told of the bytes that are there, and of the file's size.
    """

    file: RemoteFile
    sink: Sink
    where: str
    servers: Servers
    rate: Rate
    stop: threading.Event
    shown: Shown

    def __post_init__(self) -> None:
        self._urls = list(self.file.urls)
        self._refused: list[str] = []
        self._wrong: dict[str, int] = {}
        self._size: int | None = None
        self._best = self._in_vain = self._counted = 0
        self._response: Response | None = None

    def run(self) -> None:
        """Fetch the file.

        Raises:
            FailedError: no server has it, or too many attempts in a row brought nothing forward.
            NoSpaceError: the disk is full.
            InputError: it can not be written to for another reason.
            StoppedError: `stop` was set.
        """
        limits = self.servers.limits

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait if isinstance(error, _TransientError) else 0.0
            # "Full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter
            most = min(_LONGEST_WAIT, limits.first_wait * 2.0 ** max(0, self._in_vain - 1))
            return max(random.uniform(0, most), min(asked, _LONGEST_ASKED))

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TransientError),
            stop=lambda _: self._in_vain >= limits.attempts,
            wait=wait,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            # Of another plan, or nobody knows of what.
            if self.sink.note().get("checksum") != self.file.checksum:
                self.sink.discard()
            self._best = self.sink.have()
            attempts(self._attempt)
        except _TransientError as error:
            raise FailedError(
                f"{self._in_vain} attempts brought nothing; the last: {error}"
            ) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpaceError(f"{self.where}: {error.strerror}") from None
            raise InputError(f"{self.where}: can not be written: {error.strerror}") from None

    def abort(self) -> None:
        """End a read that waits, of another thread; after `stop` was set."""
        response = self._response
        if response is not None:
            # It may have ended by itself in the meantime.
            with contextlib.suppress(Exception):
                response.shutdown()

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
            except InputError:
                raise
            except _MirrorError as error:
                self._urls.remove(url)
                self._refused.append(f"{url}: {error}")
                continue
            except (_TransientError, *ANSWER_ERRORS) as error:
                if self.stop.is_set():
                    raise StoppedError from None
                if not isinstance(error, _TransientError) or error.blames:
                    self.servers.note(url, failed=True)
                have = self.sink.have()
                gained = have - self._best
                self._best = max(self._best, have)
                # Not by any byte, or a server could keep this going for ever.
                least = min(_LEAST_GAIN, (self._size or 0) // 100)
                self._in_vain = 1 if gained > least else self._in_vain + 1
                asked = error.wait if isinstance(error, _TransientError) else 0.0
                raise _TransientError(f"{url}: {in_words(error)}", asked) from None
            self.servers.note(url, failed=False)
            return
        raise FailedError("; ".join(self._refused))

    def _fetch(self, url: str) -> None:
        have = self.sink.have()
        headers = {}
        if have:
            headers["Range"] = f"bytes={have}-"
            note = self.sink.note()
            if note.get("url") == url and note.get("validator"):
                headers["If-Range"] = str(note["validator"])
        response = self._response = self.servers.open(url, headers)
        with contextlib.ExitStack() as ending:
            ending.callback(response.close)  # whatever ends this: what is left is not wanted
            if self.stop.is_set():
                raise StoppedError
            try:
                # 416: there is no more of it.
                there = response.status == 416 and have > 0
                whole = not there and self._receive(url, response, have)
            except LostError as error:
                self._discard()
                raise _TransientError(str(error), blames=False) from None
            if not there:
                ending.pop_all()
                response.release_conn()
        self._prove(url, whole)

    def _receive(self, url: str, response: Response, have: int) -> bool:
        """Write the body; whether all of the file came at once."""
        start, size = self._place(response, have)
        self._size = size
        self._count(start)
        if size is not None:
            self.shown.sized(size)
            self.sink.expect(size - start)
        if not start:
            strong = response.headers.get("ETag", "")
            validator = response.headers.get("Last-Modified", "")
            if strong and not strong.startswith("W/"):
                validator = strong
            self.sink.begin({"url": url, "validator": validator, "checksum": self.file.checksum})
        with self.sink.opened():
            self._copy(response)
        received = self.sink.have()
        if size is not None and received < size:
            raise _TransientError(f"ended after {received:,} of {size:,} bytes")
        return not start and size is not None

    def _copy(self, response: Response) -> None:
        since, held, window = time.monotonic(), 0.0, 0
        while chunk := response.read1(_CHUNK, decode_content=False):
            if self.stop.is_set():
                raise StoppedError
            before = time.monotonic()
            self.sink.write(chunk)
            held += time.monotonic() - before  # a slow place to write to is not the server's doing
            self._count(self._counted + len(chunk))
            window += len(chunk)
            held += self.rate.wait(len(chunk), self.stop)
            seconds = time.monotonic() - since - held
            if seconds > self.servers.limits.stall_seconds:
                if window < self.servers.limits.least_rate * seconds:
                    raise _TransientError(f"sends {window / seconds:,.0f} bytes/s")
                since, held, window = time.monotonic(), 0.0, 0

    def _place(self, response: Response, have: int) -> tuple[int, int | None]:
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

    def _prove(self, url: str, whole: bool) -> None:
        """Give the file its name, if its bytes are the right ones."""
        try:
            self.sink.seal()
        except LostError as error:
            self._discard()
            raise _TransientError(str(error), blames=False) from None
        except WrongBytesError as error:
            self._discard()
            said = f"sends {error}"
            # Parts of several answers say nothing against the last one's server.
            self._wrong[url] = self._wrong.get(url, 0) + whole
            if self._wrong[url] >= _WRONG_TWICE:
                raise _MirrorError(f"{said}, twice") from None
            raise _TransientError(said, blames=whole) from None

    def _discard(self) -> None:
        self.sink.discard()
        self._best = 0
        self._count(0)

    def _count(self, done: int) -> None:
        self.shown.advance(done - self._counted)
        self._counted = done
