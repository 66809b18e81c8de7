"""Score the trained model, its baseline and, where the data knows it, the ceiling."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.report import CLASSES, evaluation_page, read_classes
from trainer.config import Config
from trainer.evaluation import (
    Scored,
    score_predictions,
    score_shards,
    trained_config,
)
from trainer.files import atomic_directory, atomic_file, local_path, write_json
from trainer.manifest import Manifest, read_manifest
from trainer.metrics import MetricsAccumulator
from trainer.models import load_model
from trainer.prediction import write_top_predictions
from trainer.progress import Progress, say
from trainer.training import BASELINE, MODEL

SPLIT = "validate"
CURVE_POINTS = 200


def run_evaluate(
    examples: str, trained_model: str, config: Config, evaluation: str, report: str
) -> dict[str, Any]:
    """Write `evaluation.json`, `predictions.csv` and `classes.csv` below `evaluation`.

    Args:
        examples: folder of the manifest; every record of its validate split is scored.
        trained_model: folder of the train step.
        config: `evaluation` is used.
        evaluation: folder to write.
        report: HTML file to write.

    Returns:
        The content of `evaluation.json`.

    Raises:
        InputError: a model that does not fit the data, or a bad record.
    """
    manifest = read_manifest(examples)
    trained = trained_config(trained_model, manifest)
    shards = manifest.split(SPLIT)
    max_frames, batch_size = trained["data"]["max_frames"], config.evaluation.batch_size
    total = manifest.records(SPLIT)
    scored: dict[str, Scored] = {}
    for name, file in (("model", MODEL), ("baseline", BASELINE)):
        if (path := Path(trained_model) / file).is_file() or file == MODEL:
            model = load_model(path)
            progress = Progress("evaluate", total, "videos")
            scored[name] = score_shards(model, manifest, shards, max_frames, batch_size, progress)
    accumulators = {name: one.metrics for name, one in scored.items()}
    if manifest.oracle:
        path = local_path(manifest.oracle)
        accumulators["ceiling"] = score_predictions(path, manifest, shards, max_frames)
    result: dict[str, Any] = {
        "data_fingerprint": manifest.fingerprint,
        "split": SPLIT,
        "videos": total,
        "names": {name: one.model_name for name, one in scored.items()},
        "metrics": {
            name: accumulator.result()._asdict() for name, accumulator in accumulators.items()
        },
        "examples_per_second": round(total / scored["model"].seconds, 1),
        "precision_recall": {name: _curve(one) for name, one in accumulators.items()},
    }
    with atomic_directory(evaluation) as partial:
        write_json(partial / "evaluation.json", result)
        model_scores = scored["model"]
        write_top_predictions(
            partial / "predictions.csv",
            model_scores.video_ids,
            model_scores.top_classes,
            model_scores.top_scores,
        )
        _write_classes(partial / CLASSES, manifest, accumulators)
    classes = read_classes(evaluation)
    with atomic_file(report) as partial:
        partial.write_text(evaluation_page(manifest, result, classes), encoding="utf-8")
    words = [f"{name} {metrics['gap']:.4f}" for name, metrics in result["metrics"].items()]
    say("evaluate", f"GAP@20 on {total:,} videos: {', '.join(words)}")
    return result


def _curve(accumulator: MetricsAccumulator) -> dict[str, list[float]]:
    """Precision and recall of the pooled top 20 list, at evenly spaced recalls."""
    _, scores, hits = accumulator.pooled()
    order = np.lexsort((hits, -scores))
    found = np.cumsum(hits[order])
    recall = found / accumulator.positives.sum()
    precision = found / np.arange(1, len(found) + 1)
    at = np.unique(np.searchsorted(recall, np.linspace(0, recall[-1], CURVE_POINTS)))
    at = at[at < len(recall)]
    return {
        "recall": np.round(recall[at], 5).tolist(),
        "precision": np.round(precision[at], 5).tolist(),
    }


def _write_classes(
    path: Path, manifest: Manifest, accumulators: dict[str, MetricsAccumulator]
) -> None:
    """One row a class: its name, its positives, and each scorer's average precision."""
    vocabulary = manifest.read_vocabulary()
    positives = accumulators["model"].positives
    precision = {name: one.class_average_precision() for name, one in accumulators.items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("class", "name", "vertical", "positives", *precision))
        for index, name in enumerate(vocabulary.names):
            values = (
                "" if np.isnan(one[index]) else f"{one[index]:.6f}" for one in precision.values()
            )
            row = (index, name, vocabulary.verticals[index][0], positives[index], *values)
            writer.writerow(row)
