"""Many files at once into folders: what is missing in the end is said, with the reason."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from components.download.display import Display, Shown
from components.download.plan import RemoteFile
from components.download.servers import Limits, Rate, Servers
from components.download.transfer import FailedError, NoSpaceError, StoppedError, Transfer
from trainer.errors import InputError

_ASKED_FOR_SIZE = 32
_SPARE = 64 << 20
"""Bytes of the disk that a download leaves free."""


@dataclasses.dataclass(frozen=True)
class Downloader:
    """Fetches files.

    Attributes:
        servers, limits, rate: of the transfers.
        parallel: transfers at once.
        json_lines: where to report as JSON.
    """

    servers: Servers
    limits: Limits
    rate: Rate
    parallel: int
    json_lines: TextIO | None = None

    def fetch(
        self,
        files: Sequence[RemoteFile],
        folder_of: Callable[[RemoteFile], Path],
        on_done: Callable[[RemoteFile], object],
    ) -> dict[str, str]:
        """Fetch files that are not there.

        Args:
            files: what to fetch.
            folder_of: where a file goes.
            on_done: is called with each file that is there and proved, by several threads; what it
                raises as `InputError` counts the file as missing.

        Returns:
            By `SPLIT/NAME`: why a file could not be had. Empty: all are there.

        Raises:
            InputError: there is no room.
        """
        for folder in {folder_of(file) for file in files}:
            folder.mkdir(parents=True, exist_ok=True)
        if not files:
            return {}
        expected = self._expected_bytes(files)
        there = sum(_part_bytes(folder_of(file), file) for file in files)
        check_space(folder_of(files[0]), max(0, expected - there), len(files))
        display = Display(len(files), expected, self.json_lines)
        run = _Run(self, display, folder_of, on_done)
        with display, run.ended_by_signals():
            run.all(files)
        return dict(sorted(run.missing.items()))

    def _expected_bytes(self, files: Sequence[RemoteFile]) -> int:
        """Of all, judged by some of them; 0: no server says."""
        step = max(1, len(files) // _ASKED_FOR_SIZE)
        some = [file.urls for file in files[::step][:_ASKED_FOR_SIZE]]
        with concurrent.futures.ThreadPoolExecutor(self.parallel) as pool:
            sizes = [size for size in pool.map(self.servers.size, some) if size is not None]
        return len(files) * sum(sizes) // len(sizes) if sizes else 0


def _part_bytes(folder: Path, file: RemoteFile) -> int:
    part = folder / f".{file.name}.part"
    return part.stat().st_size if part.is_file() else 0


def check_space(folder: Path, expected: int, files: int) -> None:
    """Raise `InputError` if so many bytes do not fit."""
    free = shutil.disk_usage(folder).free
    if expected + _SPARE > free:
        raise InputError(
            f"{folder}: {files:,} files of about {expected / 1e9:,.2f} GB are to come, "
            f"{free / 1e9:,.2f} GB are free; nothing was fetched"
        )


class _Run:
    def __init__(
        self,
        downloader: Downloader,
        display: Display,
        folder_of: Callable[[RemoteFile], Path],
        on_done: Callable[[RemoteFile], object],
    ) -> None:
        self._downloader, self._display = downloader, display
        self._folder_of, self._on_done = folder_of, on_done
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
            transfer = Transfer(
                file, self._folder_of(file), one.servers, one.limits, one.rate, self._stop, shown
            )
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
                self._on_done(file)
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
