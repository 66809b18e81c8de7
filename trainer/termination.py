"""SIGTERM as a wish that the training asks for, not as an end in the middle of a step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from trainer.progress import say

EXIT_CODE = 128 + signal.SIGTERM


class Termination:
    """Whether the process was asked to end."""

    def __init__(self) -> None:
        self.wanted = False

    def __call__(self, *_: Any) -> None:
        self.wanted = True


@contextlib.contextmanager
def noticed() -> Iterator[Termination]:
    """Note SIGTERM while the block runs; afterwards it ends the process again as before.

    Best effort: Python gets to see a signal between two calls into TensorFlow. Outside of the main
    thread signals can not be caught, and nothing changes.
    """
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return
    before = signal.signal(signal.SIGTERM, termination)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, before)


class _EndedError(BaseException):
    """Of no kind that a library takes for a failure to go on from."""


@contextlib.contextmanager
def ended_by_signals(step: str, left: str) -> Iterator[None]:
    """SIGTERM and Ctrl-C as one line and exit code 143 or 130, after the block has tidied up.

    Args:
        step: that says it.
        left: what is left of the work.

    Raises:
        SystemExit: in place of what the signal would do.
    """

    def end(number: int, _: Any) -> NoReturn:
        # A second one must not meet the tidying up.
        signal.signal(number, signal.SIG_IGN)
        ended.append(number)
        raise _EndedError

    ended: list[int] = []
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # signals reach no other
        for number in (signal.SIGTERM, signal.SIGINT):
            # One that is deaf to it, as what a shell starts in the background, stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield
    except BaseException:
        # Whatever a library made of it on its way.
        if not ended:
            raise
        say(step, f"ended by {signal.Signals(ended[0]).name}: {left}")
        raise SystemExit(128 + ended[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
