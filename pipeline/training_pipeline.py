"""The DAG: download → statistics → train → evaluate → gate → export.

One function for every place to run; what differs between them (images, machines, Beam options) is
a `Target`'s and enters at compile time.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from kfp import dsl

from components.download.component import download
from components.evaluate.component import evaluate
from components.export.component import export
from components.gate.component import gate
from components.statistics.component import statistics
from components.train.component import train

NAME = "nextvlad-training"
STEPS = ("download", "statistics", "train", "evaluate", "gate", "export")
PUBLISH, REGISTER, DEPLOY, BATCH_PREDICT = "publish", "register", "deploy", "batch_predict"
EXTRA_STEPS = {
    PUBLISH: "results are copied to `destination`, out of the cluster's own store",
    REGISTER: "the exported model becomes a version in Vertex AI's Model Registry",
    DEPLOY: "an endpoint of Vertex AI answers with it",
    BATCH_PREDICT: "shards are scored with it",
}
"""What a target may add, each after the export step."""

On = Callable[..., dsl.PipelineTask]


@dataclasses.dataclass(frozen=True)
class Target:
    """What a place to run adds to the DAG.

    Attributes:
        name: of the place.
        cpu_image, gpu_image: container images by dependency set; their tags carry a digest of
            the code, so that no cache can serve the results of other code.
        beam_pipeline_args: options of the statistics step's Beam engine.
        extra_steps: of `EXTRA_STEPS`.
        caching: whether steps whose inputs are those of an earlier run are skipped.
        registered_model: what `registered` as the champion stands for.
    """

    name: str
    cpu_image: str
    gpu_image: str
    beam_pipeline_args: tuple[str, ...] = ()
    extra_steps: tuple[str, ...] = ()
    caching: bool = True
    registered_model: str = ""

    def image(self, step: str) -> str:
        """The image of a step: with CUDA for those that a GPU speeds up."""
        return self.gpu_image if step in ("train", "evaluate") else self.cpu_image

    def component(self, component: Any) -> Any:
        """What runs a step; here the step's own component."""
        return component

    def place(self, step: str, task: dsl.PipelineTask) -> None:
        """Give a step its image; a target also asks for the machine that it needs."""
        task.set_container_image(self.image(step))

    def around(self) -> contextlib.AbstractContextManager[Any]:
        """What holds the whole DAG; here nothing."""
        return contextlib.nullcontext()

    def conclude(self, on: On, destination: str, outputs: Mapping[str, Any]) -> None:
        """Add the extra steps after the export, or, without `serving_model`, the refusal.

        Args:
            on: places a task.
            destination: of the pipeline's parameters.
            outputs: of the steps so far, by name.
        """


def build(target: Target) -> Any:
    """The pipeline as KFP compiles or runs it, for one place to run."""

    def on(task: dsl.PipelineTask) -> dsl.PipelineTask:
        target.place(task.name, task)
        return task.set_caching_options(target.caching)

    @dsl.pipeline(name=NAME)
    def training_pipeline(
        data_source: str = "sample",
        destination: str = "",
        model: str = "nextvlad",
        epochs: int = 5,
        batch_size: int = 160,
        learning_rate: float = 2e-4,
        seed: int = 0,
        min_gap: float = 0.0,
        champion: str = "",
        checkpoint_root: str = "",
        overrides: str = "{}",
    ) -> None:
        """Train, evaluate and export a video classifier on YouTube-8M records.

        Args:
            data_source: `sample` (built in); `youtube8m:2/frame` or another release and level of
                the official servers; or a folder of shards, a path or gs:// URI, with train/ and
                validate/.
            destination: Folder or gs:// prefix that outlives the run, for data that is made and
                for what was verified; empty: inside the run.
            model: nextvlad, nextvlad_mixture, netvlad, dbof or mean_pooling (frame level only),
                logistic, moe or mlp.
            epochs: Passes over the train split, at least 1.
            batch_size: Videos a step, at least 1.
            learning_rate: Of the optimiser, above 0.
            seed: Of initial weights, order of the data and dropout.
            min_gap: GAP@20 on validate, 0 to 1, below which the model is not exported.
            champion: A model that has to be beaten on the same shards, or the new one is not
                exported: a folder or gs:// URI of a trained or exported model, or
                projects/P/locations/L/models/M of the Model Registry; empty: none.
            checkpoint_root: Folder or gs:// prefix that outlives the run; a training of the same
                configuration, data and code goes on there.
            overrides: Every further parameter, as a JSON object by section, such as
                {"model": {"cluster_size": 64}}; see trainer/config.py.
        """
        with target.around():
            # Always runs: it proves that the data is there and unchanged, in seconds if it is.
            data = on(
                download(
                    data_source=data_source,
                    destination=destination,
                    champion=champion,
                    registered=target.registered_model,
                    overrides=overrides,
                )
            ).set_caching_options(False)
            fingerprint = data.outputs["data_fingerprint"]
            examples = data.outputs["examples"]
            measured = on(
                statistics(
                    examples=examples,
                    data_fingerprint=fingerprint,
                    statistics_parameters=data.outputs["statistics_parameters"],
                    expectations=data.outputs["expectations"],
                    beam_pipeline_args=list(target.beam_pipeline_args),
                )
            )
            trained = on(
                target.component(train)(
                    examples=examples,
                    example_statistics=measured.outputs["example_statistics"],
                    data_fingerprint=fingerprint,
                    model=model,
                    epochs=epochs,
                    batch_size=batch_size,
                    learning_rate=learning_rate,
                    seed=seed,
                    checkpoint_root=checkpoint_root,
                    overrides=overrides,
                )
            )
            evaluated = on(
                evaluate(
                    examples=examples,
                    example_statistics=measured.outputs["example_statistics"],
                    trained_model=trained.outputs["trained_model"],
                    data_fingerprint=fingerprint,
                    champion=data.outputs["champion"],
                    champion_digest=data.outputs["champion_digest"],
                    overrides=overrides,
                )
            )
            evaluation = evaluated.outputs["evaluation"]
            verdict = on(gate(evaluation=evaluation, min_gap=min_gap, overrides=overrides))
            outputs = data.outputs | measured.outputs | trained.outputs
            outputs |= evaluated.outputs | verdict.outputs
            with dsl.If(verdict.outputs["Output"] == True, name="blessed"):  # noqa: E712
                exported = on(
                    export(
                        examples=examples,
                        trained_model=trained.outputs["trained_model"],
                        evaluation=evaluation,
                        data_fingerprint=fingerprint,
                        overrides=overrides,
                    )
                )
                target.conclude(on, destination, outputs | exported.outputs)
            if PUBLISH in target.extra_steps:
                with dsl.If(verdict.outputs["Output"] == False, name="refused"):  # noqa: E712
                    target.conclude(on, destination, outputs)

    return training_pipeline
