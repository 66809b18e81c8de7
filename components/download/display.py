"""How far many transfers are: bars on a terminal, a line a minute in a log, JSON on request."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from trainer.progress import duration, progress_interval, say

JSON_INTERVAL = 1.0


class Display:
    """Of a download.

    Args:
        files: to fetch.
        expected: their bytes, about; 0: not known.
        json_lines: where to write an object a second, and one for each file, in place of words.
        terminal: draw bars; None: if standard output is a terminal.
    """

    def __init__(
        self,
        files: int,
        expected: int = 0,
        json_lines: TextIO | None = None,
        terminal: bool | None = None,
    ) -> None:
        self._files, self._expected = files, expected
        self._done = self._bytes = 0
        self._json = json_lines
        drawn = sys.stdout.isatty() if terminal is None else terminal
        self._bars = _Bars(files, expected) if drawn and json_lines is None else None
        self._interval = JSON_INTERVAL if json_lines else progress_interval()
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="display", daemon=True)

    def __enter__(self) -> Display:
        self._start = time.monotonic()
        if self._bars:
            self._bars.start()
        else:
            self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._bars:
            self._bars.stop()
        else:
            self._ticker.join()
            self._say()

    def _tick(self) -> None:
        """In a thread of its own: also when no byte comes."""
        while not self._over.wait(self._interval):
            self._say()

    @contextlib.contextmanager
    def transfer(self, name: str) -> Iterator[Shown]:
        """Show one file while the block runs."""
        task = self._bars.add(name) if self._bars else None
        try:
            yield Shown(self, name, task)
        finally:
            if self._bars and task is not None:
                self._bars.remove(task)

    def advance(self, count: int, task: TaskID | None) -> None:
        with self._lock:
            self._bytes += count
        if self._bars and task is not None:
            self._bars.advance(task, count)

    def sized(self, size: int, task: TaskID | None) -> None:
        if self._bars and task is not None:
            self._bars.sized(task, size)

    def file(self, name: str, why_missing: str = "") -> None:
        """A file is there, or can not be had."""
        with self._lock:
            self._done += not why_missing
        if self._json:
            event = {"event": "missing", "name": name, "reason": why_missing} if why_missing else {
                "event": "file", "name": name,
            }  # fmt: skip
            print(json.dumps(event) + "\n", end="", flush=True, file=self._json)
        elif self._bars:
            self._bars.file(not why_missing)

    def _say(self) -> None:
        with self._lock:
            done, count = self._done, self._bytes
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = count / seconds
        left = max(0, self._expected - count) / rate if rate and self._expected else None
        if self._json:
            facts = {
                "event": "progress", "files": done, "of_files": self._files, "bytes": count,
                "of_bytes": self._expected or None, "bytes_per_second": round(rate),
                "eta_seconds": None if left is None else round(left),
            }  # fmt: skip
            print(json.dumps(facts) + "\n", end="", flush=True, file=self._json)
            return
        of = f" of about {_size(self._expected)}" if self._expected else ""
        words = [f"{done:,}/{self._files:,} shards", f"{_size(count)}{of}", f"{_size(rate)}/s"]
        if done == self._files:
            words.append("done")
        elif left is not None:
            words.append(f"ETA {duration(left)}")
        say("download", "  ".join(words))


class Shown:
    """One file of a display."""

    def __init__(self, display: Display, name: str, task: TaskID | None) -> None:
        self._display, self._name, self._task = display, name, task

    def advance(self, count: int) -> None:
        self._display.advance(count, self._task)

    def sized(self, size: int) -> None:
        self._display.sized(size, self._task)

    def finished(self, why_missing: str = "") -> None:
        self._display.file(self._name, why_missing)


class Silent(Shown):
    """One file of no display."""

    def __init__(self) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def sized(self, size: int) -> None:
        pass

    def finished(self, why_missing: str = "") -> None:
        pass


class _Bars:
    def __init__(self, files: int, expected: int) -> None:
        console = Console()
        self._whole = Progress(
            TextColumn("[bold]shards"), BarColumn(), MofNCompleteColumn(), console=console
        )
        self._each = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self._count = self._whole.add_task("shards", total=files)
        self._bytes = self._each.add_task("all", total=expected or None)

    def start(self) -> None:
        self._each.start()

    def stop(self) -> None:
        self._each.stop()
        self._whole.refresh()
        self._whole.console.print(self._whole.get_renderable())

    def add(self, name: str) -> TaskID:
        return self._each.add_task(name, total=None)

    def advance(self, task: TaskID, count: int) -> None:
        self._each.advance(task, count)
        self._each.advance(self._bytes, count)

    def sized(self, task: TaskID, size: int) -> None:
        self._each.update(task, total=size)

    def file(self, done: bool) -> None:
        self._whole.advance(self._count, int(done))

    def remove(self, task: TaskID) -> None:
        self._each.remove_task(task)


def _size(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
