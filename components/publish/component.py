"""The publish step's KFP signature."""

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def publish(
    destination: str,
    run: str,
    examples: dsl.Input[dsl.Dataset],
    example_statistics: dsl.Input[dsl.Artifact],
    trained_model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    verdict: dsl.Input[dsl.Markdown],
    serving_model: dsl.Input[dsl.Model] = None,
) -> str:
    """Copy what the run made below destination, out of the cluster's own store of artifacts.

    Args:
        destination: Folder or gs:// prefix that outlives the run; empty: nothing is copied.
        run: The run's id; its results go to runs/ID there, RESULTS.json last.
        examples: The manifest.
        example_statistics: Statistics and their report.
        trained_model: The model and how it was trained.
        evaluation: Metrics, predictions and classes.
        verdict: Of the gate, and why.
        serving_model: The SavedModel, where one was exported.

    Returns:
        Where the results are; empty: nowhere but in the cluster's store.
    """
    from components.publish.step import run_publish
    from trainer.errors import reported

    artifacts = {
        "examples": examples.path,
        "example_statistics": example_statistics.path,
        "trained_model": trained_model.path,
        "evaluation": evaluation.path,
    }
    if serving_model is not None:
        artifacts["serving_model"] = serving_model.path
    with reported():
        return run_publish(destination, run, artifacts, verdict.metadata)
