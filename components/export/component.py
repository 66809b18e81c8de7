"""The export step's KFP signature."""

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def export(
    examples: dsl.Input[dsl.Dataset],
    trained_model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    data_fingerprint: str,
    overrides: str,
    serving_model: dsl.Output[dsl.Model],
    model_card: dsl.Output[dsl.HTML],
) -> None:
    """Write a SavedModel and prove in a fresh process that it answers as the model does.

    Args:
        examples: The manifest; gives the class names and the records to compare on.
        trained_model: The model.
        evaluation: How good it is, for the model card.
        data_fingerprint: Of the data; a changed shard makes this step run again.
        overrides: JSON object of further parameters, by section.
        serving_model: saved_model/ with parsing, normalisation and label map inside; export.json,
            model_card.md and .html, and model.onnx if that is asked for.
        model_card: What the model is, how good, for what, and how far to trust it.
    """
    from components.export.step import run_export
    from trainer.config import run_config
    from trainer.errors import reported

    with reported():
        config = run_config(overrides)
        result = run_export(
            examples.path, trained_model.path, evaluation.path, config, serving_model.path,
            model_card.path,
        )  # fmt: skip
    serving_model.metadata.update(result)
