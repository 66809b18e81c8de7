"""The GAP of parts of the data: of some videos, or of some classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.metrics.accumulator import MetricsAccumulator
from trainer.metrics.ranking import average_precision


class Slice(NamedTuple):
    """A part of the data.

    Attributes:
        group: what the data was parted by.
        name: of the part.
        videos: in it; of a part of the classes, those of which a label in it was found.
        classes: in it; of a part of the videos, those that were found as a label in it.
        positives: labels in it.
        gap: of its predictions; None without labels.
    """

    group: str
    name: str
    videos: int
    classes: int
    positives: int
    gap: float | None


def by_videos(
    metrics: MetricsAccumulator, group: str, parts: Sequence[tuple[str, NDArray[np.bool_]]]
) -> list[Slice]:
    """The GAP of the videos [videos] of each part alone; empty parts are left out."""
    arrays = metrics.arrays()
    found = []
    for name, chosen in parts:
        if not chosen.any():
            continue
        positives = int(arrays["counts"][chosen].sum())
        hits = arrays["hits"][chosen].ravel()
        gap = average_precision(arrays["scores"][chosen].ravel(), hits, positives)
        classes = len(np.unique(arrays["classes"][chosen].ravel()[hits]))
        videos = int(chosen.sum())
        found.append(Slice(group, name, videos, classes, positives, gap if positives else None))
    return found


def by_classes(
    metrics: MetricsAccumulator, group: str, parts: Sequence[tuple[str, NDArray[np.bool_]]]
) -> list[Slice]:
    """The GAP of the predictions and labels of the classes [C] of each part.

    A video's predictions are still its top k of all classes: the parts' lists together are the
    pooled list. Parts without classes are left out.
    """
    arrays = metrics.arrays()
    totals = metrics.positives
    found = []
    for name, chosen in parts:
        if not chosen.any():
            continue
        positives = int(totals[chosen].sum())
        of_part = chosen[arrays["classes"]]
        hits = arrays["hits"][of_part]
        gap = average_precision(arrays["scores"][of_part], hits, positives)
        videos = int((of_part & arrays["hits"]).any(axis=1).sum())
        classes = int(chosen.sum())
        found.append(Slice(group, name, videos, classes, positives, gap if positives else None))
    return found


def bounds_named(bounds: Sequence[int], unit: str) -> list[tuple[int, int, str]]:
    """Half-open parts of the counts from 0 on, named as `1–9 videos`, `10 videos or more`."""
    edges = [0, *bounds]
    parts = []
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        if high is None:
            parts.append((low, np.iinfo(np.int64).max, f"{low:,} {unit} or more"))
        else:
            words = f"{low:,}" if high == low + 1 else f"{low:,}–{high - 1:,}"
            parts.append((low, high, f"{words} {unit.removesuffix('s') if words == '1' else unit}"))
    return parts
