"""What uvicorn leaves open: limits of time and size for headers, and clients that half-close."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEADER_BYTES = 64 << 10


class GuardedProtocol(HttpToolsProtocol):
    """Ends a connection on which no whole header arrives within `header_seconds`."""

    header_seconds = 10.0

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        super().connection_lost(exc)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        cycle = self.cycle
        if cycle and not cycle.response_complete and not cycle.more_body:
            # Whoever closes its own half after a whole request still reads: it gets its answer.
            cycle.keep_alive = False
            return True
        return None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer and not self.transport.is_closing():
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                self.send_400_response("The headers are too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._timer:
            self._expect_headers()

    def on_headers_complete(self) -> None:
        self._headers_came()
        super().on_headers_complete()

    def _expect_headers(self) -> None:
        self._header_bytes = 0
        self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _headers_came(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()


def guarded(header_seconds: float) -> type[GuardedProtocol]:
    """The protocol with a limit of its own."""
    return type("Guarded", (GuardedProtocol,), {"header_seconds": header_seconds})
