"""A batch prediction job of Vertex AI, followed to its end.

https://cloud.google.com/vertex-ai/docs/predictions/get-batch-predictions
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping

from google.cloud import aiplatform
from google.cloud.aiplatform_v1.types import JobState

from components.register.vertex_ai import started, vertex_errors
from trainer.errors import InputError
from trainer.progress import duration, say
from trainer.termination import ended_by_signals

POLL_SECONDS = 30.0
_ENDED = {
    JobState.JOB_STATE_SUCCEEDED,
    JobState.JOB_STATE_PARTIALLY_SUCCEEDED,
    JobState.JOB_STATE_FAILED,
    JobState.JOB_STATE_CANCELLED,
    JobState.JOB_STATE_EXPIRED,
}
_LOST = {
    JobState.JOB_STATE_FAILED,
    JobState.JOB_STATE_CANCELLING,
    JobState.JOB_STATE_CANCELLED,
    JobState.JOB_STATE_EXPIRED,
}


@dataclasses.dataclass(frozen=True)
class Batch:
    """What is scored, and on what; the fields are the batch_predict component's arguments."""

    source: str
    destination: str
    machine_type: str = "n1-standard-8"
    accelerator: str = ""
    accelerators: int = 1
    replicas: int = 1
    service_account: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kms_key: str = ""
    run: str = ""


def run_batch_predict(project: str, location: str, model: str, batch: Batch) -> str:
    """Score shards; returns the folder of the answers.

    Raises:
        InputError: a place that is in no bucket, or the job ended without all answers.
    """
    sources = [one.strip() for one in batch.source.split(",") if one.strip()]
    for one in (*sources, batch.destination):
        if not one.startswith("gs://"):
            raise InputError(f"batch prediction: {one!r}: expected gs://")
    started(project, location)
    title = f"nextvlad {batch.run}"
    with vertex_errors(f"batch prediction {title}"):
        job = _of_run(title) or _submitted(title, sources, model, batch)
        begun = time.monotonic()
        say("batch_predict", f"{title}: {job.resource_name}")
        with (
            ended_by_signals("batch_predict", "the job is cancelled"),
            contextlib.ExitStack() as unless_it_ends,
        ):
            # Nobody would wait for it, and it would be paid for.
            unless_it_ends.callback(job.cancel)
            while job.state not in _ENDED:
                time.sleep(POLL_SECONDS)
            unless_it_ends.pop_all()
        taken = duration(time.monotonic() - begun)
    if job.state != JobState.JOB_STATE_SUCCEEDED:
        said = " ".join(str(job.error.message if job.error else "").split()) or "no reason is given"
        raise InputError(f"batch prediction {title}: ended as {job.state.name}: {said}")
    place = str(job.output_info.gcs_output_directory)
    stats = job.completion_stats
    say("batch_predict", f"{stats.successful_count:,} records in {taken}: {place}")
    if stats.failed_count:
        raise InputError(
            f"batch prediction {title}: {stats.failed_count:,} records have no answer, their "
            f"errors are in {place}"
        )
    return place


def _of_run(title: str) -> aiplatform.BatchPredictionJob | None:
    """The job of an earlier try of this step, unless it was lost."""
    found = aiplatform.BatchPredictionJob.list(filter=f'display_name="{title}"')
    alive = [one for one in found if one.gca_resource.state not in _LOST]
    return alive[0] if alive else None


def _submitted(
    title: str, sources: list[str], model: str, batch: Batch
) -> aiplatform.BatchPredictionJob:
    accelerated = bool(batch.accelerator)
    return aiplatform.BatchPredictionJob.submit(
        model_name=model,
        job_display_name=title,
        gcs_source=sources,
        # Each record comes to the server in base64, as `{"b64": …}`.
        instances_format="tf-record",
        gcs_destination_prefix=batch.destination,
        predictions_format="jsonl",
        machine_type=batch.machine_type,
        accelerator_type=batch.accelerator or None,
        accelerator_count=batch.accelerators if accelerated else None,
        starting_replica_count=batch.replicas,
        max_replica_count=batch.replicas,
        service_account=batch.service_account or None,
        labels=dict(batch.labels),
        encryption_spec_key_name=batch.kms_key or None,
    )
