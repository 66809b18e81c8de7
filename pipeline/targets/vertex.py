"""Vertex AI Pipelines: machines by step, training as a custom job, and what follows the export."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from google_cloud_pipeline_components import _placeholders
from google_cloud_pipeline_components.v1.custom_job import create_custom_training_job_from_component
from google_cloud_pipeline_components.v1.vertex_notification_email import VertexNotificationEmailOp
from kfp import dsl

from components.batch_predict.component import batch_predict
from components.deploy.component import deploy
from components.register.component import register
from components.register.names import CHAMPION
from pipeline.targets.vertex_settings import Home, VertexSettings
from pipeline.training_pipeline import BATCH_PREDICT, DEPLOY, REGISTER, On, Target

PROJECT, LOCATION = _placeholders.PROJECT_ID_PLACEHOLDER, _placeholders.LOCATION_PLACEHOLDER
"""Vertex AI puts the run's own in their place: a compiled file is of no project."""
LARGE, SMALL = (8, 30), (4, 16)
"""vCPUs and GB of memory."""
TRAINING_JOB = "nextvlad-train"
"""Display name of the custom job."""
KILL_SECONDS = 60
"""That a step whose time is over has to tidy up."""


def step_size(step: str) -> tuple[int, int]:
    """Least vCPUs and GB of memory of a step; Vertex AI picks a machine type that has them.

    https://cloud.google.com/vertex-ai/docs/pipelines/machine-types
    """
    return LARGE if step in ("evaluate", "extract-features", "statistics") else SMALL


def seconds_of_hours(hours: float) -> int:
    """A time-out in seconds, one at least: to `timeout` 0 means that there is none."""
    return max(1, round(hours * 3600))


