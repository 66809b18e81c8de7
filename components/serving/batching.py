"""Dynamic batching: videos of many requests are scored in one call of the model."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from components.serving.errors import RequestError
from components.serving.metrics import ServingMetrics
from trainer.exported_model import Answer
from trainer.records import VideoRecord


@dataclasses.dataclass
class _Waiting:
    """Videos of one request that are still to be scored, and their answers so far."""

    videos: deque[VideoRecord]
    answered: list[Answer]
    done: asyncio.Future[Answer]
    since: float


class DynamicBatcher:
    """Collects the videos that wait while the model is at work, and scores them at once.

    One thread calls the model, which uses all cores itself. A video that finds the model idle waits
    `batch_milliseconds` for others; one that waited as long already does not wait on.

    Args:
        score: the model's call for a list of videos.
        max_batch: videos of a call.
        milliseconds: that a batch waits to become full.
        max_queue: videos that may wait.
        metrics: to count in.
    """

    def __init__(
        self,
        score: Callable[[Sequence[VideoRecord]], Answer],
        max_batch: int,
        milliseconds: float,
        max_queue: int,
        metrics: ServingMetrics,
    ) -> None:
        self._score = score
        self._max_batch = max_batch
        self._seconds = milliseconds / 1e3
        self._max_queue = max_queue
        self._metrics = metrics
        self._waiting: deque[_Waiting] = deque()
        self._queued = 0
        self._others = 0
        self._arrived = asyncio.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to score; from within the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End; whoever still waits is turned away with 503."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for one in self._waiting:
            if not one.done.done():
                one.done.set_exception(RequestError(503, "the server stops"))
        self._waiting.clear()
        await asyncio.to_thread(self._thread.shutdown)

    async def answer(self, videos: Sequence[VideoRecord]) -> Answer:
        """The best classes of each video, in their order.

        Raises:
            RequestError: 503, too many wait already.
        """
        self._check_room(len(videos))
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(deque(videos), [], done, time.monotonic()))
        self._count(len(videos))
        self._arrived.set()
        return await done

    async def run(self, call: Callable[[], Any], count: int) -> Any:
        """Another call of the model, in its thread and turn, as much work as `count` videos.

        Raises:
            RequestError: 413, it is more than can ever wait; 503, too many wait already.
        """
        if count > self._max_queue:
            raise RequestError(
                413, f"{count:,} windows in a request, expected at most {self._max_queue:,}"
            )
        self._check_room(count)
        self._count(others=count)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        finally:
            self._count(others=-count)

    def _check_room(self, count: int) -> None:
        waiting = self._queued + self._others
        if waiting + count > self._max_queue:
            raise RequestError(503, f"{waiting} videos wait already, try again later")

    def _count(self, videos: int = 0, others: int = 0) -> None:
        """Add to what waits: videos for the next batches, and the work of other calls."""
        self._queued += videos
        self._others += others
        self._metrics.waiting.set(self._queued + self._others)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._next_batch_is_due()
            batch, owners = self._take()
            if not batch:
                continue
            start = time.perf_counter()
            try:
                answer = await loop.run_in_executor(self._thread, self._score, batch)
            except asyncio.CancelledError:
                self._settle(owners, RequestError(503, "the server stops"))
                raise
            except Exception as error:  # the model's own: told to those who asked, the server lives
                self._settle(owners, error)
                continue
            self._metrics.batch_videos.observe(len(batch))
            self._metrics.batch_seconds.observe(time.perf_counter() - start)
            self._deliver(owners, answer)

    async def _next_batch_is_due(self) -> None:
        """Until a batch is full, or its first video has waited long enough."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        due = self._waiting[0].since + self._seconds
        while self._queued < self._max_batch and (left := due - time.monotonic()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> tuple[list[VideoRecord], list[tuple[_Waiting, int]]]:
        """The videos of the next batch, and how many of them are whose."""
        batch: list[VideoRecord] = []
        owners = []
        while self._waiting and len(batch) < self._max_batch:
            one = self._waiting[0]
            if one.done.done():  # whoever asked has gone
                self._count(-len(one.videos))
                self._waiting.popleft()
                continue
            share = min(len(one.videos), self._max_batch - len(batch))
            batch += [one.videos.popleft() for _ in range(share)]
            self._count(-share)
            owners.append((one, share))
            if not one.videos:
                self._waiting.popleft()
        return batch, owners

    def _deliver(self, owners: list[tuple[_Waiting, int]], answer: Answer) -> None:
        start = 0
        for one, share in owners:
            one.answered.append(answer.between(start, start + share))
            start += share
            if not one.videos and not one.done.done():
                one.done.set_result(Answer.joined(one.answered))

    def _settle(self, owners: list[tuple[_Waiting, int]], error: Exception) -> None:
        """Tell an error to all whose videos were in a batch."""
        for one, _ in owners:
            if not one.done.done():
                one.done.set_exception(error)
