"""The predict step's KFP signature, for a pipeline of one's own: the training pipeline has none."""

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def predict(
    examples: dsl.Input[dsl.Dataset],
    serving_model: dsl.Input[dsl.Model],
    data_fingerprint: str,
    predictions: dsl.Output[dsl.Dataset],
    split: str = "validate",
    segments: bool = False,
    skip_damaged: bool = False,
    beam_pipeline_args: list = [],  # noqa: B006
) -> None:
    """Score every record of a split with an exported model.

    Its image is to be set in the pipeline that has it, by the task's `set_container_image`: one of
    this project's images, which have its code.

    Args:
        examples: The manifest.
        serving_model: The exported model.
        data_fingerprint: Of the data; a changed shard makes this step run again.
        predictions: predictions.csv in the challenge's form, predictions.jsonl to read, and
            summary.json.
        split: train, validate or test.
        segments: Whether to write the timelines, too: segments.csv and segments.jsonl.
        skip_damaged: Whether records without an answer are passed over, or stop the step.
        beam_pipeline_args: Options of a Beam engine, such as --runner=DataflowRunner; none: this
            step's own process scores.
    """
    from components.predict.step import Request, run_predict
    from trainer.errors import reported

    with reported():
        request = Request(
            model=serving_model.path,
            data=examples.path,
            split=split,
            segments=segments,
            skip_damaged=skip_damaged,
            engine="beam" if beam_pipeline_args else "direct",
            beam_arguments=beam_pipeline_args,
            overwrite=True,
        )
        summary = run_predict(request, predictions.path)
    known = ("videos", "refused", "shards", "videos_per_second", "gap_at_20")
    predictions.metadata.update({name: summary[name] for name in known if name in summary})
