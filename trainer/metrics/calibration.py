"""Whether a score of 0.7 is right seven times in ten."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 15


class Calibration(NamedTuple):
    """The reliability diagram of scores that are probabilities, and its summary.

    Attributes:
        counts: int [bins], predictions whose score lies in each of the equal parts of 0 … 1.
        confidence: float [bins], their mean score; NaN for an empty bin.
        precision: float [bins], share of them that are right; NaN for an empty bin.
        error: expected calibration error: mean over predictions of |confidence − precision| of
            their bin (Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599,
            equation 3).
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    precision: NDArray[np.float64]
    error: float


def calibration(
    scores: NDArray[np.floating[Any]], hits: NDArray[np.bool_], bins: int = BINS
) -> Calibration:
    """Of predictions: probabilities [N], and whether each was right, [N].

    Raises:
        ValueError: a score below 0 or above 1, or none at all.
    """
    if not len(scores) or not (scores.min() >= 0 and scores.max() <= 1):  # nor NaN
        raise ValueError("expected probabilities, 0 to 1")
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    right = np.bincount(place[hits], minlength=bins)
    # Sorted, so that the sum does not depend on the order of the videos.
    order = np.argsort(scores)
    total = np.bincount(place[order], scores[order].astype(np.float64), bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        confidence, precision = total / counts, right / counts
    error = float(np.abs(total - right).sum() / len(scores))
    return Calibration(counts, confidence, precision, error)
