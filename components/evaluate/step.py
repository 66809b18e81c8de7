"""Score the trained model, its baseline, a champion and, where the data knows it, the ceiling."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluate import findings
from components.evaluate.champion import local_folder
from components.evaluate.report import CLASSES, evaluation_page, read_classes
from trainer.champion import score_champion
from trainer.config import Config
from trainer.errors import InputError
from trainer.evaluation import Scored, score_predictions, score_shards, trained_config
from trainer.files import atomic_directory, atomic_file, local_path, write_json
from trainer.manifest import Manifest, read_manifest
from trainer.metrics import MetricsAccumulator
from trainer.models import load_model
from trainer.prediction import write_top_predictions
from trainer.progress import Progress, say
from trainer.statistics import read_statistics
from trainer.training import BASELINE, MODEL

SPLIT = "validate"
HEADLINE = "GAP@20"


def run_evaluate(
    examples: str,
    trained_model: str,
    config: Config,
    evaluation: str,
    report: str,
    example_statistics: str = "",
    champion: str = "",
) -> dict[str, Any]:
    """Write `evaluation.json`, `predictions.csv` and `classes.csv` below `evaluation`.

    Args:
        examples: folder of the manifest; every record of its validate split is scored.
        trained_model: folder of the train step.
        config: `evaluation` is used.
        evaluation: folder to write.
        report: HTML file to write.
        example_statistics: folder of the statistics step, for how often train has each class;
            empty: not told.
        champion: folder or `gs://` URI of a model to score beside it; empty: none.

    Returns:
        The content of `evaluation.json`.

    Raises:
        InputError: a model or champion that does not fit the data, or a bad record.
    """
    manifest = read_manifest(examples)
    train_videos = _train_videos(manifest, example_statistics)
    scored = _score_all(manifest, trained_model, config, champion)
    metrics = {name: one.metrics for name, one in scored.items()}
    if manifest.oracle:
        max_frames = trained_config(trained_model, manifest)["data"]["max_frames"]
        path = local_path(manifest.oracle)
        metrics["ceiling"] = score_predictions(path, manifest, manifest.split(SPLIT), max_frames)
    result = _result(manifest, scored, metrics, train_videos, config) | {"champion": champion}
    with atomic_directory(evaluation) as partial:
        write_json(partial / "evaluation.json", result)
        model = scored["model"]
        write_top_predictions(partial / "predictions.csv", model.video_ids, *model.top())
        _write_classes(partial / CLASSES, manifest, metrics)
    with atomic_file(report) as partial:
        page = evaluation_page(manifest, result, read_classes(evaluation))
        partial.write_text(page, encoding="utf-8")
    words = [f"{name} {one['gap']:.4f}" for name, one in result["metrics"].items()]
    say("evaluate", f"GAP@20 on {result['videos']:,} videos: {', '.join(words)}")
    return result


def _score_all(
    manifest: Manifest, trained_model: str, config: Config, champion: str
) -> dict[str, Scored]:
    """The model, its baseline and the champion, on the same records in the same order."""
    trained = trained_config(trained_model, manifest)
    shards, batch_size = manifest.split(SPLIT), config.evaluation.batch_size
    total = manifest.records(SPLIT)
    scored: dict[str, Scored] = {}
    for name, file in (("model", MODEL), ("baseline", BASELINE)):
        if (path := Path(trained_model) / file).is_file() or file == MODEL:
            progress = Progress("evaluate", total, "videos")
            scored[name] = score_shards(
                load_model(path), manifest, shards, trained["data"]["max_frames"], batch_size,
                progress,
            )  # fmt: skip
    if champion:
        progress = Progress("evaluate", total, "videos by the champion")
        with local_folder(champion) as folder:
            try:
                scored["champion"] = score_champion(folder, manifest, shards, batch_size, progress)
            except InputError as error:
                raise InputError(f"champion {champion}: {error}") from None
        if scored["champion"].video_ids != scored["model"].video_ids:
            raise InputError(f"champion {champion}: was not scored on the same videos")
    return scored


def _result(
    manifest: Manifest,
    scored: dict[str, Scored],
    metrics: dict[str, MetricsAccumulator],
    train_videos: NDArray[np.int64] | None,
    config: Config,
) -> dict[str, Any]:
    vocabulary = manifest.read_vocabulary()
    model = scored["model"]
    settings = config.evaluation
    return {
        "data_fingerprint": manifest.fingerprint,
        "split": SPLIT,
        "videos": model.metrics.videos,
        "headline": HEADLINE,
        "names": {name: one.model_name for name, one in scored.items()},
        "metrics": {name: one.result()._asdict() for name, one in metrics.items()},
        **findings.certainty(metrics, settings.resamples, settings.confidence),
        "examples_per_second": round(model.metrics.videos / model.seconds, 1),
        "metrics_share_of_scoring": round(model.metrics_seconds / model.seconds, 4),
        "precision_recall": {name: findings.precision_recall(one) for name, one in metrics.items()},
        "roc": findings.roc(model.metrics),
        "reliability": {name: findings.reliability(one) for name, one in metrics.items()},
        "slices": findings.slices(scored, vocabulary, train_videos),
        "confusions": findings.confusions(model, vocabulary),
        "vertical_matrix": findings.vertical_matrix(model, vocabulary),
        "worst_classes": findings.worst_classes(model, vocabulary),
    }


def _train_videos(manifest: Manifest, folder: str) -> NDArray[np.int64] | None:
    if not folder:
        return None
    counts = read_statistics(folder, manifest.fingerprint).arrays["train/labels"]
    found: NDArray[np.int64] = counts[: manifest.num_classes]
    return found


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
