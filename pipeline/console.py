"""What a person sees of a local run: a line or a few for each step; everything else to a log file.

KFP's runner prints its own events and all that the steps print to standard output. A step's lines
for people start with `[step]` (`trainer.progress`), its one error line with `error:`.
"""

from __future__ import annotations

import io
import os
import re
import sys
import time
from pathlib import Path
from typing import TextIO

from trainer.errors import InputError
from trainer.progress import INTERVAL, ON_TERMINAL, duration

_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_STARTED = re.compile(r"Executing task '([\w-]+)'")
_FINISHED = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
_FOR_PEOPLE = re.compile(r"^\s*\[(\w+)\] ")
_ERROR = re.compile(r"^\s*error: (.*)")
_TAIL_LINES = 25


def steps_progress() -> dict[str, str]:
    """How often steps say how far they are, as environment variables.

    A step writes into a pipe; whether a person reads it as it comes is known here alone.
    """
    wanted = os.environ.get(INTERVAL, str(ON_TERMINAL) if sys.stdout.isatty() else "")
    return {INTERVAL: wanted} if wanted else {}


class Console(io.TextIOBase):
    """A stream to redirect standard output into.

    Args:
        terminal: where lines for people go.
        log: file that takes everything.

    Attributes:
        seconds: by step that ran.
        cached: steps whose earlier result was used.
        failed: the step that failed, or empty.
        error: its error line, or empty.
    """

    def __init__(self, terminal: TextIO, log: Path) -> None:
        self.seconds: dict[str, float] = {}
        self.cached: list[str] = []
        self.failed = ""
        self.error = ""
        self.tail: list[str] = []
        self._terminal = terminal
        self._log = log.open("w", encoding="utf-8", buffering=1)
        self._pending = ""
        self._started = time.monotonic()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *whole, self._pending = (self._pending + text).split("\n")
        for line in whole:
            self._line(_COLOR.sub("", line))
        return len(text)

    def close(self) -> None:
        if not self._log.closed:
            self._log.close()
        super().close()

    def skipped(self, step: str) -> None:
        """Say that an earlier result of a step is used; KFP tells only a log that is off."""
        self.cached.append(step)
        self.say(f"\n── {step} " + "─" * max(0, 66 - len(step)))
        self.say(f"[{step}] nothing that it depends on changed: earlier result used")

    def _line(self, line: str) -> None:
        if not line.strip():
            return
        try:
            self._log.write(line + "\n")
        except OSError as error:
            error.filename = self._log.name
            raise
        if match := _STARTED.search(line):
            self.started(match[1])
        elif match := _FINISHED.search(line):
            self.finished(match[1], time.monotonic() - self._started, match[2] == "SUCCESS")
        elif match := _ERROR.match(line):
            self.error = match[1]
        elif _FOR_PEOPLE.match(line):
            self.say(line.strip())
        else:
            self.tail = [*self.tail[1 - _TAIL_LINES :], line]

    def started(self, step: str) -> None:
        """A step has begun."""
        self._started = time.monotonic()
        self.tail = []
        self.say(f"\n── {step} " + "─" * max(0, 66 - len(step)))

    def finished(self, step: str, seconds: float, well: bool) -> None:
        """A step has ended."""
        self.seconds[step] = seconds
        if well:
            self.error = ""
            self.say(f"[{step}] took {duration(self.seconds[step])}")
        else:
            self.failed = step

    def failure(self, otherwise: str = "") -> InputError:
        """What ended a run, as its one line; without the step's own error its last lines are shown.

        Args:
            otherwise: what is said where no step failed.
        """
        what = f"step {self.failed} failed" if self.failed else otherwise
        log = self._log.name
        if self.error:
            return InputError(f"{what}: {self.error} (log: {log})")
        print("\n".join(self.tail) + "\n", file=sys.stderr)
        return InputError(f"{what}, see the lines above (log: {log})")

    def say(self, line: str) -> None:
        """Print a line for people."""
        self._terminal.write(line + "\n")
        self._terminal.flush()
