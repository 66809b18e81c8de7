"""The register step's KFP signature."""

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def register(
    serving_model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    project: str,
    location: str,
    model: str,
    serving_image: str,
    aliases: list,
    labels: dict,
    kms_key: str,
    run: str,
) -> str:
    """Add the exported model to Vertex AI's Model Registry, as the new champion.

    Args:
        serving_model: The exported model.
        evaluation: How good it is; its GAP@20 stands in the version's description.
        project: Google Cloud project.
        location: Region of the registry.
        model: Id of the model there; it is made, or gets a version more.
        serving_image: Container image of the prediction server.
        aliases: Of the version, beside `champion` and `default`; they move from older versions.
        labels: For the bill and for searches.
        kms_key: Full name of a key of one's own to encrypt with; empty: Google's.
        run: Id of the pipeline's run; a version that it has made already is not made again.

    Returns:
        The version: projects/P/locations/L/models/M@V.
    """
    from components.register.step import Version, run_register
    from trainer.errors import reported

    with reported():
        version = Version(
            artifact_uri=serving_model.uri,
            serving_image=serving_image,
            aliases=tuple(aliases),
            labels=labels,
            kms_key=kms_key,
            run=run,
        )
        return run_register(project, location, model, version, evaluation.path)
