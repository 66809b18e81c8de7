"""Score the trained model, its baseline, a champion and, where the data knows it, the ceiling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.evaluate.report import evaluation_page, read_classes
from components.evaluate.segments import SegmentEvaluation
from components.evaluate.videos import VideoEvaluation
from trainer.config import Config
from trainer.evaluation import trained_config
from trainer.files import atomic_directory, atomic_file, write_json
from trainer.manifest import Manifest, read_manifest
from trainer.progress import say
from trainer.statistics import read_statistics

SPLIT = "validate"


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
        trained_model: folder of the train step; one that was trained on segments is scored on
            segments.
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
    settings = config.evaluation
    found: VideoEvaluation | SegmentEvaluation
    if trained_config(trained_model, manifest)["data"].get("segments"):
        found = SegmentEvaluation(manifest, SPLIT, trained_model, champion, settings)
    else:
        train_videos = _train_videos(manifest, example_statistics)
        found = VideoEvaluation(manifest, SPLIT, trained_model, champion, settings, train_videos)
    result = {
        "data_fingerprint": manifest.fingerprint,
        "split": SPLIT,
        "champion": champion,
        **found.result(),
    }
    with atomic_directory(evaluation) as partial:
        write_json(partial / "evaluation.json", result)
        found.write(partial)
    with atomic_file(report) as partial:
        page = evaluation_page(manifest, result, read_classes(evaluation))
        partial.write_text(page, encoding="utf-8")
    words = [f"{name} {one['gap']:.4f}" for name, one in result["metrics"].items()]
    say("evaluate", f"{result['headline']} on {result['videos']:,} videos: {', '.join(words)}")
    return result


def _train_videos(manifest: Manifest, folder: str) -> NDArray[np.int64] | None:
    if not folder:
        return None
    counts = read_statistics(folder, manifest.fingerprint).arrays["train/labels"]
    found: NDArray[np.int64] = counts[: manifest.num_classes]
    return found
