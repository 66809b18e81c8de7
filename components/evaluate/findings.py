"""What explains a model's GAP: where it is good, what it confuses, whether its scores are right."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluate.report import FEWEST_POSITIVES
from trainer.config import EvaluationConfig
from trainer.evaluation import Scored
from trainer.metrics.bootstrap import PairedBootstrap, Predictions
from trainer.metrics.calibration import calibration
from trainer.metrics.slices import bounds_named, by_classes, by_videos
from trainer.vocabulary import Vocabulary

CURVE_POINTS = 200
_FRAMES = (60, 120, 180, 240, 300)
_LABELS = (1, 2, 3, 5, 10)
_TRAIN_VIDEOS = (1, 10, 100, 1_000, 10_000)
_MOST_CONFUSIONS, _MOST_WORST, _EXAMPLES = 20, 12, 3


def of_predictions(
    predictions: Mapping[str, Predictions], settings: EvaluationConfig
) -> dict[str, Any]:
    """What videos and segments have in common: certainty, curves, reliability."""
    return {
        **certainty(predictions, settings.resamples, settings.confidence),
        "precision_recall": {name: precision_recall(one) for name, one in predictions.items()},
        "roc": roc(predictions["model"]),
        "reliability": {name: reliability(one) for name, one in predictions.items()},
    }


def certainty(
    predictions: Mapping[str, Predictions], resamples: int, confidence: float
) -> dict[str, Any]:
    """`intervals` of each GAP, and `differences` of the model's to each other one."""
    names = list(predictions)
    bootstrap = PairedBootstrap(list(predictions.values()), resamples)
    model = names.index("model")
    return {
        "labelled_videos": int((predictions["model"].positives > 0).sum()),
        "confidence": confidence,
        "resamples": resamples,
        "intervals": {
            name: dataclasses.asdict(bootstrap.interval(i, confidence))
            for i, name in enumerate(names)
        },
        "differences": {
            name: dataclasses.asdict(bootstrap.difference(model, i, confidence))
            for i, name in enumerate(names)
            if i != model
        },
    }


def precision_recall(predictions: Predictions) -> dict[str, list[float]]:
    """Precision and recall of the one list of all predictions, at evenly spaced recalls."""
    scores, right = _ranked(predictions)
    # Between equal scores there is no threshold.
    ends = np.flatnonzero(np.diff(scores, append=-np.inf))
    recall = right[ends] / predictions.positives.sum()
    precision = right[ends] / (ends + 1)
    at = np.unique(np.searchsorted(recall, np.linspace(0, recall[-1], CURVE_POINTS)))
    at = at[at < len(recall)]
    return {
        "recall": np.round(recall[at], 5).tolist(),
        "precision": np.round(precision[at], 5).tolist(),
    }


