"""Shards to batches: read and parsed by threads, in an order that does not depend on them.

Features stay 8-bit codes up to the device, shapes are static, and a batch is a function of its
place in the training alone (`trainer.example_order`): any batch can be the first one.
"""

from __future__ import annotations

import collections
import itertools
import os
import resource
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from trainer import records
from trainer.batches import Batch, BatchBuilder
from trainer.config import DataConfig
from trainer.example_order import ExampleOrder
from trainer.manifest import Shard
from trainer.shard_reader import ShardReader

_MOST_READERS = 16


def read_batches(
    reader: ShardReader,
    builder: BatchBuilder,
    epoch: int,
    places: Callable[[int], NDArray[np.int64]],
    batches: range,
    readers: int,
    prefetch: int,
) -> Generator[Batch]:
    """Batches in order, made by threads.

    Args:
        reader: of the shards.
        builder: of the arrays.
        epoch: that the choice of frames belongs to.
        places: of the n-th batch: int64 [B,2].
        batches: numbers of the batches.
        readers: threads; each makes a part of a batch.
        prefetch: batches that are made or ready beside the one that is yielded.

    Raises:
        InputError: a record that can not be read, when its batch is due.
    """
    with ThreadPoolExecutor(readers, thread_name_prefix="reader") as pool:

        def part(batch: Batch, first: int, last: int) -> None:
            for row, video in enumerate(reader.read(batch.places[first:last]), first):
                builder.fill(batch, row, video, epoch)

        def begin(number: int) -> tuple[Batch, list[Future[None]]]:
            batch = builder.new(places(number))
            bounds = np.linspace(0, len(batch.places), readers + 1).astype(int).tolist()
            pairs = [pair for pair in itertools.pairwise(bounds) if pair[0] < pair[1]]
            return batch, [pool.submit(part, batch, *pair) for pair in pairs]

        waiting: collections.deque[tuple[Batch, list[Future[None]]]] = collections.deque()
        numbers = iter(batches)
        try:
            while True:
                while len(waiting) <= prefetch and (number := next(numbers, None)) is not None:
                    waiting.append(begin(number))
                if not waiting:
                    return
                batch, parts = waiting.popleft()
                for future in parts:
                    future.result()
                yield batch
        finally:
            for _, parts in waiting:
                for future in parts:
                    future.cancel()


def threads(data: DataConfig) -> int:
    """`data.readers`, or one a core that this process may use."""
    return data.readers or min(_MOST_READERS, len(os.sched_getaffinity(0)))


class TrainingInput:
    """The batches of a training, or one worker's share of them.

    Args:
        shards: to train on.
        level, num_classes: of the data.
        data: how to read it.
        batch_size: of all workers together.
        seed: of the order, and of the choice of frames and segments.
        worker, workers: the share: consecutive rows of each batch.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        level: records.Level,
        num_classes: int,
        data: DataConfig,
        batch_size: int,
        seed: int,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        self.data, self.batch_size = data, batch_size
        self.order = ExampleOrder(
            [shard.records for shard in shards], seed, data.shuffle_shards, data.read_block
        )
        # Half of what the system allows is left to everything else.
        most_open = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self.reader = ShardReader(
            shards, level, num_classes, data.corrupt_records,
            min(2 * data.shuffle_shards + 2, most_open),
        )  # fmt: skip
        self.builder = BatchBuilder(level, num_classes, data, seed)
        self._share = batch_size // workers
        self._first = worker * self._share

    @property
    def epoch_steps(self) -> int:
        """Full batches of an epoch; in another order every epoch, so that no video stays out."""
        return self.order.examples // self.batch_size

    def batches(self, epoch: int, steps: range) -> Generator[Batch]:
        """Those of the given steps of an epoch.

        Raises:
            InputError: a record that can not be read.
        """

        def places(step: int) -> NDArray[np.int64]:
            start = step * self.batch_size + self._first
            return self.order.locate(epoch, start, self._share)

        return read_batches(
            self.reader, self.builder, epoch, places, steps, threads(self.data), self.data.prefetch
        )

    def shards_of(self, epoch: int, step: int) -> list[str]:
        """Paths of the shards that a step's whole batch was read from."""
        places = self.order.locate(epoch, step * self.batch_size, self.batch_size)
        return [str(self.reader.shards[i].path) for i in np.unique(places[:, 0])]


def evaluation_batches(
    shards: Sequence[Shard],
    level: records.Level,
    num_classes: int,
    data: DataConfig,
    batch_size: int,
    worker: int = 0,
    workers: int = 1,
) -> Generator[Batch]:
    """Every record once, in order; the last batch may be smaller. A worker has its share of them.

    Raises:
        InputError: a record that can not be read.
    """
    reader = ShardReader(shards, level, num_classes)
    counts = np.array([shard.records for shard in shards], np.int64)
    starts = np.cumsum(counts) - counts
    total = int(counts.sum())
    first, end = worker * total // workers, (worker + 1) * total // workers

    def places(number: int) -> NDArray[np.int64]:
        start = first + number * batch_size
        rows = np.arange(start, min(start + batch_size, end))
        shard = np.searchsorted(starts, rows, side="right") - 1
        return np.stack([shard, rows - starts[shard]], axis=1)

    return read_batches(
        reader,
        BatchBuilder(level, num_classes, data),
        0,
        places,
        range(-(-(end - first) // batch_size)),
        threads(data),
        data.prefetch,
    )
