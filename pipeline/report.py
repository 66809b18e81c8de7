"""`report.html` of a run, and the table that ends it."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from markupsafe import Markup

from components.evaluate.report import columns_of, evaluation_sections, read_classes, title
from components.statistics.report import statistics_section
from trainer.files import atomic_file, read_json
from trainer.manifest import Manifest, read_manifest
from trainer.progress import duration
from trainer.reporting import plots
from trainer.reporting.page import heading, page, section, table, tiles
from trainer.reporting.page import plots as figures
from trainer.statistics import read_statistics

HANDED_OVER = {
    "download": "examples",
    "statistics": "example statistics",
    "train": "trained model",
    "evaluate": "evaluation",
    "gate": "blessed",
    "export": "",
}
"""What is on the arrow out of each step."""
_WIDE = 13
"""Metrics with shorter names stand in the table on the terminal."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a finished local run left.

    Attributes:
        folder: of the run.
        parameters: of the pipeline.
        seconds: by step that ran; steps of earlier results are absent.
        artifacts: folders by name; `serving_model` is empty if nothing was exported.
        reason: of the gate, in words.
        blessed: the gate's verdict.
        wall_seconds: of the whole run.
    """

    folder: Path
    parameters: dict[str, Any]
    seconds: dict[str, float]
    artifacts: dict[str, str]
    reason: str
    blessed: bool
    wall_seconds: float

    def manifest(self) -> Manifest:
        return read_manifest(self.artifacts["examples"])

    def training(self) -> dict[str, Any]:
        content: dict[str, Any] = read_json(f"{self.artifacts['trained_model']}/training.json")
        return content

    def evaluation(self) -> dict[str, Any]:
        content: dict[str, Any] = read_json(f"{self.artifacts['evaluation']}/evaluation.json")
        return content

    def exported(self) -> dict[str, Any]:
        """The content of `export.json`; empty if nothing was exported."""
        if not self.artifacts["serving_model"]:
            return {}
        content: dict[str, Any] = read_json(f"{self.artifacts['serving_model']}/export.json")
        return content


def final_table(run: Run) -> str:
    """The lines that end a run on the terminal."""
    evaluation, training = run.evaluation(), run.training()
    shown = {key: words for key, words in columns_of(evaluation).items() if len(words) < _WIDE}
    heads = "".join(f"{words:>{max(8, len(words) + 2)}}" for words in shown.values())
    lines = [f"{'':<28}{heads}{'trained at':>18}"]
    for name, metrics in evaluation["metrics"].items():
        speed = training.get(name, {}).get("examples_per_second")
        values = "".join(f"{metrics[k]:>{max(8, len(words) + 2)}.4f}" for k, words in shown.items())
        rate = f"{speed:,.0f} videos/s" if speed else ""
        lines.append(f"{title(name, evaluation['names']):<28}{values}{rate:>18}")
    folder = Path(os.path.relpath(run.folder))
    exported = folder / "serving_model" / "saved_model"
    lines += [
        "",
        f"model        {folder / 'trained_model'}",
        f"SavedModel   {exported if run.blessed else f'export skipped, because {run.reason}'}",
        *([f"model card   {exported.with_name('model_card.html')}"] if run.blessed else []),
        f"predictions  {folder / 'evaluation' / 'predictions.csv'}",
        f"report       {folder / 'report.html'}",
        f"log          {folder / 'pipeline.log'}",
    ]
    return "\n".join(lines)


def write_report(run: Run) -> None:
    """Write `report.html` into the run's folder."""
    manifest, evaluation = run.manifest(), run.evaluation()
    statistics = read_statistics(run.artifacts["example_statistics"], manifest.fingerprint)
    classes = read_classes(run.artifacts["evaluation"])
    sections = [
        _overview(run),
        _dag(run),
        _training(run),
        *evaluation_sections(evaluation, classes),
        _predictions(run),
        statistics_section(manifest, statistics),
        _export(run),
        _parameters(run),
    ]
    subtitle = f"run {run.folder.name} · data {manifest.source} · {manifest.fingerprint}"
    with atomic_file(run.folder / "report.html") as partial:
        partial.write_text(page("NeXtVLAD pipeline run", subtitle, sections), encoding="utf-8")


