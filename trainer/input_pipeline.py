"""Shards to batches: read and parsed by threads, in an order that does not depend on them.

Features stay 8-bit codes up to the device, shapes are static, and a batch is a function of its
place in the training alone (`trainer.example_order`): any batch can be the first one.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import records
from trainer.config import DataConfig
from trainer.example_order import ExampleOrder
from trainer.manifest import Shard
from trainer.shard_reader import ShardReader

_ALIGNMENT = 64
_MOST_READERS = 16
_UNUSED = 3
"""References to a block that nobody uses: its list, the loop's variable, getrefcount's argument."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Examples of one step.

    Attributes:
        features: the model's inputs: frame level `rgb` uint8 [B,T,1024], `audio` uint8 [B,T,128],
            `num_frames` int32 [B]; video level `mean_rgb` float32 [B,1024], `mean_audio` float32
            [B,128].
        labels: float32 [B,C], 0 or 1.
        weights: float32 [B,C], 1 for the rated pairs of segments, else 0; None: every pair counts.
        video_ids: [B] (of segments: of each video once).
        places: int64 [n,2]: shard and record of each video.
    """

    features: dict[str, NDArray[Any]]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    video_ids: list[str]
    places: NDArray[np.int64]


class BatchMemory:
    """Memory of batches, used again when nobody holds a batch of it any more.

    Fresh memory has to be mapped page by page, which takes as long as filling it. What a tensor or
    an array still refers to is told by Python's count of references: a tensor that took over an
    array refers to it as long as it lives.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, list[NDArray[np.uint8]]] = {}

    def array(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array, not initialised, that TensorFlow can take over as it is."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        blocks = self._blocks.setdefault(size, [])
        for block in blocks:
            if sys.getrefcount(block) == _UNUSED:
                break
        else:
            block = np.empty(size + _ALIGNMENT, np.uint8)
            blocks.append(block)
        start = -block.ctypes.data % _ALIGNMENT
        found: NDArray[Any] = block[start : start + size].view(dtype).reshape(shape)
        return found


def as_tensor(array: NDArray[Any]) -> Any:
    """The array as a tensor: without a copy where its memory is aligned, on the CPU."""
    if array.ctypes.data % _ALIGNMENT or not array.flags.c_contiguous:
        return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


class BatchBuilder:
    """Makes the arrays of a batch of its records.

    Args:
        level, num_classes: of the data.
        data: `max_frames` and, in training, `train_frames`, `segments`, `segments_per_video`.
        seed: of the choice of frames and segments; None: no choice is made, as in evaluation.
    """

    def __init__(
        self, level: records.Level, num_classes: int, data: DataConfig, seed: int | None = None
    ) -> None:
        self.level, self.num_classes, self.data, self.seed = level, num_classes, data, seed
        self._memory = BatchMemory()
        self.windows = 1
        if data.segments:
            # Every segment of a video is scored; more than fit into its length there are not.
            most = records.MAX_FRAMES // records.SEGMENT_FRAMES
            self.windows = most if seed is None else data.segments_per_video
        self.frames = data.max_frames
        if data.segments:
            self.frames = records.SEGMENT_FRAMES
        elif data.train_frames and seed is not None:
            self.frames = min(data.train_frames, data.max_frames)

    def new(self, places: NDArray[np.int64]) -> Batch:
        """A batch for the videos at places [n,2], to fill."""
        size = len(places) * self.windows
        features: dict[str, NDArray[Any]]
        if self.level == records.VIDEO:
            features = {
                records.MEAN_RGB_KEY: self._memory.array((size, records.RGB_SIZE), np.float32),
                records.MEAN_AUDIO_KEY: self._memory.array((size, records.AUDIO_SIZE), np.float32),
            }
        else:
            features = {
                "rgb": self._memory.array((size, self.frames, records.RGB_SIZE), np.uint8),
                "audio": self._memory.array((size, self.frames, records.AUDIO_SIZE), np.uint8),
                "num_frames": np.zeros(size, np.int32),
            }
        labels = self._memory.array((size, self.num_classes), np.float32)
        labels[:] = 0
        weights = None
        if self.data.segments:
            weights = self._memory.array((size, self.num_classes), np.float32)
            weights[:] = 0
        return Batch(features, labels, weights, [""] * len(places), places)

    def fill(self, batch: Batch, row: int, video: records.VideoRecord, epoch: int) -> None:
        """Put a video in its place, the `row`-th of the batch."""
        batch.video_ids[row] = video.video_id
        if self.data.segments:
            self._fill_segments(batch, row, video, epoch)
            return
        batch.labels[row, video.labels] = 1
        if self.level == records.VIDEO:
            batch.features[records.MEAN_RGB_KEY][row] = video.rgb
            batch.features[records.MEAN_AUDIO_KEY][row] = video.audio
            return
        available = min(video.num_frames, self.data.max_frames)
        chosen: slice | NDArray[np.int64] = slice(min(available, self.frames))
        if available > self.frames and self.seed is not None:
            shard, record = batch.places[row].tolist()
            rng = np.random.default_rng([self.seed, epoch, shard, record])
            chosen = np.sort(rng.choice(available, self.frames, replace=False, shuffle=False))
        self._fill_frames(batch, row, video, chosen, min(available, self.frames))

    def _fill_frames(
        self,
        batch: Batch,
        row: int,
        video: records.VideoRecord,
        chosen: slice | NDArray[np.int64],
        count: int,
    ) -> None:
        for name, codes in (("rgb", video.rgb), ("audio", video.audio)):
            target = batch.features[name][row]
            target[:count] = codes[chosen]
            target[count:] = 0
        batch.features["num_frames"][row] = count

    def _fill_segments(
        self, batch: Batch, row: int, video: records.VideoRecord, epoch: int
    ) -> None:
        """The video's rated windows; of more than fit, others every epoch, each one in turn."""
        rated = video.segments
        starts = np.empty(0, np.int64) if rated is None else np.unique(rated.starts)
        starts = starts[starts < video.num_frames]
        if len(starts) > self.windows and self.seed is not None:
            shard, record = batch.places[row].tolist()
            order = np.random.default_rng([self.seed, shard, record]).permutation(len(starts))
            turn = epoch * self.windows + np.arange(self.windows)
            starts = starts[order[turn % len(starts)]]
        for window in range(self.windows):
            place = row * self.windows + window
            start = int(starts[window]) if window < len(starts) else video.num_frames
            count = min(self.frames, video.num_frames - start)
            self._fill_frames(batch, place, video, slice(start, start + count), count)
            if count and rated is not None and batch.weights is not None:
                here = rated.starts == start
                batch.weights[place, rated.labels[here]] = 1
                batch.labels[place, rated.labels[here]] = rated.scores[here]


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
        self.reader = ShardReader(
            shards, level, num_classes, data.corrupt_records, 2 * data.shuffle_shards + 2
        )
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
