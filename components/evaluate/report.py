"""The evaluation as a page, and as a section of the run's report."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from trainer.manifest import Manifest
from trainer.reporting import plots
from trainer.reporting.page import heading, page, section, table, tiles
from trainer.reporting.page import plots as figures

CLASSES = "classes.csv"
"""One row a class: class, name, vertical, positives, and each scorer's average precision."""
FEWEST_POSITIVES = 5
"""A class with fewer is left out of best and worst: its average precision says little."""
_TITLES = {"champion": "champion", "ceiling": "ceiling of the data"}
_SHOWN = 12


def read_classes(evaluation: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of an evaluation folder's `classes.csv`."""
    with open(Path(evaluation) / CLASSES, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def title(name: str, names: dict[str, str]) -> str:
    """How a scorer is called in tables: `model (nextvlad)`, `ceiling of the data`."""
    return f"{name} ({names[name]})" if name in names else _TITLES[name]


def evaluation_page(
    manifest: Manifest, result: dict[str, Any], classes: list[dict[str, str]]
) -> str:
    """A page of its own."""
    subtitle = f"{manifest.source} · data fingerprint {manifest.fingerprint}"
    return page("Evaluation", subtitle, evaluation_sections(result, classes))


def evaluation_sections(result: dict[str, Any], classes: list[dict[str, str]]) -> list[Markup]:
    """Metrics and how sure they are; parts of the data; mistakes; whether scores are right.

    Of segments there are the first and the last, and the classes.
    """
    parts = [_metrics(result)]
    if _of_segments(result):
        parts.append(section("Classes", "Of the rated segments.", *_best_and_worst(classes)))
    else:
        parts += [_parts(result), _mistakes(result, classes)]
    return [*parts, _reliability(result)]


def columns_of(result: dict[str, Any]) -> dict[str, str]:
    """The metrics that an evaluation has, by key, as they are called in tables."""
    if _of_segments(result):
        return {"gap": "avg. prec.", "map": "MAP@100,000"}
    return {
        "gap": "GAP@20",
        "map": "mAP",
        "map_all_classes": "mAP, all classes",
        "hit_at_1": "Hit@1",
        "perr": "PERR",
    }


def _of_segments(result: dict[str, Any]) -> bool:
    return "slices" not in result


Rows = list[tuple[str, ...]]


def metric_table(result: dict[str, Any]) -> tuple[tuple[str, ...], Rows]:
    """Columns and rows: the metrics of each scorer, and the interval of the first of them."""
    shown = columns_of(result)
    rows = [
        (
            title(name, result["names"]),
            *(f"{one[key]:.4f}" for key in shown),
            interval(result["intervals"][name]),
        )
        for name, one in result["metrics"].items()
    ]
    return ("", *shown.values(), f"{_percent(result)} of the first"), rows


def difference_table(result: dict[str, Any]) -> tuple[tuple[str, ...], Rows] | None:
    """Columns and rows: the model's differences to others on the same videos; None: no others."""
    rows: Rows = [
        (
            f"model − {title(name, result['names'])}",
            f"{one['value']:+.4f}",
            interval(one, "+"),
            "beyond chance" if one["low"] > 0 or one["high"] < 0 else "may be chance",
        )
        for name, one in result["differences"].items()
    ]
    columns: tuple[str, ...] = ("", result["headline"], _percent(result), "")
    return (columns, rows) if rows else None


def _percent(result: dict[str, Any]) -> str:
    return f"{100 * result['confidence']:g}% interval"


def _metrics(result: dict[str, Any]) -> Markup:
    headline, model = result["headline"], result["metrics"]["model"]
    differences = difference_table(result)
    parts = [
        tiles(
            [
                (f"{model['gap']:.4f}", f"{headline}, model"),
                (f"{model['hit_at_1']:.1%}", "best guess is a label (Hit@1)")
                if "hit_at_1" in model
                else (f"{model['pairs']:,}", "rated segments and classes"),
                (f"{result['videos']:,}", f"videos of {result['split']}"),
                (f"{model['positives']:,}", "labels on them"),
                (f"{result['reliability']['model']['error']:.3f}", "calibration error"),
            ]
        ),
        table(*metric_table(result)),
    ]
    if differences:
        parts += [heading("Differences on the same videos"), table(*differences)]
    parts.append(figures([precision_recall_figure(result)]))
    return section(
        "Evaluation",
        "Exact and global: every record of the split is scored, no average of batches. Intervals "
        f"are of {result['resamples']:,} resamples of the videos, the same for all models. The "
        "ceiling, where there is one, is the GAP of the probabilities that labels were drawn from.",
        *parts,
    )


def precision_recall_figure(result: dict[str, Any]) -> tuple[Markup, str]:
    """The curve whose area is the headline, of up to three scorers, and its caption."""
    curves = {
        title(name, result["names"]): (curve["recall"], curve["precision"])
        for name, curve in itertools.islice(result["precision_recall"].items(), 3)
    }
    return (
        plots.lines(curves, "recall", "precision", y_limits=(0, 1.02)),
        f"All videos' predictions that count in one list; the area is the {result['headline']}.",
    )


def interval(one: dict[str, float], sign: str = "") -> str:
    """`0.7631 to 0.7858`, or each end with its sign."""
    return f"{one['low']:{sign}.4f} to {one['high']:{sign}.4f}"


def _parts(result: dict[str, Any]) -> Markup:
    names = result["names"]
    parts = []
    for group, rows in itertools.groupby(result["slices"], lambda one: one["group"]):
        scorers = [name for name in result["metrics"] if name in names]
        shown = list(rows)
        if group == "vertical":
            shown.sort(key=lambda one: -(one["gap"]["model"] or 0))
        parts += [
            heading(f"By {group}"),
            table(
                ("", *(title(name, names) for name in scorers), "videos", "classes", "labels"),
                [
                    (
                        Markup("<span>{}</span>").format(one["name"]),  # no number, whatever it is
                        *(_number(one["gap"].get(name)) for name in scorers),
                        f"{one['videos']:,}",
                        f"{one['classes']:,}",
                        f"{one['positives']:,}",
                    )
                    for one in shown
                    if one["positives"]
                ],
            ),
        ]
    return section(
        "Parts of the data",
        "GAP@20 of some videos alone, or of the predictions and labels of some classes alone (then "
        "videos are those of which such a label was found).",
        *parts,
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _mistakes(result: dict[str, Any], classes: list[dict[str, str]]) -> Markup:
    scored = _by_precision(classes)
    parts = []
    if scored:
        positives = [int(c["positives"]) for c in scored]
        precision = [float(c["model"]) for c in scored]
        drawing = plots.points(positives, precision, "labels of the class", "average precision")
        caption = "Each class: the more examples, the better it is usually known."
        drawn = [(drawing, caption)]
        if len(result["vertical_matrix"]["names"]) > 1:
            drawn.append(_verticals(result["vertical_matrix"]))
        parts.append(figures(drawn))
    parts += [
        heading("Most confused classes"),
        table(
            ("missed", "predicted instead", "times"),
            [
                (one["missed_name"], one["predicted_name"], f"{one['count']:.1f}")
                for one in result["confusions"][:_SHOWN]
            ],
        ),
        heading(f"Worst classes (of those with at least {FEWEST_POSITIVES} labels)"),
        table(
            ("class", "name", "vertical", "labels", "average precision", "missed in", "wrong in"),
            [
                (
                    one["class"],
                    one["name"],
                    one["vertical"],
                    one["positives"],
                    f"{one['average_precision']:.3f}",
                    _ids(one["missed_in"]),
                    _ids(one["wrong_in"]),
                )
                for one in result["worst_classes"]
            ],
        ),
        *_best_and_worst(classes)[:2],
    ]
    return section(
        "Mistakes",
        "Of as many predictions as a video has labels: what was missed, what was said in its "
        "place, and the ids of videos to look at.",
        *parts,
    )


def _best_and_worst(classes: list[dict[str, str]]) -> list[Markup]:
    """Headings and tables: the best, then the worst."""
    scored = _by_precision(classes)
    columns = ("class", "name", "vertical", "labels", "average precision")
    parts = []
    for words, chosen in (("Best", scored[:_SHOWN]), ("Worst", scored[: -_SHOWN - 1 : -1])):
        rows = [
            (c["class"], c["name"], c["vertical"], c["positives"], f"{float(c['model']):.3f}")
            for c in chosen
        ]
        enough = f"(of those with at least {FEWEST_POSITIVES} labels)"
        parts += [heading(f"{words} classes {enough}"), table(columns, rows)]
    return parts


def _by_precision(classes: list[dict[str, str]]) -> list[dict[str, str]]:
    """Those that have enough labels, the best first."""
    scored = [c for c in classes if c["model"] and int(c["positives"]) >= FEWEST_POSITIVES]
    return sorted(scored, key=lambda c: -float(c["model"]))


def _ids(videos: Sequence[str]) -> Markup:
    return Markup(" ").join(Markup("<code>{}</code>").format(one) for one in videos)


def _verticals(found: dict[str, Any]) -> tuple[Markup, str]:
    matrix, names = found["matrix"], found["names"]
    used = [i for i in range(len(names)) if sum(matrix[i]) or any(row[i] for row in matrix)]
    shares = [[matrix[i][j] / max(1, sum(matrix[i])) for j in used] for i in used]
    return (
        plots.matrix(shares, [names[i] for i in used], "predicted", "label"),
        "Verticals: of the labels of a row, the share that each column was predicted for.",
    )


def reliability_figure(result: dict[str, Any]) -> tuple[Markup, str]:
    """Scores against the share of predictions that is right, and its caption."""
    names = result["names"]
    curves = {}
    for name in (name for name in result["reliability"] if name in names):
        one = result["reliability"][name]
        there = [i for i, count in enumerate(one["counts"]) if count]
        curves[title(name, names)] = (
            [one["confidence"][i] for i in there],
            [one["precision"][i] for i in there],
        )
    return (
        plots.lines(
            curves, "score", "share that is right", y_limits=(0, 1.02), markers=True, diagonal=True
        ),
        "On the diagonal scores are probabilities; below it the model is too sure.",
    )


def _reliability(result: dict[str, Any]) -> Markup:
    names = result["names"]
    rows = [
        (title(name, names), f"{one['error']:.4f}") for name, one in result["reliability"].items()
    ]
    model = result["reliability"]["model"]["counts"]
    centres = [(i + 0.5) / len(model) for i in range(len(model))]
    return section(
        "Are the scores right?",
        "Of predictions with a score of 0.7, seven in ten should be labels. The expected "
        "calibration error is the mean distance from that, over all predictions that count.",
        figures(
            [
                reliability_figure(result),
                (
                    plots.bars(centres, model, "score", "predictions of the model"),
                    "How many predictions have such a score.",
                ),
            ]
        ),
        table(("", "expected calibration error"), rows),
    )
