"""Models that score whole videos: GAP@20 and what explains it."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.download.bucket_folder import local_folder
from components.evaluate import findings
from components.evaluate.champion import check_same_videos, named
from components.evaluate.report import CLASSES
from trainer.champion import Champion
from trainer.config import EvaluationConfig
from trainer.evaluation import Scored, score_predictions, score_shards, trained_config
from trainer.files import local_path
from trainer.manifest import Manifest
from trainer.metrics.bootstrap import Predictions
from trainer.models import load_model
from trainer.prediction import write_top_predictions
from trainer.progress import Progress, say
from trainer.training import BASELINE, MODEL

HEADLINE = "GAP@20"
UNKNOWN_VOCABULARY = "whether its classes are the data's is not known, as one has no names"


class VideoEvaluation:
    """The model, its baseline, a champion and the ceiling on the same videos.

    Args:
        manifest: of the data.
        split: of it.
        trained_model: folder of the train step.
        champion: folder or `gs://` URI; empty: none.
        settings: how.
        train_videos: int [C], how many videos of train have each class; None: not known.
    """

    def __init__(
        self,
        manifest: Manifest,
        split: str,
        trained_model: str,
        champion: str,
        settings: EvaluationConfig,
        train_videos: NDArray[np.int64] | None,
    ) -> None:
        self._manifest, self._split, self._settings = manifest, split, settings
        self._train_videos = train_videos
        self._scored = self._score_all(trained_model, champion)
        self._metrics = {name: one.metrics for name, one in self._scored.items()}
        if manifest.oracle:
            frames = trained_config(trained_model, manifest)["data"]["max_frames"]
            self._metrics["ceiling"] = score_predictions(
                local_path(manifest.oracle), manifest, manifest.split(split), frames
            )

    def _score_all(self, trained_model: str, champion: str) -> dict[str, Scored]:
        manifest, batch_size = self._manifest, self._settings.batch_size
        frames = trained_config(trained_model, manifest)["data"]["max_frames"]
        shards, total = manifest.split(self._split), manifest.records(self._split)
        scored: dict[str, Scored] = {}
        self._vocabulary_known = True
        with contextlib.ExitStack() as held:
            if champion:
                # Before anything is scored: what does not load is said at once.
                with named(champion):
                    other = Champion(
                        held.enter_context(local_folder(champion, "champion")), manifest
                    )
                self._vocabulary_known = other.vocabulary_known
                if not other.vocabulary_known:
                    say("evaluate", f"warning: champion {champion}: {UNKNOWN_VOCABULARY}")
            for name, file in (("model", MODEL), ("baseline", BASELINE)):
                if (path := Path(trained_model) / file).is_file() or file == MODEL:
                    progress = Progress("evaluate", total, "videos")
                    scored[name] = score_shards(
                        load_model(path), manifest, shards, frames, batch_size, progress
                    )
            if champion:
                progress = Progress("evaluate", total, "videos by the champion")
                with named(champion):
                    scored["champion"] = other.score(shards, batch_size, progress)
                check_same_videos(champion, scored["champion"], scored["model"])
        return scored

    def result(self) -> dict[str, Any]:
        """What `evaluation.json` says."""
        vocabulary = self._manifest.read_vocabulary()
        model, metrics = self._scored["model"], self._metrics
        predictions = {name: Predictions.of(one) for name, one in metrics.items()}
        return {
            "headline": HEADLINE,
            "videos": model.metrics.videos,
            "names": {name: one.model_name for name, one in self._scored.items()},
            "metrics": {name: one.result()._asdict() for name, one in metrics.items()},
            "champion_vocabulary_known": self._vocabulary_known,
            **findings.of_predictions(predictions, self._settings),
            "examples_per_second": round(model.metrics.videos / model.seconds, 1),
            "metrics_share_of_scoring": round(model.metrics_seconds / model.seconds, 4),
            "slices": findings.slices(self._scored, vocabulary, self._train_videos),
            "confusions": findings.confusions(model, vocabulary),
            "vertical_matrix": findings.vertical_matrix(model, vocabulary),
            "worst_classes": findings.worst_classes(model, vocabulary),
        }

    def write(self, folder: Path) -> None:
        """Write `predictions.csv` and `classes.csv`."""
        model = self._scored["model"]
        write_top_predictions(folder / "predictions.csv", model.video_ids, *model.top())
        write_classes(folder / CLASSES, self._manifest, self._metrics)


def write_classes(path: Path, manifest: Manifest, metrics: dict[str, Any]) -> None:
    """One row a class: its name, its positives, and each scorer's average precision.

    Args:
        path: to write.
        manifest: of the data.
        metrics: accumulators (of videos, or of segments) by name.
    """
    vocabulary = manifest.read_vocabulary()
    positives = metrics["model"].positives
    precision = {name: one.class_average_precision() for name, one in metrics.items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("class", "name", "vertical", "positives", *precision))
        for index, name in enumerate(vocabulary.names):
            values = (
                "" if np.isnan(one[index]) else f"{one[index]:.6f}" for one in precision.values()
            )
            row = (index, name, vocabulary.verticals[index][0], positives[index], *values)
            writer.writerow(row)
