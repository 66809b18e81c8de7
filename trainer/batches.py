"""The arrays of a batch: their memory, how records fill them, how they become tensors."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import records
from trainer.config import DataConfig

_ALIGNMENT = 64
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
        starts: int32 [B], the first second of each segment; None: whole videos.
        lengths: int32 [n], frames of each video's record; None: video-level data.
    """

    features: dict[str, NDArray[Any]]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32] | None
    video_ids: list[str]
    places: NDArray[np.int64]
    starts: NDArray[np.int32] | None = None
    lengths: NDArray[np.int32] | None = None


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
        weights = starts = None
        if self.data.segments:
            starts = np.zeros(size, np.int32)
            weights = self._memory.array((size, self.num_classes), np.float32)
            weights[:] = 0
        lengths = np.zeros(len(places), np.int32) if self.level == records.FRAME else None
        return Batch(features, labels, weights, [""] * len(places), places, starts, lengths)

    def fill(self, batch: Batch, row: int, video: records.VideoRecord, epoch: int) -> None:
        """Put a video in its place, the `row`-th of the batch."""
        batch.video_ids[row] = video.video_id
        if batch.lengths is not None:
            batch.lengths[row] = video.num_frames
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
            if batch.starts is not None:
                batch.starts[place] = start
            if count and rated is not None and batch.weights is not None:
                here = rated.starts == start
                batch.weights[place, rated.labels[here]] = 1
                batch.labels[place, rated.labels[here]] = rated.scores[here]