def _ranked(predictions: Predictions) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Scores, best first, and how many of the predictions up to each are right."""
    order = np.argsort(-predictions.scores)
    return predictions.scores[order], np.cumsum(predictions.hits[order])


def roc(predictions: Predictions) -> dict[str, list[float]]:
    """Rates of the wrong and of the right predictions that are at or above a threshold."""
    scores, right = _ranked(predictions)
    wrong = np.arange(1, len(right) + 1) - right
    ends = np.flatnonzero(np.diff(scores, append=-np.inf))
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, CURVE_POINTS).astype(int))]
    # Above all scores nothing is predicted.
    return {
        "false_positive_rate": [0.0, *(wrong[ends] / max(1, wrong[-1])).round(6).tolist()],
        "true_positive_rate": [0.0, *(right[ends] / max(1, right[-1])).round(6).tolist()],
        "threshold": [
            round(float(scores[0]) + 1, 6),
            *scores[ends].astype(float).round(6).tolist(),
        ],
    }


def reliability(predictions: Predictions) -> dict[str, Any]:
    """The reliability diagram of the predictions; null for an empty bin."""
    found = calibration(predictions.scores, predictions.hits)

    def rounded(values: NDArray[np.float64]) -> list[float | None]:
        return [None if np.isnan(value) else round(float(value), 5) for value in values]

    return {
        "counts": found.counts.tolist(),
        "confidence": rounded(found.confidence),
        "precision": rounded(found.precision),
        "error": found.error,
    }


def slices(
    scored: Mapping[str, Scored], vocabulary: Vocabulary, train_videos: NDArray[np.int64] | None
) -> list[dict[str, Any]]:
    """GAPs of parts of the data, each of every model.

    Args:
        scored: the models.
        vocabulary: of the data.
        train_videos: int [C], how many videos of train have each class.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    lengths, counts = scored["model"].lengths, scored["model"].metrics.counts
    for name, one in scored.items():
        rows = []
        if len(lengths):
            parts = [
                (words, (low <= lengths) & (lengths < high))
                for low, high, words in bounds_named(_FRAMES, "frames")
            ]
            rows += by_videos(one.metrics, "length of the video", parts)
        parts = [
            (words, (low <= counts) & (counts < high))
            for low, high, words in bounds_named(_LABELS, "labels")
        ]
        rows += by_videos(one.metrics, "labels of the video", parts)
        if train_videos is not None:
            parts = [
                (words, (low <= train_videos) & (train_videos < high))
                for low, high, words in bounds_named(_TRAIN_VIDEOS, "videos")
            ]
            rows += by_classes(one.metrics, "videos of the class in train", parts)
        names, of_classes = vocabulary.vertical_indices()
        if len(names) > 1:
            chosen = np.zeros((len(names), vocabulary.num_classes), bool)
            for index, verticals in enumerate(of_classes):
                chosen[list(verticals), index] = True
            rows += by_classes(one.metrics, "vertical", list(zip(names, chosen, strict=True)))
        for row in rows:
            place = found.setdefault((row.group, row.name), {**row._asdict(), "gap": {}})
            place["gap"][name] = row.gap
    return list(found.values())


def confusions(model: Scored, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The classes that are taken for each other most, with names."""
    return [
        {
            "missed": one.missed,
            "missed_name": vocabulary.names[one.missed],
            "predicted": one.predicted,
            "predicted_name": vocabulary.names[one.predicted],
            "count": round(one.times, 2),
        }
        for one in model.mistakes.confusions(_MOST_CONFUSIONS)
    ]


def vertical_matrix(model: Scored, vocabulary: Vocabulary) -> dict[str, Any]:
    """Labels' verticals against predictions' verticals, each class by its first one.

    Of as many predictions as a video has labels: those that are right on the diagonal, a label that
    was missed at what was predicted in its place.
    """
    names, _ = vocabulary.vertical_indices()
    place = {name: index for index, name in enumerate(names)}
    vertical = np.array([place[row[0]] for row in vocabulary.verticals])
    arrays = model.metrics.arrays()
    within = np.arange(arrays["hits"].shape[1]) < arrays["counts"][:, None]
    right = vertical[arrays["classes"][arrays["hits"] & within]]
    matrix = model.mistakes.group_matrix(vertical, len(names))
    matrix += np.diag(np.bincount(right, minlength=len(names)))
    return {"names": list(names), "matrix": np.rint(matrix).astype(int).tolist()}


def worst_classes(model: Scored, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Classes of the lowest average precision, with videos to look at."""
    precision, positives = model.metrics.class_average_precision(), model.metrics.positives
    order = np.argsort(precision, kind="stable")  # NaN last
    chosen = [int(c) for c in order if positives[c] >= FEWEST_POSITIVES][:_MOST_WORST]

    def examples(videos: NDArray[np.int64]) -> list[str]:
        return [model.video_ids[video] for video in videos[:_EXAMPLES]]

    return [
        {
            "class": label,
            "name": vocabulary.names[label],
            "vertical": vocabulary.verticals[label][0],
            "positives": int(positives[label]),
            "average_precision": round(float(precision[label]), 6),
            "missed_in": examples(model.mistakes.missed_of(label)),
            "wrong_in": examples(model.mistakes.wrong_of(label)),
        }
        for label in chosen
    ]
