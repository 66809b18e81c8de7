"""Run by a fresh interpreter that can not import this project: does the SavedModel answer alike?

usage: python -I reload_check.py SAVED_MODEL CASES.npz

CASES holds the bytes of N serialised records, the offsets where each `ends`, and the expected
`classes` and `scores` [N,k]. The signature named `features` gets the arrays `feature/…` [M,…] of
the first M records and is expected to answer as for these. If there are `segments/classes` and
`segments/scores` [S,k], the signature `segments` gets the first `segments/records` records and is
expected to answer so, window after window, the first record's first. Prints one JSON object,
`{"records": N, "largest_difference": d}`, where d is over all of them.
"""

import json
import math
import sys
from importlib.util import find_spec

import numpy as np
import tensorflow as tf

FEATURE = "feature/"
Row = tuple[list[int], list[float]]
"""The classes of a video or of a window, and their scores."""


def largest_difference(expected: dict[int, float], answer: dict[int, float]) -> float:
    """Of the scores by class; a class that one side left out has at most that side's lowest.

    Infinite where a score is NaN, which no comparison would find to be large.
    """
    differences = []
    for one, other in ((expected, answer), (answer, expected)):
        lowest = min(other.values())
        differences += [
            abs(score - other[index]) if index in other else max(0.0, score - lowest)
            for index, score in one.items()
        ]
    return math.inf if any(map(math.isnan, differences)) else max(differences)


def of_rows(expected: list[Row], answer: list[Row]) -> float:
    """The largest difference of rows, each classes and scores; infinite if one side has more."""
    if len(expected) != len(answer):
        return math.inf
    return max(
        largest_difference(*(dict(zip(*row, strict=True)) for row in pair))
        for pair in zip(expected, answer, strict=True)
    )


def rows_of(classes: np.ndarray, scores: np.ndarray) -> list[Row]:
    """Classes and scores, each [N,k], as N rows."""
    return list(zip(classes.tolist(), scores.tolist(), strict=True))


def largest_change(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> float:
    """Largest difference of a score between two answers, each classes and scores [N,k]."""
    return of_rows(rows_of(*one), rows_of(*other))


def windows_of(answer: dict[str, tf.Tensor]) -> list[Row]:
    """The rows of a timeline [B,W,k], without the windows beyond each video."""
    counts = answer["windows"].numpy()
    classes, scores = (answer[name].numpy() for name in ("classes", "scores"))
    return [
        row
        for video, count in enumerate(counts)
        for row in rows_of(classes[video, :count], scores[video, :count])
    ]


def main(saved_model: str, cases: str) -> None:
    assert find_spec("trainer") is None, "the project must not be importable here"
    with np.load(cases) as file:
        arrays = dict(file)
    content, ends = arrays["bytes"].tobytes(), arrays["ends"]
    expected = rows_of(arrays["classes"], arrays["scores"])
    starts = [0, *ends[:-1]]
    payloads = [content[start:end] for start, end in zip(starts, ends, strict=True)]
    signatures = tf.saved_model.load(saved_model).signatures
    differences = []
    for start in range(0, len(payloads), 64):
        answer = signatures["serving_default"](examples=tf.constant(payloads[start : start + 64]))
        rows = rows_of(answer["classes"].numpy(), answer["scores"].numpy())
        differences.append(of_rows(expected[start : start + 64], rows))
    features = {
        name.removeprefix(FEATURE): tf.constant(value)
        for name, value in arrays.items()
        if name.startswith(FEATURE)
    }
    answer = signatures[str(arrays["features"])](**features)
    rows = rows_of(answer["classes"].numpy(), answer["scores"].numpy())
    differences.append(of_rows(expected[: len(next(iter(features.values())))], rows))
    if "segments/records" in arrays:
        some = payloads[: int(arrays["segments/records"])]
        rows = windows_of(signatures["segments"](examples=tf.constant(some)))
        wanted = rows_of(arrays["segments/classes"], arrays["segments/scores"])
        differences.append(of_rows(wanted, rows))
    print(json.dumps({"records": len(payloads), "largest_difference": max(differences)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
