"""The export step's KFP signature."""

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def export(
    examples: dsl.Input[dsl.Dataset],
    trained_model: dsl.Input[dsl.Model],
    data_fingerprint: str,
    overrides: str,
    serving_model: dsl.Output[dsl.Model],
) -> None:
    """Write a SavedModel and prove in a fresh process that it answers as the model does.

    Args:
        examples: The manifest; gives the class names and the records to compare on.
        trained_model: The model.
        data_fingerprint: Of the data; a changed shard makes this step run again.
        overrides: JSON object of further parameters, by section.
        serving_model: saved_model/ with parsing, normalisation and label map inside.
    """
    from components.export.step import run_export
    from trainer.config import run_config
    from trainer.errors import reported

    with reported():
        config = run_config(overrides)
        result = run_export(examples.path, trained_model.path, config, serving_model.path)
    serving_model.metadata.update(result)
