"""Models that score segments: MAP@100,000 over the pairs that human raters judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.download.bucket_folder import local_folder
from components.evaluate import findings
from components.evaluate.champion import check_same_videos, named
from components.evaluate.report import CLASSES
from components.evaluate.videos import write_classes
from trainer.config import EvaluationConfig
from trainer.errors import InputError
from trainer.evaluation import trained_config, vocabulary_compared
from trainer.manifest import Manifest
from trainer.models import load_model
from trainer.prediction import write_segment_predictions
from trainer.progress import Progress
from trainer.segment_evaluation import ScoredSegments, score_segments
from trainer.training import BASELINE, MODEL

HEADLINE = "average precision of the rated segments"


class SegmentEvaluation:
    """The model, its baseline and a champion on the same rated segments.

    Args:
        manifest: of the data.
        split: of it.
        trained_model: folder of the train step, of a training with `data.segments`.
        champion: folder or `gs://` URI of another such folder; empty: none.
        settings: how.
    """

    def __init__(
        self,
        manifest: Manifest,
        split: str,
        trained_model: str,
        champion: str,
        settings: EvaluationConfig,
    ) -> None:
        self._manifest, self._split, self._settings = manifest, split, settings
        self._scored: dict[str, ScoredSegments] = {}
        self._vocabulary_known = True
        for name, file in (("model", MODEL), ("baseline", BASELINE)):
            if (path := Path(trained_model) / file).is_file() or file == MODEL:
                self._scored[name] = self._score(path)
        if champion:
            with local_folder(champion, "champion") as folder, named(champion):
                self._scored["champion"] = self._score_champion(folder)
            check_same_videos(champion, self._scored["champion"], self._scored["model"])

    def _score(self, path: Path) -> ScoredSegments:
        manifest = self._manifest
        progress = Progress("evaluate", manifest.records(self._split), "videos")
        return score_segments(
            load_model(path), manifest, manifest.split(self._split), self._settings.batch_size,
            progress,
        )  # fmt: skip

    def _score_champion(self, folder: Path) -> ScoredSegments:
        if not (folder / MODEL).is_file():
            raise InputError(
                f"{folder}: has no {MODEL}; of segments only a trained model is compared, as an "
                "exported one scores whole videos"
            )
        config = trained_config(folder, self._manifest)
        self._vocabulary_known = vocabulary_compared(config, self._manifest)
        if not config["data"].get("segments"):
            raise InputError(f"{folder}: was trained on whole videos, expected data.segments")
        return self._score(folder / MODEL)

    def result(self) -> dict[str, Any]:
        """What `evaluation.json` says."""
        model, settings = self._scored["model"], self._settings
        predictions = {name: one.predictions() for name, one in self._scored.items()}
        metrics = {}
        for name, one in self._scored.items():
            found = one.metrics.result()
            metrics[name] = {"gap": found.ap, **found._asdict()}
        return {
            "headline": HEADLINE,
            "videos": len(model.video_ids),
            "names": {name: one.model_name for name, one in self._scored.items()},
            "metrics": metrics,
            "champion_vocabulary_known": self._vocabulary_known,
            **findings.of_predictions(predictions, settings),
            "examples_per_second": round(len(model.video_ids) / model.seconds, 1),
            "metrics_share_of_scoring": round(model.metrics_seconds / model.seconds, 4),
        }

    def write(self, folder: Path) -> None:
        """Write `predictions.csv` in the challenge's segment form, and `classes.csv`."""
        model = self._scored["model"]
        arrays = model.metrics.arrays()
        write_segment_predictions(
            folder / "predictions.csv", arrays["classes"], arrays["scores"],
            [model.video_ids[video] for video in model.pair_videos], model.pair_starts,
        )  # fmt: skip
        metrics = {name: one.metrics for name, one in self._scored.items()}
        write_classes(folder / CLASSES, self._manifest, metrics)
