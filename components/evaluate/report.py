"""The evaluation as a page, and as a section of the run's report."""

from __future__ import annotations

import csv
import os
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


def read_classes(evaluation: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of an evaluation folder's `classes.csv`."""
    with open(Path(evaluation) / CLASSES, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def evaluation_page(
    manifest: Manifest, result: dict[str, Any], classes: list[dict[str, str]]
) -> str:
    """A page of its own."""
    subtitle = f"{manifest.source} · data fingerprint {manifest.fingerprint}"
    return page("Evaluation", subtitle, [evaluation_section(result, classes)])


def evaluation_section(result: dict[str, Any], classes: list[dict[str, str]]) -> Markup:
    """Metrics of each scorer, precision and recall, best and worst classes by name."""
    metrics, names = result["metrics"], result["names"]
    rows = [
        (
            title(name, names),
            *(f"{m[key]:.4f}" for key in ("gap", "map", "map_all_classes", "hit_at_1", "perr")),
        )
        for name, m in metrics.items()
    ]
    columns = ("", "GAP@20", "mAP", "mAP, all classes", "Hit@1", "PERR")
    curves = {
        title(name, names): (curve["recall"], curve["precision"])
        for name, curve in result["precision_recall"].items()
    }
    scored = [c for c in classes if c["model"] and int(c["positives"]) >= FEWEST_POSITIVES]
    scored.sort(key=lambda c: -float(c["model"]))
    drawn = [
        (
            plots.lines(curves, "recall", "precision", y_limits=(0, 1.02)),
            "All videos' top 20 predictions pooled; the area under it is GAP@20.",
        )
    ]
    if scored:
        positives = [int(c["positives"]) for c in scored]
        precision = [float(c["model"]) for c in scored]
        drawn.append(
            (
                plots.points(positives, precision, "labels of the class", "average precision"),
                "Each class: the more examples, the better it is usually known.",
            )
        )
    parts = [
        tiles(
            [
                (f"{metrics['model']['gap']:.4f}", "GAP@20 of the model"),
                (f"{metrics['model']['hit_at_1']:.1%}", "best guess is a label (Hit@1)"),
                (f"{result['videos']:,}", f"videos of {result['split']}"),
                (f"{metrics['model']['positives']:,}", "labels on them"),
            ]
        ),
        table(columns, rows),
        figures(drawn),
    ]
    for words, chosen in (("Best", scored[:8]), ("Worst", scored[:-9:-1])):
        parts += [
            heading(f"{words} classes (of those with at least {FEWEST_POSITIVES} labels)"),
            table(
                ("class", "name", "vertical", "labels", "average precision"),
                [
                    (
                        c["class"],
                        c["name"],
                        c["vertical"],
                        c["positives"],
                        f"{float(c['model']):.3f}",
                    )
                    for c in chosen
                ],
            ),
        ]
    return section(
        "Evaluation",
        "Exact and global: every record of the split is scored, no average of batches. The "
        "ceiling, where there is one, is the GAP of the probabilities that labels were drawn from.",
        *parts,
    )


def title(name: str, names: dict[str, str]) -> str:
    """How a scorer is called in tables: `model (nextvlad)`, `ceiling of the data`."""
    return f"{name} ({names[name]})" if name in names else "ceiling of the data"