def _overview(run: Run) -> Markup:
    evaluation = run.evaluation()
    called = {"model": run.parameters["model"], "ceiling": "ceiling of the data"}
    values = [
        (f"{one['gap']:.4f}", f"{evaluation['headline']}, {called.get(name, name)}")
        for name, one in evaluation["metrics"].items()
    ]
    training = run.training()["model"]
    values += [
        (f"{training['examples_per_second']:,.0f}", "videos/s in training"),
        (f"{training['parameters'] / 1e6:,.2f} M", "parameters"),
        (duration(run.wall_seconds), "wall time of the run"),
    ]
    verdict = Markup('<p class="{}">{}: {}.</p>').format(
        "good" if run.blessed else "bad",
        "Blessed and exported" if run.blessed else "Not exported",
        run.reason,
    )
    return section("Result", "What came out, in a line.", tiles(values), verdict)


def _dag(run: Run) -> Markup:
    cells = []
    for step, output in HANDED_OVER.items():
        if step in run.seconds:
            state = duration(run.seconds[step])
        else:
            state = "earlier result" if step != "export" or run.blessed else "skipped"
        skipped = " skipped" if state == "skipped" else ""
        cells.append(
            Markup('<div class="step{}"><b>{}</b><span>{}</span></div>').format(
                skipped, step, state
            )
        )
        if output:
            cells.append(Markup('<div class="arrow">{}<br>→</div>').format(output))
    drawing = Markup('<div class="dag">{}</div>').format(Markup("").join(cells))
    return section("Pipeline", "The steps, what each hands to the next, and its time.", drawing)


def _training(run: Run) -> Markup:
    drawn = []
    losses, gaps = {}, {}
    for name, one in run.training().items():
        epochs = [row["epoch"] for row in one["history"]]
        label = f"{name} ({one['model']})"
        losses[label] = (epochs, [row["loss"] for row in one["history"]])
        held = [row["holdout_gap"] for row in one["history"]]
        if None not in held:
            gaps[label] = (epochs, held)
    drawn.append(
        (plots.lines(losses, "epoch", "loss", log="y", markers=True),
         "Mean loss of the epoch on the labels, nats a video.")
    )  # fmt: skip
    if gaps:
        drawn.append(
            (plots.lines(gaps, "epoch", "GAP@20", y_limits=(0, 1), markers=True),
             "GAP@20 on train shards that were held out; validate is not touched here.")
        )  # fmt: skip
    return section(
        "Training", "The model, and the baseline beside it on the same data.", figures(drawn)
    )


def _predictions(run: Run) -> Markup:
    """The first few videos, with names instead of indices."""
    names = run.manifest().read_vocabulary().names
    rows = []
    with open(f"{run.artifacts['evaluation']}/predictions.csv", encoding="utf-8") as file:
        for line, _ in zip(csv.DictReader(file), range(8), strict=False):
            words = line["LabelConfidencePairs"].split()
            best = zip(words[:8:2], words[1:8:2], strict=True)
            text = ", ".join(f"{names[int(index)]} {float(score):.2f}" for index, score in best)
            rows.append((Markup("<code>{}</code>").format(line["VideoId"]), text))
    return section(
        "Predictions", "The first videos of validate: the model's four best classes.",
        table(("video", "classes and their scores"), rows),
    )  # fmt: skip


def _export(run: Run) -> Markup:
    exported = run.exported()
    if not exported:
        return section("Export", f"Export skipped, because {run.reason}.")
    rows = [
        ("SavedModel", Markup("<code>{}/saved_model</code>").format(
            run.artifacts["serving_model"])),
        ("size", f"{exported['bytes'] / 1e6:,.1f} MB, weights in {exported['weights']}"),
        ("signature", f"{exported['signature']}: serialised {exported['level']}-level records → "
                      f"{exported['top_k']} classes, names, scores"),
        ("model card", Markup("<code>{}/model_card.html</code>").format(
            run.artifacts["serving_model"])),
        ("proof", f"reloaded in a fresh process without the project's code: "
                  f"{exported['reloaded_records']} records within "
                  f"{exported['largest_difference']:.1g} of the scores of "
                  f"{exported['compared_with']}"),
    ]  # fmt: skip
    return section("Export", "What can be served.", table(("", ""), rows))


def _parameters(run: Run) -> Markup:
    values = dict(run.parameters)
    overrides = json.loads(values.pop("overrides"))
    rows = [(name, Markup("<code>{}</code>").format(value)) for name, value in values.items()]
    rows += [
        (f"{name}.{key}", Markup("<code>{}</code>").format(value))
        for name, content in overrides.items()
        for key, value in content.items()
    ]
    artifacts = [
        (name, Markup("<code>{}</code>").format(path or "none"))
        for name, path in run.artifacts.items()
    ]
    return section(
        "Parameters and artifacts",
        "What this run was told, and where its results lie.",
        table(("parameter", "value"), rows),
        heading("Artifacts"),
        table(("artifact", "folder"), artifacts),
    )
