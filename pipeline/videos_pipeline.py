"""The small DAG for own videos: extract_features → statistics → predict.

It takes the same targets as the training pipeline, whose data its records are: they are trained on
by giving their folder as that one's `data_source`.
"""

from typing import Any

from kfp import dsl

from components.extract_features.component import extract_features
from components.predict.component import predict
from components.statistics.component import statistics
from pipeline.training_pipeline import Target

NAME = "nextvlad-videos"
STEPS = ("extract-features", "statistics", "predict")


def build_videos(target: Target) -> Any:
    """The pipeline as KFP compiles or runs it, for one place to run."""

    def on(task: dsl.PipelineTask) -> dsl.PipelineTask:
        target.place(task.name, task)
        return task.set_caching_options(target.caching)

    @dsl.pipeline(name=NAME)
    def videos_pipeline(
        videos: str = "",
        model: str = "",
        destination: str = "",
        features: str = "imagenet",
        weights: str = "weights",
        extractor: str = "",
        vocabulary: str = "",
        validate_share: float = 0.2,
        max_failed: float = 0.1,
        accept_damaged: bool = False,
        seed: int = 0,
        split: str = "all",
        segments: bool = True,
        overrides: str = "{}",
    ) -> None:
        """Make YouTube-8M records of videos, look at them, and score them with a model.

        Args:
            videos: CSV file of videos and labels (video,labels with ; between them), a folder, a
                video, or a gs:// URI of one of them.
            model: Exported model of frame-level records (serving_model of a training run): on
                this machine a folder, on a cluster a gs:// URI. Its networks and PCA make the
                records; empty: they are not scored.
            destination: Folder (or gs:// prefix, where buckets are mounted as on Vertex AI) that
                outlives the run, for the records; empty: inside the run.
            features: Without a model: `youtube8m` (the networks and PCA of its releases) or
                `imagenet` (Keras's weights, PCA fitted on the videos); `random` is for tests.
            weights: Folder or gs:// prefix with the networks' published files.
            extractor: feature_extractor.npz of an earlier extraction, whose PCA is used again.
            vocabulary: vocabulary.csv with the classes' names; empty: the labels' own.
            validate_share: Of the labelled videos without a split, to evaluate on, 0 to below 1.
            max_failed: Share of the videos that may have no features, 0 to 1.
            accept_damaged: Whether videos that are cut off count for what of them decodes.
            seed: Of random weights.
            split: train, validate, test or all, to be scored.
            segments: Whether the model's timelines are wanted, too.
            overrides: Parameters of the statistics, as JSON, such as
                {"statistics": {"corrupt_share": 0.1}}.
        """
        # Always runs: it proves that the videos are unchanged, and does what is not done.
        made = on(
            extract_features(
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
                beam_pipeline_args=[],
            )
        ).set_caching_options(False)
        fingerprint, examples = made.outputs["data_fingerprint"], made.outputs["examples"]
        measured = on(
            statistics(
                examples=examples,
                data_fingerprint=fingerprint,
                statistics_parameters=overrides,
                expectations="",
                beam_pipeline_args=list(target.beam_pipeline_args),
            )
        )
        with dsl.If(model != "", name="model"):
            exported = dsl.importer(artifact_uri=model, artifact_class=dsl.Model)
            on(
                predict(
                    examples=examples,
                    serving_model=exported.output,
                    data_fingerprint=fingerprint,
                    split=split,
                    segments=segments,
                    skip_damaged=False,
                    beam_pipeline_args=[],
                )
                # Of the model the cache knows the folder's name alone, where another may lie now.
            ).after(measured).set_caching_options(False)

    return videos_pipeline
