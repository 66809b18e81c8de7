"""The statistics as a page, and as a section of the run's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from trainer import records
from trainer.manifest import Manifest
from trainer.reporting import plots
from trainer.reporting.page import heading, note, page, section, table, tiles
from trainer.reporting.page import plots as figures
from trainer.statistics.anomalies import Earlier, comparisons, dimension_name
from trainer.statistics.artifact import Statistics
from trainer.statistics.drift import Drift
from trainer.statistics.findings import MOST_NAMED
from trainer.vocabulary import Vocabulary

_TOP = 15


def statistics_page(
    manifest: Manifest, statistics: Statistics, earlier: Earlier | None = None
) -> str:
    """A page of its own: everything that a person acts on first, then what the data looks like.

    Args:
        manifest: of the data.
        statistics: of it.
        earlier: of an earlier run, to draw the drift against.
    """
    subtitle = f"{manifest.source} · data fingerprint {manifest.fingerprint}"
    vocabulary = manifest.read_vocabulary()
    split = main_split(statistics)
    sections = [
        _verdict(manifest, statistics),
        _bad_records(statistics),
        _duplicates(statistics),
        _splits(statistics),
        _features(statistics, split),
        _videos(manifest, statistics, split),
        _classes(vocabulary, statistics, split),
        *(
            drift_section(one.where, one.apart, vocabulary, one.labelled)
            for one in comparisons(statistics.splits, statistics.arrays, earlier)
        ),
    ]
    return page("Feature statistics", subtitle, [one for one in sections if one])


def statistics_section(manifest: Manifest, statistics: Statistics) -> Markup:
    """The part of a run's report: splits, distributions, classes, anomalies."""
    split = main_split(statistics)
    return section(
        "Statistics of the data",
        f"Every record of {len(manifest.shards)} {manifest.level}-level shards was read and its "
        f"count compared with the manifest. Distributions are those of the {split} split.",
        _split_table(statistics),
        figures([*_class_figures(statistics, split), *_feature_figures(statistics, split)[:1]]),
        heading("Most frequent classes"),
        _top_classes(manifest.read_vocabulary(), statistics, split),
        heading("Anomalies"),
        _anomaly_table(statistics.facts["anomalies"]),
    )


def main_split(statistics: Statistics) -> str:
    """Train, or the first that there is."""
    return "train" if "train" in statistics.splits else next(iter(statistics.splits))


