"""The train step's KFP signature."""

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def train(
    examples: dsl.Input[dsl.Dataset],
    example_statistics: dsl.Input[dsl.Artifact],
    data_fingerprint: str,
    model: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    checkpoint_root: str,
    overrides: str,
    trained_model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the model, and the baseline beside it if one is named.

    Args:
        examples: The manifest; its train split is read.
        example_statistics: Give the class frequencies that the classifier starts at.
        data_fingerprint: Of the data; a changed shard makes this step run again.
        model: Name of the network.
        epochs: Passes over the train split.
        batch_size: Videos a step.
        learning_rate: Of the optimiser.
        seed: Of initial weights, order of the data and dropout.
        checkpoint_root: Folder or gs:// prefix that outlives the run; empty: inside the artifact,
            so that an interrupted training starts over.
        overrides: JSON object of further parameters, by section.
        trained_model: model.keras, config.json, history, TensorBoard logs.
        metrics: Final loss and speed.
    """
    from components.train.step import is_chief, run_train
    from trainer.config import run_config
    from trainer.errors import reported
    from trainer.files import write_json

    with reported():
        config = run_config(
            overrides,
            model=model,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
        )
        result = run_train(
            examples.path, example_statistics.path, config, checkpoint_root, trained_model.path
        )
        values = {
            f"{name}_{key}": value
            for name, one in result.items()
            for key, value in (
                ("loss", one["history"][-1]["loss"]),
                ("examples_per_second", one["examples_per_second"]),
            )
        }
        if is_chief():
            # Metrics travel as metadata, but KFP's local cache takes an output without a file for
            # lost. Of several workers, which all have this path, one writes it.
            write_json(metrics.path, values)
    for name, value in values.items():
        metrics.log_metric(name, value)
