"""Many files at once into a store: what is missing in the end is said, with the reason."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from components.download.display import Display, Shown
from components.download.plan import RemoteFile
from components.download.servers import Rate, Servers
from components.download.sink import FailedError, NoSpaceError, StoppedError
from components.download.store import Store
from components.download.transfer import Transfer
from trainer.errors import InputError

_ASKED_FOR_SIZE = 128
"""Of more files than that, the sizes of so many, evenly spread, stand for all."""


@dataclasses.dataclass(frozen=True)
class Downloader:
    """Fetches files.

    Attributes:
        servers, rate: of the transfers.
        parallel: transfers at once.
        json_lines: where to report as JSON.
    """

    servers: Servers
    rate: Rate
    parallel: int
    json_lines: TextIO | None = None

    def fetch(self, files: Sequence[RemoteFile], store: Store) -> dict[str, str]:
        """Fetch files that are not there.

        Args:
            files: what to fetch.
            store: where they go, and are noted; what it raises as `InputError` on noting one
                counts that file as missing.

        Returns:
            By `SPLIT/NAME`: why a file could not be had. Empty: all are there.

        Raises:
            InputError: there is no room.
        """
        if not files:
            return {}
        expected = self._expected_bytes(files)
        store.check_room(files, expected)
        display = Display(len(files), expected, self.json_lines)
        run = _Run(self, display, store)
        with display, run.ended_by_signals():
            run.all(files)
        return dict(sorted(run.missing.items()))

    def _expected_bytes(self, files: Sequence[RemoteFile]) -> int:
        """Of all; of many by those of some; 0: no server says."""
        if all(file.bytes is not None for file in files):
            return sum(file.bytes or 0 for file in files)
        step = max(1, len(files) // _ASKED_FOR_SIZE)
        some = [file.urls for file in files[::step][:_ASKED_FOR_SIZE]]
        with concurrent.futures.ThreadPoolExecutor(self.parallel) as pool:
            sizes = [size for size in pool.map(self.servers.size, some) if size is not None]
        return len(files) * sum(sizes) // len(sizes) if sizes else 0


class _Run:
    def __init__(self, downloader: Downloader, display: Display, store: Store) -> None:
        self._downloader, self._display, self._store = downloader, display, store
        # The handler of a signal may come to a lock that its own thread holds.
        self._stop, self._lock = threading.Event(), threading.RLock()
        self._active: set[Transfer] = set()
        self._done = 0
        self.missing: dict[str, str] = {}

    def all(self, files: Sequence[RemoteFile]) -> None:
        with concurrent.futures.ThreadPoolExecutor(self._downloader.parallel, "download") as pool:
            try:
                futures = [pool.submit(self._one, file) for file in files]
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except NoSpaceError as error:
                raise InputError(
                    f"{error}; {self._done:,} of {len(files):,} files were fetched and stay: free "
                    "some space and start it again"
                ) from None
            finally:
                self._end()

    def _one(self, file: RemoteFile) -> None:
        if self._stop.is_set():
            return
        one = self._downloader
        with self._display.transfer(file.name) as shown:
            sink = self._store.sink(file, self._stop)
            where = self._store.uri(file.place)
            transfer = Transfer(file, sink, where, one.servers, one.rate, self._stop, shown)
            with self._lock:
                self._active.add(transfer)
            try:
                transfer.run()
            except FailedError as error:
                self._lost(file, str(error), shown)
                return
            except StoppedError:
                return
            finally:
                with self._lock:
                    self._active.discard(transfer)
            try:
                self._store.trust(file, sink)
            except InputError as error:  # right by the plan, and yet no shard
                self._lost(file, str(error), shown)
                return
            with self._lock:
                self._done += 1
            shown.finished()

    def _lost(self, file: RemoteFile, reason: str, shown: Shown) -> None:
        with self._lock:
            self.missing[f"{file.split}/{file.name}"] = reason
        shown.finished(reason)

    def _end(self) -> None:
        self._stop.set()
        with self._lock:
            for transfer in self._active:
                transfer.abort()
        self._downloader.servers.abort()

    @contextlib.contextmanager
    def ended_by_signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the run soon: what is there stays, and goes on the next time."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        caught: list[int] = []

        def end(number: int, _: Any) -> None:
            caught.append(number)
            self._end()

        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if caught:
            raise SystemExit(128 + caught[0])
