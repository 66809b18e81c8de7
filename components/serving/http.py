"""What uvicorn leaves open: how long, and with how many bytes, a client may hold a connection.

Its own timer covers idle connections after an answer, and ends with the next byte of any kind.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_SILENT_BYTES = 64 << 10
"""Bytes that are no body: headers, what chunks are framed with, trailers."""
MOST_DISCARDED_BYTES = 256 << 20
LINGER_SECONDS = 5.0
"""How long, and up to how much, is read of a body whose request was answered without it. A client
that reads once it has sent everything gets its answer, where a closed connection would reset."""
UNREAD_SECONDS = 30.0
"""Within which a client has to take an answer."""
_HEADERS, _BODY, _READ = "headers", "rest of the body", "answer to be read"
"""What a connection is given time for."""


class GuardedProtocol(HttpToolsProtocol):
    """Ends connections on which nothing whole arrives, or nothing is read, in time."""

    header_seconds = 10.0

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._silent = self._discarded = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end_after(_HEADERS, self.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        for name in list(self._timers):
            self._came(name)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._silent += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        answered = self.cycle is None or self.cycle.response_complete
        if self._silent > MOST_SILENT_BYTES:
            self.send_400_response("The headers are too large.")
        elif (
            answered
            and self.timeout_keep_alive_task is None
            and not self._timers.keys() & {_HEADERS, _BODY}
        ):
            # A stray byte ended uvicorn's own timer.
            self._end_after(_HEADERS, self.header_seconds)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._end_after(_HEADERS, self.header_seconds)

    def on_headers_complete(self) -> None:
        self._came(_HEADERS)
        self._silent = self._discarded = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._silent = 0
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > MOST_DISCARDED_BYTES:
                self.transport.abort()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._silent = 0
        self._came(_BODY)
        # Also where the answer did not wait for it, which uvicorn then does not note.
        self.cycle.more_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        cycle = self.cycle
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._end_after(_READ, UNREAD_SECONDS)
        # Of requests that came at once, it can be the next one's already.
        if cycle.response_complete and cycle.more_body and not self.transport.is_closing():
            self._end_after(_BODY, LINGER_SECONDS)

    def _end_after(self, what: str, seconds: float) -> None:
        """Abort the connection unless something comes in time."""
        self._came(what)
        self._timers[what] = self.loop.call_later(seconds, self._too_slow, what)

    def _came(self, what: str) -> None:
        if timer := self._timers.pop(what, None):
            timer.cancel()

    def _too_slow(self, what: str) -> None:
        self._timers.pop(what, None)
        if what != _READ or self.transport.get_write_buffer_size():
            self.transport.abort()


def guarded(header_seconds: float) -> type[GuardedProtocol]:
    """The protocol with a limit of its own."""
    return type("Guarded", (GuardedProtocol,), {"header_seconds": header_seconds})
