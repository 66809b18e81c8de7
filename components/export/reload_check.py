"""Run by a fresh interpreter that can not import this project: does the SavedModel answer alike?

usage: python -I reload_check.py SAVED_MODEL CASES.npz

CASES holds the bytes of N serialised records, the offsets where each `ends`, and the expected
`classes` and `scores` [N,k]. Prints one JSON object, `{"records": N, "largest_difference": d}`.
"""

import json
import math
import sys
from importlib.util import find_spec

import numpy as np
import tensorflow as tf


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


def main(saved_model: str, cases: str) -> None:
    assert find_spec("trainer") is None, "the project must not be importable here"
    with np.load(cases) as arrays:
        content, ends = arrays["bytes"].tobytes(), arrays["ends"]
        expected = list(zip(arrays["classes"].tolist(), arrays["scores"].tolist(), strict=True))
    starts = [0, *ends[:-1]]
    payloads = [content[start:end] for start, end in zip(starts, ends, strict=True)]
    serve = tf.saved_model.load(saved_model).signatures["serving_default"]
    largest = 0.0
    for start in range(0, len(payloads), 64):
        answer = serve(examples=tf.constant(payloads[start : start + 64]))
        rows = zip(
            answer["classes"].numpy().tolist(), answer["scores"].numpy().tolist(), strict=True
        )
        for (classes, scores), row in zip(expected[start : start + 64], rows, strict=True):
            one, other = (dict(zip(*pair, strict=True)) for pair in ((classes, scores), row))
            largest = max(largest, largest_difference(one, other))
    print(json.dumps({"records": len(payloads), "largest_difference": largest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
