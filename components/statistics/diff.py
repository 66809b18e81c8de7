"""Two runs' statistics side by side, for the terminal and as a page."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from components.statistics.report import drift_section
from components.statistics.write import CLASSES
from trainer.errors import InputError
from trainer.files import atomic_file, local_path
from trainer.reporting.page import page, section, table
from trainer.statistics.anomalies import are_labelled, dimension_name, drift_between
from trainer.statistics.artifact import Statistics, read_statistics
from trainer.statistics.drift import Drift
from trainer.vocabulary import Vocabulary

_TOP = 5
_NUMBERS = (
    ("records", "videos", "{:,.0f}"),
    ("bytes", "bytes", "{:,.0f}"),
    ("frames", "frames", "{:,.0f}"),
    ("frames_a_video.median", "median frames a video", "{:,.0f}"),
    ("labels_a_video.mean", "labels a video", "{:.3f}"),
    ("classes_with_examples", "classes with examples", "{:,.0f}"),
    ("records_without_labels", "videos without labels", "{:,.0f}"),
    ("silent_audio", "silent audio", "{:,.0f}"),
    ("unequal_lengths", "rgb and audio of unequal length", "{:,.0f}"),
    ("constant_dimensions", "constant dimensions", "{:,.0f}"),
    ("saturated_low", "saturated low", "{:.4%}"),
    ("saturated_high", "saturated high", "{:.4%}"),
    ("value_minimum", "least value", "{:.7f}"),
    ("value_maximum", "greatest value", "{:.7f}"),
)


def diff_statistics(one: str, other: str, report: str | os.PathLike[str] | None = None) -> str:
    """Compare the statistics in two folders.

    Args:
        one, other: folders of statistics, of data that passed or did not.
        report: HTML page to write.

    Returns:
        Lines for the terminal.

    Raises:
        InputError: a folder without statistics, or two of different levels or classes.
    """
    first, second = (read_statistics(local_path(path), failed=True) for path in (one, other))
    for name in ("level", "num_classes"):
        values = [statistics.facts[name] for statistics in (first, second)]
        if values[0] != values[1]:
            raise InputError(f"{other}: {name} is {values[1]}, expected {values[0]} as in {one}")
    splits = [split for split in first.splits if split in second.splits]
    lines = [
        f"A  {one}  (data {first.facts['data_fingerprint']})",
        f"B  {other}  (data {second.facts['data_fingerprint']})",
    ]
    sections = []
    names = _vocabulary(first)
    for split in splits:
        rows = list(_rows(first, second, split))
        width = max(len(row[0]) for row in rows)
        lines += ["", f"{split:<{width}} {'A':>20} {'B':>20} {'B − A':>16}"]
        lines += [f"{name:<{width}} {a:>20} {b:>20} {change:>16}" for name, a, b, change in rows]
        apart = drift_between(
            first.splits, first.arrays, split, second.splits, second.arrays, split
        )
        labelled = are_labelled(split, first.splits[split], second.splits[split])
        lines += _drift_lines(apart, names)[: 2 if labelled else 1]
        sections += [
            section(f"Split: {split}", "What both counted.", table(("", "A", "B", "B − A"), rows)),
            drift_section(f"{split}, B against A", apart, names, labelled),
        ]
    for words, here, there in (("A", first, second), ("B", second, first)):
        alone = [split for split in here.splits if split not in there.splits]
        if alone:
            lines += ["", f"only in {words}: {', '.join(alone)}"]
    if report is not None:
        with atomic_file(report) as partial:
            html = page("Statistics compared", f"A: {one} · B: {other}", sections)
            partial.write_text(html, encoding="utf-8")
        lines += ["", f"page  {report}"]
    return "\n".join(lines)


def _rows(first: Statistics, second: Statistics, split: str) -> Iterator[tuple[str, ...]]:
    for path, words, form in _NUMBERS:
        section_name, _, key = path.partition(".")
        summaries = [statistics.splits[split] for statistics in (first, second)]
        if any(section_name not in summary for summary in summaries):
            continue  # of frame level alone
        a, b = (s[section_name][key] if key else s[section_name] for s in summaries)
        change = form.format(b - a) if a != b else "="
        yield words, form.format(a), form.format(b), change if b <= a else f"+{change}"


def _vocabulary(statistics: Statistics) -> Vocabulary:
    """The names that the statistics were made with."""
    with open(Path(statistics.folder) / CLASSES, newline="", encoding="utf-8") as file:
        names = tuple(row["name"] for row in csv.DictReader(file))
    return dataclasses.replace(Vocabulary.of_indices(len(names)), names=names)


def _drift_lines(apart: Drift, vocabulary: Vocabulary) -> list[str]:
    far = np.argsort(-apart.features, kind="stable")[:_TOP].tolist()
    moved = np.argsort(-np.abs(apart.labels), kind="stable")[:_TOP].tolist()
    beyond = int((apart.feature_excess > 0).sum()), int((apart.label_excess > 0).sum())
    dimensions = "  ".join(f"{dimension_name(i)} {apart.features[i]:.4f}" for i in far)
    classes = "  ".join(f"{vocabulary.names[i]} {apart.labels[i]:+.4f}" for i in moved)
    return [
        f"feature drift: {beyond[0]:,} of {len(apart.features):,} dimensions beyond chance "
        f"({apart.features_by_chance:.4f}); most: {dimensions}",
        f"label drift: {beyond[1]:,} of {len(apart.labels):,} classes beyond chance; most (change "
        f"of share): {classes}",
    ]
