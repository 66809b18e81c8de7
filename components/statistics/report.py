"""The statistics as a page, and as a section of the run's report."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from trainer import records
from trainer.manifest import Manifest
from trainer.reporting import plots
from trainer.reporting.page import heading, page, section, table
from trainer.reporting.page import plots as figures


def statistics_page(
    manifest: Manifest, summary: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> str:
    """A page of its own."""
    subtitle = f"{manifest.source} · data fingerprint {manifest.fingerprint}"
    return page("Feature statistics", subtitle, [statistics_section(manifest, summary, arrays)])


def statistics_section(
    manifest: Manifest, summary: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> Markup:
    """Counts by split, distributions of the train split, the most frequent classes, anomalies."""
    splits = summary["splits"]
    rows = [
        (
            name,
            f"{s['records']:,}",
            f"{s['frames']:,}",
            f"{s['labels'] / s['records']:.2f}",
            f"{s['classes_with_examples']:,}",
            f"{s['value_minimum']:.3f} … {s['value_maximum']:.3f}",
            f"{s['constant_dimensions']}",
        )
        for name, s in splits.items()
    ]
    columns = (
        "split", "videos", "frames", "labels a video", "classes with examples",
        "feature values", "constant dimensions",
    )  # fmt: skip
    return section(
        "Statistics of the data",
        f"Every record of {len(manifest.shards)} {manifest.level}-level shards was read and its "
        "count compared with the manifest. Distributions are those of the train split.",
        table(columns, rows),
        figures(_figures(manifest, arrays)),
        heading("Most frequent classes"),
        table(("class", "name", "vertical", "train videos"), _top_classes(manifest, arrays)),
        heading("Anomalies"),
        table(
            ("severity", "what"),
            [(a["severity"], a["description"]) for a in summary["anomalies"]]
            or [("none", "nothing out of the ordinary")],
        ),
    )


def _figures(manifest: Manifest, arrays: dict[str, NDArray[Any]]) -> list[tuple[Markup, str]]:
    labels = np.sort(arrays["train/labels"])[::-1]
    labels = labels[labels > 0]
    found = [
        (
            plots.lines(
                {"videos": (np.arange(1, len(labels) + 1), labels)},
                "class, by frequency", "train videos", log="xy",
            ),
            "How often each class occurs: a few are everywhere, most are rare.",
        )
    ]  # fmt: skip
    counts = np.trim_zeros(arrays["train/labels_a_video"], "b")
    found.append(
        (
            plots.bars(np.arange(len(counts)).tolist(), counts, "labels of a video", "videos"),
            "Labels a video.",
        )
    )
    if manifest.level == records.FRAME:
        frames = arrays["train/frames"]
        first, last = np.flatnonzero(frames)[[0, -1]]
        x = np.arange(first, last + 1).tolist()
        found.append(
            (plots.bars(x, frames[first : last + 1], "frames of a video", "videos"),
             "Frames a video, one a second.")
        )  # fmt: skip
    deviation = np.sqrt(arrays["train/variance"])
    dimensions = np.arange(records.FEATURE_SIZE)
    found.append(
        (
            plots.band(dimensions, arrays["train/mean"], deviation, "feature dimension",
                       "mean ± deviation"),
            f"Each feature: {records.RGB_SIZE:,} of rgb, then {records.AUDIO_SIZE} of audio.",
        )
    )  # fmt: skip
    return found


def _top_classes(manifest: Manifest, arrays: dict[str, NDArray[Any]]) -> list[tuple[str, ...]]:
    vocabulary = manifest.read_vocabulary()
    labels = arrays["train/labels"]
    order = np.argsort(-labels, kind="stable")[:10]
    return [
        (str(i), vocabulary.names[i], ", ".join(vocabulary.verticals[i]), f"{labels[i]:,}")
        for i in order.tolist()
    ]
