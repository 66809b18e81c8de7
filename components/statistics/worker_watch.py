"""Beam's worker processes on this machine: one that dies ends the pass, whenever it dies.

Beam notices a worker that dies at work, but waits for ever for one that died before it had reported
for work, as one that is out of memory may.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

GRACE_SECONDS = 5.0
"""That Beam has to notice it by itself."""
DIED = "Worker subprocess exited"
_WORKER = "sdk_worker_main"

WAKE = signal.SIGUSR1

_log = logging.getLogger(__name__)


class _WorkerDiedError(BaseException):
    """Of no kind that a library catches on its way."""


@contextlib.contextmanager
def watched_workers(options: PipelineOptions) -> Iterator[None]:
    """End the block soon after a worker process has died; nothing where there are none.

    A signal that a function of this program handles ends the workers first.

    Raises:
        RuntimeError: `DIED`, after the other workers have been ended.
    """
    here = threading.current_thread() is threading.main_thread()  # signals reach no other
    if not here or options.view_as(DirectOptions).direct_running_mode != "multi_processing":
        yield
        return
    died, done, leaving = threading.Event(), threading.Event(), threading.Lock()
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        # Beam's threads; the block's own exception says what is to be said.
        _log.debug("%s: %s", arguments.thread, arguments.exc_value)
        if DIED in str(arguments.exc_value) and not died.is_set():
            died.set()
            threading.Thread(target=give_up, daemon=True).start()

    def give_up() -> None:
        while not done.wait(GRACE_SECONDS):
            _kill_workers()
            # Wakes the main thread, which waits without a limit; again, if something swallowed it.
            with leaving:
                if not done.is_set():
                    signal.pthread_kill(threading.main_thread().ident or 0, WAKE)

    def wake(*_: object) -> None:
        if not done.is_set():
            raise _WorkerDiedError

    def end(number: int, frame: Any) -> None:
        # Beam would wait until each has done the bundle that it is at.
        done.set()
        _kill_workers()
        ending[number](number, frame)

    ending: dict[int, Any] = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        if callable(before_it := signal.getsignal(number)):  # the end is the program's to say
            ending[number] = before_it
            signal.signal(number, end)
    # Not SIGINT: a process that was started in the background does not heed it.
    handler = signal.signal(WAKE, wake)
    threading.excepthook = hook
    # What Beam logs of a lost connection are pages of tracebacks.
    beam_log = logging.getLogger("apache_beam")
    level = beam_log.level
    beam_log.setLevel(logging.CRITICAL)
    try:
        yield
    except _WorkerDiedError:
        raise RuntimeError(DIED) from None
    finally:
        done.set()
        with leaving:  # a signal that was sent has found its handler
            signal.signal(WAKE, handler)
        for handled, before_it in ending.items():
            if signal.getsignal(handled) is end:
                signal.signal(handled, before_it)
        threading.excepthook = before
        beam_log.setLevel(level)


def _kill_workers() -> None:
    for process in _workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _workers() -> list[int]:
    """Worker processes that this one has started, through a shell as Beam does."""
    found, waiting = [], [os.getpid()]
    while waiting:
        for task in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for child in map(int, task.read_text().split()):
                    waiting.append(child)
                    if _WORKER in Path(f"/proc/{child}/cmdline").read_text():
                        found.append(child)
    return found