@dataclasses.dataclass(frozen=True)
class VertexTarget(Target):
    """Training is a custom job with worker pools; the other steps are containers of Vertex's own.

    Attributes:
        settings: machines, time-outs, what follows the export.
        home: whose project; empty in a file for any.
        serving_image: of registered models.
    """

    settings: VertexSettings = dataclasses.field(default_factory=VertexSettings)
    home: Home = dataclasses.field(default_factory=Home)
    serving_image: str = ""

    def image(self, step: str) -> str:
        training = step == "train" and self.settings.accelerator
        return self.gpu_image if training or self.accelerators(step) else self.cpu_image

    def accelerators(self, step: str) -> int:
        """How many a step has that is no custom job; all of the type that trains."""
        counts = {
            "evaluate": self.settings.evaluate_accelerators,
            # One process extracts, and its networks run on one.
            "extract-features": int(self.settings.extract_accelerator),
        }
        return counts.get(step, 0)

    def component(self, component: Any) -> Any:
        """The train step as a custom job, which runs the same container with the same inputs.

        https://cloud.google.com/vertex-ai/docs/pipelines/customjob-component
        """
        settings, home = self.settings, self.home
        wrapped = copy.deepcopy(component)
        wrapped.component_spec.implementation.container.image = self.image("train")
        return create_custom_training_job_from_component(
            wrapped,
            display_name=TRAINING_JOB,
            replica_count=settings.workers,
            machine_type=settings.machine,
            accelerator_type=settings.accelerator,
            accelerator_count=settings.accelerators,
            boot_disk_size_gb=settings.disk_gb,
            timeout=f"{seconds_of_hours(settings.train_hours)}s",
            # A worker that comes back alone finds the others waiting in a collective operation.
            restart_job_on_worker_restart=settings.workers > 1,
            strategy="SPOT" if settings.spot else "STANDARD",
            service_account=home.service_account,
            network=home.network,
            encryption_spec_key_name=home.kms_key,
            tensorboard=settings.tensorboard,
            base_output_directory=(
                f"{home.root}/tensorboard/{dsl.PIPELINE_JOB_NAME_PLACEHOLDER}"
                if settings.tensorboard
                else ""
            ),
            labels=self.labels(),
        )

    def place(self, step: str, task: dsl.PipelineTask) -> None:
        retries = self.settings.step_retries
        if step == "train":
            # The container of this task is the one that starts the custom job and waits for it.
            retries = self.settings.train_retries
        else:
            super().place(step, task)
            cpus, memory = step_size(step)
            task.set_cpu_limit(str(cpus)).set_memory_limit(f"{memory}G")
            if accelerators := self.accelerators(step):
                task.set_accelerator_type(self.settings.accelerator)
                task.set_accelerator_limit(accelerators)
            seconds = seconds_of_hours(self.settings.step_hours)
            # Vertex AI has no time-out of its own for a step but that of seven days.
            assert task.container_spec is not None
            task.container_spec.command = [
                "timeout", "--verbose", f"--kill-after={KILL_SECONDS}", str(seconds),
                *task.container_spec.command,
            ]  # fmt: skip
        if retries:
            task.set_retry(
                retries, backoff_duration="60s", backoff_factor=2, backoff_max_duration="600s"
            )

    def around(self) -> contextlib.AbstractContextManager[Any]:
        """Tells people how the run ended, if anybody is to be told."""
        recipients = self.settings.recipients()
        if not recipients:
            return contextlib.nullcontext()
        handler: contextlib.AbstractContextManager[Any] = dsl.ExitHandler(
            VertexNotificationEmailOp(recipients=recipients), name="run"
        )
        return handler

    def conclude(self, on: On, destination: str, outputs: Mapping[str, Any]) -> None:  # noqa: ARG002
        """The registry, and what is done with the model that is there now."""
        settings = self.settings
        if REGISTER not in self.extra_steps:
            return
        run = dsl.PIPELINE_JOB_NAME_PLACEHOLDER
        common = {"project": PROJECT, "location": LOCATION, "labels": self.labels()}
        common["kms_key"] = self.home.kms_key
        registered = on(
            register(
                serving_model=outputs["serving_model"],
                evaluation=outputs["evaluation"],
                model=settings.registered_model,
                serving_image=self.serving_image,
                aliases=settings.alias_list(),
                run=run,
                **common,
            )
        )
        # What they change is outside of what the cache knows: another run may have changed it.
        registered.set_caching_options(False)
        serving = {
            "model": registered.output,
            "machine_type": settings.serving_machine,
            "accelerator": settings.serving_accelerator,
            "accelerators": 1,
            # The prediction server needs its model alone, which Vertex AI's own account can read.
            "service_account": "",
        }
        if DEPLOY in self.extra_steps:
            on(
                deploy(
                    endpoint=settings.endpoint,
                    traffic=settings.traffic,
                    replicas=settings.replicas,
                    most_replicas=settings.most_replicas,
                    keep=settings.keep,
                    **serving,
                    **common,
                )
            ).set_caching_options(False)
        if BATCH_PREDICT in self.extra_steps:
            on(
                batch_predict(
                    source=settings.batch_source,
                    destination=settings.batch_destination,
                    replicas=settings.batch_replicas,
                    run=run,
                    **serving,
                    **common,
                )
            ).set_caching_options(False)

    def labels(self) -> dict[str, str]:
        """Of all that is made, so that the bill can be read."""
        return {"application": "nextvlad-pipeline", **self.settings.label_pairs()}


def vertex_target(
    image: str,
    settings: VertexSettings | None = None,
    home: Home | None = None,
    beam_pipeline_args: Sequence[str] = (),
    caching: bool = True,
) -> VertexTarget:
    """The target on these images (`{kind}` stands for cpu, gpu or serving)."""
    settings = settings or VertexSettings()
    wanted = {
        REGISTER: settings.registered_model,
        DEPLOY: settings.endpoint,
        BATCH_PREDICT: settings.batch_source,
    }
    name = f"projects/{PROJECT}/locations/{LOCATION}/models/{settings.registered_model}@{CHAMPION}"
    return VertexTarget(
        "vertex",
        image.replace("{kind}", "cpu"),
        image.replace("{kind}", "gpu"),
        tuple(beam_pipeline_args),
        extra_steps=tuple(step for step, value in wanted.items() if value),
        caching=caching,
        registered_model=name if settings.registered_model else "",
        settings=settings,
        home=home or Home(),
        serving_image=image.replace("{kind}", "serving"),
    )
