"""The download step's KFP signature."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def download(
    data_source: str,
    destination: str,
    champion: str,
    registered: str,
    overrides: str,
    examples: dsl.Output[dsl.Dataset],
) -> NamedTuple(  # type: ignore[valid-type]
    "Outputs",
    [
        ("data_fingerprint", str),
        ("statistics_parameters", str),
        ("expectations", str),
        ("champion", str),
        ("champion_digest", str),
    ],
):
    """Fetch or find the shards (or make the sample), verify every byte, write the manifest.

    Args:
        data_source: `sample`; `youtube8m:RELEASE/LEVEL` or http(s)://…/RELEASE/LEVEL; or a folder
            of shards, a path or gs:// URI.
        destination: Folder or gs:// prefix that outlives the run; empty: inside the artifact.
        champion: Folder, gs:// URI or Model Registry name of a model that the new one has to be
            better than; `registered`: the last one that was registered here; empty: none.
        registered: Model Registry name that `registered` stands for; empty: there is no registry.
        overrides: JSON object of further parameters, by section.
        examples: manifest.json: the shards' URIs, sizes, MD5s, record counts.

    Returns:
        data_fingerprint: Digest of the data's content; steps that read the data take it.
        statistics_parameters: What of the overrides the statistics depend on, so that the data is
            not read again when another parameter changes.
        expectations: Digest of the files that the statistics are compared with; the statistics are
            made anew when one was edited.
        champion: Where the champion's files are now.
        champion_digest: Of these files: what was evaluated beside others is evaluated again.
    """
    from components.download.step import run_download
    from components.evaluate.champion import resolved
    from trainer.config import run_config, section_overrides
    from trainer.errors import reported
    from trainer.onnx_packages import check_packages
    from trainer.statistics.artifact import digest_of_expectations

    with reported():
        config = run_config(overrides)
        if config.export.onnx:  # hours before the export, whose image is this one's
            check_packages()
        found = resolved(champion, registered)
        expectations = digest_of_expectations(config.statistics)
        examples.uri, fingerprint = run_download(
            data_source, destination, config, examples.path, examples.uri
        )
    return (fingerprint, section_overrides(overrides, "statistics"), expectations, *found)
