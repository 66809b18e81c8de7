"""Progress as lines that read well in a terminal and in a log: `[train] 40/75 steps … ETA 0:32`."""

from __future__ import annotations

import time


def say(step: str, message: str) -> None:
    """Print one line of a step; the pipeline's console shows these and files the rest."""
    print(f"[{step}] {message}", flush=True)


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
        interval: seconds between two lines.
        done: units that an earlier attempt did.
    """

    def __init__(
        self, step: str, total: int, unit: str, interval: float = 5.0, done: int = 0
    ) -> None:
        self.step, self.total, self.unit, self.interval = step, total, unit, interval
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
