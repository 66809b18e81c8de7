"""Prediction in this process: a thread reads and parses ahead while the model scores."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

from components.predict.scoring import Outcome, Parsed, Settings, parse_window, score_window
from components.predict.windows import InputShard, read_windows
from trainer.exported_model import ExportedModel
from trainer.progress import Progress

AHEAD = 2
"""Windows that are read ahead."""
_SECONDS = 0.1

T = TypeVar("T")


def predict_directly(
    model: ExportedModel, shards: list[InputShard], settings: Settings
) -> Generator[list[Outcome], None, None]:
    """The outcomes of all records, by shard and number, a window at a time.

    Args:
        model: to score with.
        shards: to read, in their order.
        settings: how.
    """
    total = max(1, sum(shard.bytes for shard in shards))
    progress = Progress("predict", 1, "videos")
    with contextlib.closing(ahead(_parsed(model, shards, settings), AHEAD)) as windows:
        for parsed, done_bytes in windows:
            outcomes = score_window(model, parsed, settings)
            # How many there are is known at the end alone: until then, by their bytes.
            done = progress.done + len(outcomes)
            share = done_bytes / total
            progress.total = done if share >= 1 else max(done + 1, round(done / max(share, 1e-9)))
            progress.advance(len(outcomes))
            yield outcomes


def _parsed(
    model: ExportedModel, shards: list[InputShard], settings: Settings
) -> Iterator[tuple[Parsed, int]]:
    """Each window, and how many bytes of all shards there are up to its end."""
    before = 0
    for shard in shards:
        last = None
        for window in read_windows(shard.uri, settings.window):
            if last is not None:
                yield last
            last = parse_window(model, window), before + min(window.end, shard.bytes)
        before += shard.bytes
        if last is not None:
            yield last[0], before


def ahead(items: Iterator[T], count: int) -> Generator[T, None, None]:
    """The same items, taken by a thread of their own, up to `count` of them before they are asked
    for; what they raise is raised here.

    Closed early, the thread ends, and so do the items.
    """
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(count)
    stop = threading.Event()

    def put(more: bool, found: T | BaseException | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((more, found), timeout=_SECONDS)
                return

    def take() -> None:
        try:
            for item in items:
                put(True, item)
                if stop.is_set():
                    return
            put(False, None)
        except BaseException as error:
            put(False, error)

    thread = threading.Thread(target=take, name="ahead", daemon=True)
    thread.start()
    try:
        while (found := ready.get())[0]:
            yield found[1]  # type: ignore[misc]
        if isinstance(found[1], BaseException):
            raise found[1]
    finally:
        stop.set()
        thread.join()
