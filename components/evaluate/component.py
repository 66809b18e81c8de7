"""The evaluate step's KFP signature."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def evaluate(
    examples: dsl.Input[dsl.Dataset],
    example_statistics: dsl.Input[dsl.Artifact],
    trained_model: dsl.Input[dsl.Model],
    data_fingerprint: str,
    champion: str,
    champion_digest: str,
    overrides: str,
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
) -> NamedTuple("Outputs", [("gap", float)]):  # type: ignore[valid-type]
    """Score the model, its baseline, the champion and the ceiling on every record of validate.

    Args:
        examples: The manifest; its validate split is read.
        example_statistics: How often train has each class.
        trained_model: The model, and the baseline where there is one.
        data_fingerprint: Of the data; a changed shard makes this step run again.
        champion: Folder or gs:// URI of a model to score beside it; empty: none.
        champion_digest: Of the champion's files; changed ones make this step run again.
        overrides: JSON object of further parameters, by section.
        evaluation: evaluation.json, predictions.csv (top 20), classes.csv.
        metrics: GAP@20, mAP, Hit@1 and PERR of each; of segments average precision and
            MAP@100,000.
        classification: ROC of the top 20 predictions; labels' verticals against predictions'.
        report: What was found, as one HTML page.

    Returns:
        gap: GAP@20 of the model; of segments the average precision of the rated pairs.
    """
    from components.evaluate.step import run_evaluate
    from trainer.config import run_config
    from trainer.errors import reported
    from trainer.files import write_json

    with reported():
        config = run_config(overrides)
        result = run_evaluate(
            examples.path, trained_model.path, config, evaluation.path, report.path,
            example_statistics.path, champion,
        )  # fmt: skip
        values = {
            f"{name}_{metric}": scores[metric]
            for name, scores in result["metrics"].items()
            for metric in ("gap", "map", "hit_at_1", "perr")
            if metric in scores
        }
        # Metrics travel as metadata, but KFP's local cache takes an output without a file for lost.
        write_json(metrics.path, values)
        verticals = result.get("vertical_matrix")
        write_json(classification.path, {"roc": result["roc"], "vertical_matrix": verticals})
    for name, value in values.items():
        metrics.log_metric(name, value)
    roc = result["roc"]
    classification.log_roc_curve(
        roc["false_positive_rate"], roc["true_positive_rate"], roc["threshold"]
    )
    if verticals:
        classification.log_confusion_matrix(verticals["names"], verticals["matrix"])
    return (result["metrics"]["model"]["gap"],)
