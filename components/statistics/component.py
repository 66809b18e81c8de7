"""The statistics step's KFP signature."""

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def statistics(
    examples: dsl.Input[dsl.Dataset],
    data_fingerprint: str,
    statistics_parameters: str,
    expectations: str,
    beam_pipeline_args: list,
    example_statistics: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Read every record once with Beam; fail on bad records and anomalies of severity error.

    Args:
        examples: The manifest.
        data_fingerprint: Of the data; a changed shard makes this step run again.
        statistics_parameters: JSON object of the overrides of section statistics.
        expectations: Digest of the schema and the earlier statistics that these are compared with;
            an edited one makes this step run again.
        beam_pipeline_args: Options of the Beam engine, such as --runner=DataflowRunner; none: on
            this machine.
        example_statistics: statistics.json and .npz, anomalies.json, bad_records.jsonl,
            classes.csv, schema.yaml, stats.tfrecord and schema.pbtxt.
        report: What was found, as one HTML page.
    """
    from components.statistics.step import run_statistics
    from trainer.config import run_config
    from trainer.errors import reported

    with reported():
        config = run_config(statistics_parameters)
        run_statistics(
            examples.path,
            example_statistics.path,
            report.path,
            beam_pipeline_args,
            config.statistics,
        )
