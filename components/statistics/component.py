"""The statistics step's KFP signature."""

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def statistics(
    examples: dsl.Input[dsl.Dataset],
    data_fingerprint: str,
    beam_pipeline_args: list,
    example_statistics: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Read every record with Beam; fail on bad records and on anomalies of severity error.

    Args:
        examples: The manifest.
        data_fingerprint: Of the data; a changed shard makes this step run again.
        beam_pipeline_args: Options of the Beam engine; none: in this process.
        example_statistics: statistics.json and statistics.npz: moments, histograms, counts.
        report: What was found, as one HTML page.
    """
    from components.statistics.step import run_statistics
    from trainer.errors import reported

    with reported():
        run_statistics(examples.path, example_statistics.path, report.path, beam_pipeline_args)
