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

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

GRACE_SECONDS = 5.0
"""That Beam has to notice it by itself."""
DIED = "Worker subprocess exited"
_WORKER = "sdk_worker_main"

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def watched_workers(options: PipelineOptions) -> Iterator[None]:
    """End the block soon after a worker process has died; nothing where there are none.

    Raises:
        RuntimeError: `DIED`, after the other workers have been ended.
    """
    if options.view_as(DirectOptions).direct_running_mode != "multi_processing":
        yield
        return
    died, done = threading.Event(), threading.Event()
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        # Beam's threads; the block's own exception says what is to be said.
        _log.debug("%s: %s", arguments.thread, arguments.exc_value)
        if DIED in str(arguments.exc_value) and not died.is_set():
            died.set()
            timer = threading.Timer(GRACE_SECONDS, give_up)
            timer.daemon = True
            timer.start()

    def give_up() -> None:
        if not done.is_set():
            for process in _workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            # Wakes the main thread, which waits without a limit.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.excepthook = hook
    # What Beam logs of a lost connection are pages of tracebacks.
    beam_log = logging.getLogger("apache_beam")
    level = beam_log.level
    beam_log.setLevel(logging.CRITICAL)
    try:
        yield
    except KeyboardInterrupt:
        if not died.is_set():
            raise
        raise RuntimeError(DIED) from None
    finally:
        done.set()
        threading.excepthook = before
        beam_log.setLevel(level)


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
