"""What the KFP UI and Vertex AI's console read of the step."""

import json
from pathlib import Path

import pytest
from kfp import dsl

from components.evaluate.component import evaluate
from trainer.files import read_json


@pytest.mark.slow
def test_the_metadata_that_are_drawn(trained, tmp_path):
    def artifact(kind, name, path=""):
        return kind(name=name, uri=str(path or tmp_path / name))

    metrics = artifact(dsl.Metrics, "metrics")
    classification = artifact(dsl.ClassificationMetrics, "classification")
    (gap,) = evaluate.python_func(
        examples=artifact(dsl.Dataset, "examples", trained.examples),
        example_statistics=artifact(dsl.Artifact, "statistics", trained.statistics),
        trained_model=artifact(dsl.Model, "model", trained.model),
        data_fingerprint="",
        champion=trained.model,
        champion_digest="",
        overrides=json.dumps({"evaluation": {"resamples": 200}}),
        evaluation=artifact(dsl.Artifact, "evaluation"),
        metrics=metrics,
        classification=classification,
        report=artifact(dsl.HTML, "report.html"),
    )
    result = read_json(tmp_path / "evaluation" / "evaluation.json")
    assert gap == result["metrics"]["model"]["gap"] == metrics.metadata["model_gap"]
    assert set(metrics.metadata) == {
        f"{name}_{metric}"
        for name in ("model", "baseline", "champion", "ceiling")
        for metric in ("gap", "map", "hit_at_1", "perr")
    }
    points = classification.metadata["confidenceMetrics"]
    assert {"confidenceThreshold", "recall", "falsePositiveRate"} <= set(points[0])
    assert (points[0]["recall"], points[0]["falsePositiveRate"]) == (0, 0)
    assert (points[-1]["recall"], points[-1]["falsePositiveRate"]) == (1, 1)
    matrix = classification.metadata["confusionMatrix"]
    names = [one["displayName"] for one in matrix["annotationSpecs"]]
    assert names == result["vertical_matrix"]["names"]
    assert [row["row"] for row in matrix["rows"]] == result["vertical_matrix"]["matrix"]
    # KFP's local cache takes an output without a file for lost.
    assert all(Path(one.path).is_file() for one in (metrics, classification))