def _verdict(manifest: Manifest, statistics: Statistics) -> Markup:
    facts = statistics.facts
    whole, anomalies = facts["splits"]["all"], facts["anomalies"]
    errors, warnings = (
        sum(one["severity"] == severity for one in anomalies) for severity in ("error", "warning")
    )
    words = (
        f"{'Passed' if facts['passed'] else 'Did not pass'}: {_count(errors, 'error')}, "
        f"{_count(warnings, 'warning')}."
    )
    values = [
        (f"{whole['records']:,}", "videos"),
        (f"{whole['frames']:,}", "frames") if manifest.level == records.FRAME else
        (f"{whole['labels']:,}", "labels"),
        (f"{whole['bytes'] / 1e6:,.1f} MB", f"in {len(manifest.shards):,} shards"),
        (f"{facts['bad_records']['total']:,}", "bad records"),
        (f"{whole['classes_with_examples']:,}", f"of {facts['num_classes']:,} classes"),
    ]  # fmt: skip
    return section(
        "Result",
        "Each record was read once; what is wrong with the data, the worst first.",
        tiles(values),
        note(words, good=facts["passed"]),
        _anomaly_table(anomalies),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _anomaly_table(anomalies: Sequence[Mapping[str, str]]) -> Markup:
    rows = [
        (one["severity"], Markup("<code>{}</code>").format(one["check"]), one["description"])
        for one in anomalies
    ]
    return table(
        ("severity", "check", "what"), rows or [("none", "", "nothing out of the ordinary")]
    )


def _bad_records(statistics: Statistics) -> Markup | None:
    bad = statistics.facts["bad_records"]
    if not bad["total"]:
        return None
    rows = [
        (one["split"], Markup("<code>{}</code>").format(one["uri"]), f"{one['record']:,}",
         f"{one['offset']:,}", one["reason"], f"{one['lost']:,}")
        for one in bad["first"]
    ]  # fmt: skip
    return section(
        "Bad records",
        f"{bad['total']:,} records are not in the numbers below"
        + (f"; the first {len(rows)} entries" if len(rows) == MOST_NAMED else "")
        + "; all are in bad_records.jsonl.",
        table(("split", "shard", "record", "at byte", "what", "lost"), rows),
    )


def _duplicates(statistics: Statistics) -> Markup | None:
    found = statistics.facts["duplicate_ids"]
    if not found["first"]:
        return None
    rows = [
        (
            Markup("<code>{}</code>").format(one["id"]),
            Markup("<br>").join(f"{p['uri']}: record {p['record']:,}" for p in one["places"]),
        )
        for one in found["first"][:_TOP]
    ]
    counts = [
        *(f"{count:,} within {split}" for split, count in found["within"].items()),
        *(f"{count:,} in {splits.replace(', ', ' and ')}" for splits, count in
          found["across"].items()),
    ]  # fmt: skip
    return section(
        "Ids that occur twice",
        f"{', '.join(counts)}. An id in two splits is a leak: a score on one is worth nothing for "
        "what was learned on the other.",
        table(("id", "where"), rows),
    )


def _splits(statistics: Statistics) -> Markup:
    return section("Splits", "What was counted, by split.", _split_table(statistics))


def _split_table(statistics: Statistics) -> Markup:
    """Splits as columns: what is counted is more than a phone is wide."""
    splits = statistics.splits.values()
    is_frame = statistics.facts["level"] == records.FRAME
    rows: list[tuple[str, list[str]]] = [("videos", [f"{s['records']:,}" for s in splits])]
    if is_frame:
        frames = [s["frames_a_video"] for s in splits]
        rows += [
            ("frames", [f"{s['frames']:,}" for s in splits]),
            (
                "frames a video: least · median · most",
                [f"{f['minimum']} · {_median(f['median'])} · {f['maximum']}" for f in frames],
            ),
            ("videos of one frame", [f"{s['single_frame_videos']:,}" for s in splits]),
            ("rgb and audio of unequal length", [f"{s['unequal_lengths']:,}" for s in splits]),
            (
                "ratings of segments: all · present · classes",
                [
                    f"{s['rated_segments']:,} · {s['rated_present']:,} · {s['rated_classes']:,}"
                    for s in splits
                ],
            ),
        ]
    rows += [
        ("labels a video", [f"{s['labels_a_video']['mean']:.2f}" for s in splits]),
        ("videos without a label", [f"{s['records_without_labels']:,}" for s in splits]),
        ("classes with examples", [f"{s['classes_with_examples']:,}" for s in splits]),
        ("silent audio", [f"{s['silent_audio']:,}" for s in splits]),
        ("least value", [f"{s['value_minimum']:.8g}" for s in splits]),
        ("greatest value", [f"{s['value_maximum']:.8g}" for s in splits]),
        ("saturated low", [f"{s['saturated_low']:.3%}" for s in splits]),
        ("saturated high", [f"{s['saturated_high']:.3%}" for s in splits]),
        ("constant dimensions", [f"{s['constant_dimensions']:,}" for s in splits]),
    ]
    return table(("", *statistics.splits), [(name, *values) for name, values in rows])


def _median(frames: int) -> str:
    """Longer videos than the longest known are not told apart."""
    return str(frames) if frames <= records.MAX_FRAMES else f"above {records.MAX_FRAMES}"


def _features(statistics: Statistics, split: str) -> Markup:
    return section(
        "Features",
        f"Each of {records.FEATURE_SIZE:,} dimensions over the {split} split: {records.RGB_SIZE:,} "
        f"of rgb, then {records.AUDIO_SIZE} of audio.",
        figures(_feature_figures(statistics, split)),
    )


def _feature_figures(statistics: Statistics, split: str) -> list[tuple[Markup, str]]:
    arrays = statistics.arrays
    dimensions = np.arange(records.FEATURE_SIZE)
    mean, variance = arrays[f"{split}/mean"], arrays[f"{split}/variance"]
    saturated = arrays[f"{split}/saturated"]
    values, share = _shares(arrays[f"{split}/histogram"], arrays[f"{split}/edges"])
    return [
        (
            plots.band(dimensions, mean, np.sqrt(variance), "feature dimension",
                       "mean ± deviation"),
            "Mean of each dimension and a standard deviation around it.",
        ),
        (
            plots.heat_map(share, (0, len(dimensions)), (values[0], values[-1]),
                           "feature dimension", "value"),
            "Where the values of each dimension lie: the deeper the blue, the more.",
        ),
        (
            plots.lines(
                {"low end": (dimensions, saturated[:, 0]),
                 "high end": (dimensions, saturated[:, 1])},
                "feature dimension", "share of the values"),
            "Values at the ends of their range, where quantisation has cut them off.",
        ),
    ]  # fmt: skip


def _shares(
    histogram: NDArray[np.int64], edges: NDArray[np.float64], rows: int = 128
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values (ascending) and the share [rows, dimensions] of each dimension around them."""
    size = -(-histogram.shape[1] // rows)
    starts = np.arange(0, histogram.shape[1], size)
    counts = np.add.reduceat(histogram, starts, axis=1)
    share = counts / np.maximum(counts.max(axis=1, keepdims=True), 1)
    return edges[starts], share.T


def _videos(manifest: Manifest, statistics: Statistics, split: str) -> Markup | None:
    drawn = []
    frames = statistics.arrays[f"{split}/frames"]
    if manifest.level == records.FRAME:
        first, last = np.flatnonzero(frames)[[0, -1]]
        drawn.append(
            (plots.bars(np.arange(first, last + 1).tolist(), frames[first : last + 1],
                        "frames of a video", "videos"),
             "Frames a video, one a second."),
        )  # fmt: skip
    drawn.append(_labels_figure(statistics, split))
    return section("Videos", f"How long they are and how many labels they have, {split} split.",
                   figures(drawn))  # fmt: skip


def _labels_figure(statistics: Statistics, split: str) -> tuple[Markup, str]:
    counts = np.trim_zeros(statistics.arrays[f"{split}/labels_a_video"], "b")
    bars = plots.bars(np.arange(len(counts)).tolist(), counts, "labels of a video", "videos")
    return bars, "Labels a video."


def _class_figures(statistics: Statistics, split: str) -> list[tuple[Markup, str]]:
    labels = np.sort(statistics.arrays[f"{split}/labels"])[::-1]
    labels = labels[labels > 0]
    curve = plots.lines(
        {"videos": (np.arange(1, len(labels) + 1), labels)},
        "class, by frequency", f"{split} videos", log="xy" if len(labels) else "",
    )  # fmt: skip
    caption = "How often each class occurs: a few are everywhere, most are rare."
    return [(curve, caption), _labels_figure(statistics, split)]


def _classes(vocabulary: Vocabulary, statistics: Statistics, split: str) -> Markup:
    labels = statistics.arrays[f"{split}/labels"]
    absent = np.flatnonzero(labels == 0)
    examples = ", ".join(vocabulary.names[i] for i in absent[:_TOP].tolist())
    missing = f"{len(absent):,} of {len(labels):,} classes have no example in {split}" + (
        f": {examples}{' …' if len(absent) > _TOP else '.'}" if len(absent) else "."
    )
    pairs, counts = (statistics.arrays[f"{split}/{name}"] for name in ("pairs", "pair_counts"))
    together = [
        (vocabulary.names[a], vocabulary.names[b], f"{count:,}")
        for (a, b), count in zip(pairs[:_TOP].tolist(), counts[:_TOP].tolist(), strict=True)
    ]
    return section(
        "Classes",
        missing,
        figures(_class_figures(statistics, split)[:1]),
        heading("Most frequent"),
        _top_classes(vocabulary, statistics, split),
        heading("Most often together"),
        table(("class", "and", f"{split} videos"), together),
    )


def _top_classes(vocabulary: Vocabulary, statistics: Statistics, split: str) -> Markup:
    labels = statistics.arrays[f"{split}/labels"]
    videos = statistics.splits[split]["records"]
    order = np.argsort(-labels, kind="stable")[:10]
    rows = [
        (str(i), vocabulary.names[i], ", ".join(vocabulary.verticals[i]), f"{labels[i]:,}",
         f"{labels[i] / videos:.1%}")
        for i in order.tolist()
    ]  # fmt: skip
    return table(("class", "name", "vertical", f"{split} videos", "share"), rows)


def drift_section(
    title: str, apart: Drift, vocabulary: Vocabulary, labelled: bool = True
) -> Markup:
    """How far two sets of statistics are apart, with the dimensions and classes that are most.

    Args:
        title: what is compared with what.
        apart: how far they are.
        vocabulary: names of the classes.
        labelled: whether both have labels to compare.
    """
    dimensions = np.arange(len(apart.features))
    chance = np.full(len(apart.features), apart.features_by_chance)
    far = np.argsort(-apart.features, kind="stable")[:_TOP].tolist()
    moved = np.argsort(-np.abs(apart.labels), kind="stable")[:_TOP].tolist()
    classes = ", and the change of each class's share of the videos" if labelled else ""
    header = ("dimension", "distance", "class", "change of share", "by chance at most")
    rows = [
        (
            dimension_name(i),
            f"{apart.features[i]:.4f}",
            vocabulary.names[j],
            f"{apart.labels[j]:+.4f}",
            f"{apart.labels_by_chance[j]:.4f}",
        )
        for i, j in zip(far, moved, strict=False)
    ]
    columns = len(header) if labelled else 2
    return section(
        f"Drift: {title}",
        f"Kolmogorov–Smirnov distance of each dimension's distributions (0: equal, 1: apart)"
        f"{classes}. Below the line chance explains it.",
        figures([
            (plots.lines({"distance": (dimensions, apart.features),
                          "by chance": (dimensions, chance)},
                         "feature dimension", "distance"),
             "Each dimension's distance, and what chance allows for as many videos."),
        ]),
        heading(f"Dimensions{' and classes' if labelled else ''} that differ most"),
        table(header[:columns], [row[:columns] for row in rows]),
    )  # fmt: skip
