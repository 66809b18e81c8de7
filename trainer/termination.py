"""SIGTERM as a wish that the training asks for, not as an end in the middle of a step."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

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
