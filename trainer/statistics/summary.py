"""The numbers of a split that a person reads, and that a schema limits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.record_format import FRAME
from trainer.statistics.feature_statistics import FeatureStatistics
from trainer.statistics.features import QUANTILES


def summary_of(statistics: FeatureStatistics) -> dict[str, Any]:
    """Plain numbers of a split with at least one record, for JSON."""
    moments = statistics.features.moments()
    saturated = statistics.features.saturated()
    labels, frames = statistics.labels, statistics.frames
    videos = statistics.records
    lengths = np.cumsum(frames)
    summary: dict[str, Any] = {
        "records": videos,
        "bytes": statistics.bytes,
        "frames": statistics.count,
        "frames_a_video": {
            "minimum": statistics.shortest,
            "median": int(np.searchsorted(lengths, videos / 2)),
            "maximum": statistics.longest,
        },
        "labels": int(labels.classes.sum()),
        "labels_a_video": {
            "mean": float(labels.classes.sum() / videos),
            "maximum": int(np.flatnonzero(labels.labels_a_video)[-1]),
        },
        "records_without_labels": int(labels.labels_a_video[0]),
        "classes_with_examples": int((labels.classes > 0).sum()),
        "records_without_id": statistics.without_id,
        "silent_audio": statistics.silent_audio,
        "constant_dimensions": int((moments["minimum"] == moments["maximum"]).sum()),
        "saturated_low": float(saturated[:, 0].mean()),
        "saturated_high": float(saturated[:, 1].mean()),
        "value_minimum": float(moments["minimum"].min()),
        "value_maximum": float(moments["maximum"].max()),
        "non_finite_values": int(statistics.non_finite.sum()),
    }
    if statistics.level == FRAME:
        summary |= {
            "single_frame_videos": int(frames[1]),
            "unequal_lengths": statistics.unequal_lengths,
            "rated_segments": int(statistics.ratings.sum()),
            "rated_present": int(statistics.ratings[:, 1].sum()),
            "rated_classes": int(statistics.ratings.any(axis=1).sum()),
        }
    return summary


def arrays_of(statistics: FeatureStatistics) -> dict[str, NDArray[Any]]:
    """The arrays of a split, by the names of docs/statistics.md."""
    features, labels = statistics.features, statistics.labels
    pairs, pair_counts = labels.pairs()
    return {
        **features.moments(),
        "quantiles": features.quantiles(),
        "quantile_levels": np.array(QUANTILES),
        "saturated": features.saturated(),
        "histogram": features.histogram,
        "edges": features.edges(),
        "non_finite": statistics.non_finite,
        "frames": statistics.frames,
        "ratings": statistics.ratings,
        "labels": labels.classes,
        "labels_a_video": labels.labels_a_video,
        "pairs": pairs.astype(np.int32),
        "pair_counts": pair_counts,
    }


def measures(summary: dict[str, Any]) -> dict[str, float]:
    """What a schema can limit, by the names of its checks; a share is of the split's records."""
    videos = summary["records"]
    found = {
        "value_minimum": summary["value_minimum"],
        "value_maximum": summary["value_maximum"],
        "saturated_share": summary["saturated_low"] + summary["saturated_high"],
        "constant_dimensions": summary["constant_dimensions"],
        "longest_video": summary["frames_a_video"]["maximum"],
        "most_labels": summary["labels_a_video"]["maximum"],
        "unlabelled_share": summary["records_without_labels"] / videos,
        "no_id_share": summary["records_without_id"] / videos,
        "silent_audio_share": summary["silent_audio"] / videos,
    }
    if "unequal_lengths" in summary:
        found["unequal_lengths_share"] = summary["unequal_lengths"] / videos
        found["single_frame_share"] = summary["single_frame_videos"] / videos
    return found
