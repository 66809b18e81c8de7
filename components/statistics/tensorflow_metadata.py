"""Statistics and schema as TensorFlow Metadata's messages, which TFX's tools read.

https://github.com/tensorflow/metadata/blob/v1.21.0/tensorflow_metadata/proto/v0/statistics.proto
and schema.proto beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from trainer.record_format import (
    AUDIO_KEY,
    AUDIO_SIZE,
    FRAME,
    ID_KEYS,
    LABELS_KEY,
    MEAN_AUDIO_KEY,
    MEAN_RGB_KEY,
    RGB_KEY,
    RGB_SIZE,
    STEP,
)
from trainer.statistics.feature_statistics import FeatureStatistics
from trainer.statistics.features import BINS_A_UNIT, QUANTILES
from trainer.statistics.schema import Schema

_BUCKETS = 32
_TOP = 50


def statistics_list(
    by_split: Mapping[str, FeatureStatistics], names: Sequence[str]
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """A data set for each split; each dimension is a feature, such as `rgb.17`.

    Args:
        by_split: with at least one record each.
        names: of the classes.
    """
    listing = statistics_pb2.DatasetFeatureStatisticsList()
    for split, statistics in by_split.items():
        dataset = listing.datasets.add(name=split, num_examples=statistics.records)
        _add_id(dataset, statistics)
        _add_labels(dataset, statistics, names)
        _add_lengths(dataset, statistics)
        _add_dimensions(dataset, statistics)
    return listing


def feature_names(level: str) -> tuple[str, str]:
    """Of the two features in the records."""
    return (RGB_KEY, AUDIO_KEY) if level == FRAME else (MEAN_RGB_KEY, MEAN_AUDIO_KEY)


def _add_id(dataset: Any, statistics: FeatureStatistics) -> None:
    feature = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.BYTES)
    feature.path.step.append(ID_KEYS[0])
    common = feature.bytes_stats.common_stats
    common.num_non_missing = statistics.records - statistics.without_id
    common.num_missing = statistics.without_id
    common.min_num_values = common.max_num_values = 1
    common.avg_num_values = 1.0


def _add_labels(dataset: Any, statistics: FeatureStatistics, names: Sequence[str]) -> None:
    counts = statistics.labels.classes
    feature = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.INT)
    feature.path.step.append(LABELS_KEY)
    # Integers that name a class: as TFDV has a categorical integer feature.
    strings = feature.string_stats
    strings.unique = int((counts > 0).sum())
    lengths = statistics.labels.labels_a_video
    common = strings.common_stats
    common.num_missing = int(lengths[0])
    common.num_non_missing = statistics.records - int(lengths[0])
    used = np.flatnonzero(lengths[1:]) + 1
    if used.size:
        common.min_num_values, common.max_num_values = int(used[0]), int(used[-1])
        common.avg_num_values = float(counts.sum() / common.num_non_missing)
        common.tot_num_values = int(counts.sum())
    order = np.argsort(-counts, kind="stable")
    for rank, index in enumerate(order[counts[order] > 0].tolist()):
        label = f"{index} {names[index]}".strip()
        strings.rank_histogram.buckets.add(
            low_rank=rank, high_rank=rank, label=label, sample_count=float(counts[index])
        )
        if rank < _TOP:
            strings.top_values.add(value=label, frequency=float(counts[index]))


def _add_lengths(dataset: Any, statistics: FeatureStatistics) -> None:
    """`num_frames`, which is derived from the feature lists."""
    feature = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.INT)
    feature.path.step.append("num_frames")
    frames = statistics.frames
    videos = statistics.records
    mean = statistics.count / videos
    numbers = feature.num_stats
    _fill(
        numbers,
        videos,
        mean,
        (statistics.squared_frames * videos - statistics.count**2) / videos**2,
        (float(statistics.shortest), float(statistics.longest)),
        float(np.searchsorted(np.cumsum(frames), videos / 2)),
    )
    numbers.num_zeros = int(frames[0])
    _fill_histogram(numbers, frames, np.arange(len(frames)) - 0.5, 1.0)


def _add_dimensions(dataset: Any, statistics: FeatureStatistics) -> None:
    features = statistics.features
    moments, quantiles = features.moments(), features.quantiles()
    rgb, audio = feature_names(statistics.level)
    median = QUANTILES.index(0.5)
    is_frame = statistics.level == FRAME
    # Of a code's interval, or of a bin.
    width = STEP if is_frame else 1 / BINS_A_UNIT
    lower = features.edges() - (STEP / 2 if is_frame else width)
    for dimension in range(len(features.histogram)):
        name, index = (rgb, dimension) if dimension < RGB_SIZE else (audio, dimension - RGB_SIZE)
        feature = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.FLOAT)
        feature.path.step.append(f"{name}.{index}")
        _fill(
            feature.num_stats,
            statistics.records,
            float(moments["mean"][dimension]),
            float(moments["variance"][dimension]),
            (float(moments["minimum"][dimension]), float(moments["maximum"][dimension])),
            float(quantiles[dimension, median]),
        )
        # A value a frame.
        common = feature.num_stats.common_stats
        common.tot_num_values = features.count
        common.avg_num_values = features.count / statistics.records
        common.min_num_values = statistics.shortest
        common.max_num_values = statistics.longest
        _fill_histogram(feature.num_stats, features.histogram[dimension], lower, width)


def _fill(
    numbers: Any,
    count: int,
    mean: float,
    variance: float,
    limits: tuple[float, float],
    median: float,
) -> None:
    common = numbers.common_stats
    common.num_non_missing = common.tot_num_values = count
    common.min_num_values = common.max_num_values = 1
    common.avg_num_values = 1.0
    numbers.mean, numbers.std_dev, numbers.median = mean, variance**0.5, median
    numbers.min, numbers.max = limits


def _fill_histogram(
    numbers: Any, counts: NDArray[np.int64], lower: NDArray[Any], width: float
) -> None:
    """At most 32 buckets of whole bins, from the first that is not empty to the last."""
    first, last = np.flatnonzero(counts)[[0, -1]].tolist()
    size = -(-(last + 1 - first) // _BUCKETS)
    histogram = numbers.histograms.add(type=statistics_pb2.Histogram.STANDARD)
    for start in range(first, last + 1, size):
        end = min(start + size, last + 1)
        histogram.buckets.add(
            low_value=float(lower[start]),
            high_value=float(lower[end - 1] + width),
            sample_count=float(counts[start:end].sum()),
        )


def schema_text(schema: Schema) -> str:
    """`schema.pbtxt` of a record's features."""
    message = schema_pb2.Schema()
    rgb, audio = feature_names(schema.level)
    feature = message.feature.add(name=ID_KEYS[0], type=schema_pb2.BYTES)
    feature.presence.min_fraction = 1.0
    labels = message.feature.add(name=LABELS_KEY, type=schema_pb2.INT)
    labels.int_domain.min, labels.int_domain.max = 0, schema.num_classes - 1
    labels.int_domain.is_categorical = True
    labels.not_in_environment.append("test")  # the public test split has no labels
    message.default_environment.extend(["train", "validate", "test"])
    for name, size in ((rgb, RGB_SIZE), (audio, AUDIO_SIZE)):
        kind = schema_pb2.BYTES if schema.level == FRAME else schema_pb2.FLOAT
        feature = message.feature.add(name=name, type=kind)
        feature.presence.min_fraction = 1.0
        if schema.level == FRAME:  # one string of codes a frame
            longest = schema.checks.get("longest_video")
            feature.value_count.min = 1
            if longest and longest.maximum:
                feature.value_count.max = int(longest.maximum)
        else:
            feature.shape.dim.add(size=size)
            low, high = (schema.checks.get(n) for n in ("value_minimum", "value_maximum"))
            if low and low.minimum is not None:
                feature.float_domain.min = low.minimum
            if high and high.maximum is not None:
                feature.float_domain.max = high.maximum
    text: str = text_format.MessageToString(message)
    return text
