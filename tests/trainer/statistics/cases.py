"""Records and accumulators that several of these tests use."""

import numpy as np

from tests.conftest import chunk_of, frame_video, mean_video
from trainer import records
from trainer.manifest import Manifest, Shard
from trainer.record_batch import parse_video_chunk
from trainer.statistics import FeatureStatistics
from trainer.statistics.summary import arrays_of, summary_of

CLASSES = 9


def videos_of(level, count, seed=3):
    rng = np.random.default_rng(seed)
    make = frame_video if level == records.FRAME else mean_video
    found = []
    for number in range(count):
        labels = rng.choice(CLASSES, rng.integers(0, 5), replace=False)
        frames = {"num_frames": int(rng.integers(1, 7))} if level == records.FRAME else {}
        found.append(make(rng, labels=labels, video_id=f"{seed}-{number}", **frames))
    return found


def collect(videos, covariance=False, level=None, num_classes=CLASSES):
    """The statistics of videos, video level by way of their bytes."""
    level = level or videos[0].level
    statistics = FeatureStatistics(level, num_classes, covariance)
    if level == records.FRAME:
        statistics.add(videos)
    else:
        batch, wrong = parse_video_chunk(chunk_of(map(records.encode, videos)), num_classes)
        assert not wrong
        statistics.add_batch(batch)
    return statistics


def values_of(videos):
    """float64 [rows, 1152] of all videos, dequantised."""
    if videos[0].level == records.VIDEO:
        return np.stack([np.concatenate([v.rgb, v.audio]) for v in videos]).astype(np.float64)
    codes = np.concatenate([np.concatenate([v.rgb, v.audio], axis=1) for v in videos])
    return records.dequantise(codes).astype(np.float64)


def manifest_of(level="video", num_classes=CLASSES, **counts):
    shards = tuple(Shard(split, f"/{split}", 1, "", n) for split, n in counts.items())
    return Manifest("here", level, num_classes, shards)


def described(**by_split):
    """Summaries and arrays of splits."""
    splits = {split: summary_of(one) for split, one in by_split.items()}
    arrays = {
        f"{split}/{name}": values
        for split, one in by_split.items()
        for name, values in arrays_of(one).items()
    }
    return splits, arrays
