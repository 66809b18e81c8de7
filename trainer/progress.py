"""Progress as lines that read well in a terminal and in a log: `[train] 40/75 steps … ETA 0:32`."""

from __future__ import annotations

import os
import sys
import time

INTERVAL = "PROGRESS_SECONDS"
"""Environment variable: seconds between two lines of progress, whatever standard output is."""
ON_TERMINAL, IN_LOG = 5.0, 60.0
"""Seconds between two lines of progress."""


def say(step: str, message: str) -> None:
    """Print one line of a step; the pipeline's console shows these and files the rest."""
    # One write: lines of several threads must not get into each other.
    print(f"[{step}] {message}\n", end="", flush=True)


def duration(seconds: float) -> str:
    """`0:07`, `12:30`, `3:05:00`."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Says how far a loop is, at most every few seconds.

    Args:
        step: name of the pipeline's step.
        total: of the units; the last one is always said.
        unit: plural noun.
        interval: seconds between two lines; None: five on a terminal, a minute in a log, or what
            the environment says.
        done: units that an earlier attempt did.
    """

    def __init__(
        self,
        step: str,
        total: int,
        unit: str,
        interval: float | None = None,
        done: int = 0,
    ) -> None:
        self.step, self.total, self.unit = step, total, unit
        self.interval = progress_interval() if interval is None else interval
        self.done = self._start_done = done
        self._start = self._last = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        now = time.monotonic()
        if self.done < self.total and now - self._last < self.interval:
            return
        self._last = now
        rate = (self.done - self._start_done) / max(now - self._start, 1e-9)
        left = (
            "done"
            if self.done >= self.total
            else f"ETA {duration((self.total - self.done) / rate)}"
        )
        parts = [
            f"{self.done:,}/{self.total:,} {self.unit}",
            note,
            f"{rate:,.0f} {self.unit}/s",
            left,
        ]
        say(self.step, "  ".join(part for part in parts if part))


def progress_interval() -> float:
    """Seconds between two lines of progress, by the environment or by what standard output is."""
    try:
        return float(os.environ[INTERVAL])
    except (KeyError, ValueError):
        return ON_TERMINAL if sys.stdout.isatty() else IN_LOG
