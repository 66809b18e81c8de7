"""The feature extraction's KFP signature."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="set-by-target", install_kfp_package=False)
def extract_features(
    videos: str,
    destination: str,
    features: str,
    weights: str,
    model: str,
    extractor: str,
    vocabulary: str,
    validate_share: float,
    max_failed: float,
    accept_damaged: bool,
    seed: int,
    beam_pipeline_args: list,
    examples: dsl.Output[dsl.Dataset],
) -> NamedTuple("Outputs", [("data_fingerprint", str), ("videos", int), ("failed", int)]):  # type: ignore[valid-type]
    """Make YouTube-8M records of videos: decode, Inception-v3 and VGGish, PCA, 8-bit codes.

    Args:
        videos: CSV file of videos and labels, folder, video, or a gs:// URI of one of them.
        destination: Folder (or gs:// prefix, where buckets are mounted as on Vertex AI) that
            outlives the run, for records and for what is done so far; empty: inside the artifact,
            and an interrupted step begins anew.
        features: `youtube8m`, `imagenet` or `random`; not used with a model.
        weights: Folder or gs:// prefix with the networks' published files.
        model: Exported model that is to take the records: its networks and PCA make them; empty:
            none.
        extractor: feature_extractor.npz of an earlier extraction, whose PCA is used again; empty:
            the features' own.
        vocabulary: vocabulary.csv with the classes' names; empty: the labels' own.
        validate_share: Of the labelled videos without a split, to evaluate on.
        max_failed: Share of the videos that may have no features; more of them fail the step.
        accept_damaged: Whether videos that are cut off count for what of them decodes.
        seed: Of random weights.
        beam_pipeline_args: Options of a Beam engine, such as --runner=DataflowRunner; none: this
            step's own process.
        examples: manifest.json and feature_extractor.npz, shards, and what became of each video.

    Returns:
        data_fingerprint: Digest of the records; steps that read them take it.
        videos: How many have a record.
        failed: How many have none.
    """
    from components.extract_features.for_pipelines import run_step
    from trainer.errors import reported

    with reported():
        folder, summary = run_step(
            videos=videos,
            destination=destination,
            features=features,
            weights=weights,
            model=model,
            extractor=extractor,
            vocabulary=vocabulary,
            validate_share=validate_share,
            max_failed=max_failed,
            accept_damaged=accept_damaged,
            seed=seed,
            beam_arguments=beam_pipeline_args,
            artifact=examples.path,
            artifact_uri=examples.uri,
        )
    examples.uri = folder
    known = ("videos", "failed", "frames", "features_mark")
    examples.metadata.update({name: summary[name] for name in known})
    return (summary["data_fingerprint"], summary["videos"], summary["failed"])
