"""Pipeline jobs of a project, through Google's SDK: submit, look, list, cancel."""

from __future__ import annotations

import dataclasses
import itertools
import re
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import google.api_core.exceptions as api
import requests
from google.cloud import aiplatform

from components.register.vertex_ai import vertex_errors
from pipeline.targets.vertex import TRAINING_JOB
from pipeline.training_pipeline import NAME
from pipeline.vertex.cloud import Cloud
from trainer.errors import InputError

Answer = TypeVar("Answer")

_PASSING = (
    api.ServerError,
    api.TooManyRequests,
    api.RetryError,
    requests.ConnectionError,
    requests.Timeout,
    ConnectionError,
    TimeoutError,
)
"""What another attempt may change."""
BILLING = "vertex-ai-pipelines-run-billing-id"
_JOB_ID = re.compile(r"[a-z][a-z0-9-]{0,126}")
_LONGEST_NAME = 128
_LATEST = 20
_LISTED = 100
_CREATE_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long a service that does not answer is asked again.

    Attributes:
        seconds: in all.
        pause: before the first other attempt, in seconds; the next ones wait up to a minute.
    """

    seconds: float = 600.0
    pause: float = 2.0


class Jobs:
    """The pipeline jobs of a project and region.

    Args:
        cloud: signed in.
        patience: with a service that does not answer.
    """

    def __init__(self, cloud: Cloud, patience: Patience | None = None) -> None:
        self.cloud = cloud
        self._patience = patience or Patience()

    def submit(
        self,
        package: Path,
        job_id: str,
        parameters: Mapping[str, Any],
        display_name: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> aiplatform.PipelineJob:
        """Start a compiled pipeline.

        The id makes it safe to ask again after a lost answer: the job is there, or is not.

        Raises:
            InputError: a name that Vertex AI does not take, or it refuses.
        """
        check_display_name(display_name)
        home = self.cloud.home
        job = self._made(package, job_id, parameters, display_name or job_id, labels)

        def create() -> aiplatform.PipelineJob:
            try:
                job.submit(
                    service_account=home.service_account or None,
                    network=home.network or None,
                    create_request_timeout=_CREATE_SECONDS,
                )
            except api.Conflict:
                # Of an attempt whose answer was lost.
                return aiplatform.PipelineJob.get(job_id)
            return job

        return self.ask(f"pipeline job {job_id}", create)

    def _made(
        self,
        package: Path,
        job_id: str,
        parameters: Mapping[str, Any],
        display_name: str,
        labels: Mapping[str, str] | None,
    ) -> aiplatform.PipelineJob:
        if not _JOB_ID.fullmatch(job_id):
            raise InputError(
                f"pipeline job {job_id!r}: expected up to 127 of a-z, 0-9 and -, a letter first"
            )
        home = self.cloud.home
        try:
            return aiplatform.PipelineJob(
                display_name=display_name,
                template_path=str(package),
                job_id=job_id,
                pipeline_root=f"{home.root}/artifacts",
                parameter_values=dict(parameters),
                encryption_spec_key_name=home.kms_key or None,
                labels=dict(labels or {}),
                # A step that failed has no use for the others.
                failure_policy="fast",
            )
        except ValueError as error:
            raise InputError(f"pipeline job {job_id}: {' '.join(str(error).split())}") from None

    def schedule(
        self,
        package: Path,
        name: str,
        cron: str,
        parameters: Mapping[str, Any],
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Run a pipeline again and again, one at a time; returns the schedule's resource name.

        Raises:
            InputError: there is one of that name, or Vertex AI refuses.
        """
        check_display_name(name)
        check_cron(cron)
        if self.schedules(name):
            raise InputError(f"schedule {name}: there is one already: WHEN=delete ends it")
        home = self.cloud.home
        job = self._made(package, "nextvlad-scheduled", parameters, name, labels)

        def create() -> str:
            if found := self.schedules(name):  # of an attempt whose answer was lost
                return str(found[0].resource_name)
            made = job.create_schedule(
                cron=cron,
                display_name=name,
                # A run that takes longer than the time between two is not overtaken by the next.
                # The first counts starts alone.
                max_concurrent_run_count=1,
                max_concurrent_active_run_count=1,
                allow_queueing=False,
                service_account=home.service_account or None,
                network=home.network or None,
                create_request_timeout=_CREATE_SECONDS,
            )
            return str(made.resource_name)

        return self.ask(f"schedule {name}", create)

    def schedules(self, name: str = "") -> list[aiplatform.PipelineJobSchedule]:
        """The schedules, of a name if one is given, the newest first."""
        found = self.ask(
            "its schedules",
            lambda: aiplatform.PipelineJobSchedule.list(
                filter=f'display_name="{name}"' if name else None, order_by="create_time desc"
            ),
        )
        return list(found)

    def change_schedule(self, name: str, change: str) -> None:
        """`pause`, `resume` or `delete` the schedule of a name.

        Raises:
            InputError: there is none, or several.
        """
        found = self.schedules(name)
        if len(found) != 1:
            raise InputError(
                f"schedule {name}: there is none"
                if not found
                else f"schedule {name}: there are {len(found)}, change the right one in the console"
            )
        one = found[0]
        request = {"pause": one.pause, "resume": one.resume, "delete": one.delete}[change]
        with vertex_errors(f"schedule {name}"):
            try:
                request()
            except RuntimeError as error:  # the SDK's: it is in no state to be changed so
                raise InputError(f"schedule {name}: {' '.join(str(error).split())}") from None

    def job(self, job_id: str) -> aiplatform.PipelineJob:
        """A job by its id or resource name, as it is now.

        Raises:
            InputError: there is none.
        """
        return self.ask(f"pipeline job {job_id}", lambda: aiplatform.PipelineJob.get(job_id))

    def latest(self) -> list[aiplatform.PipelineJob]:
        """The latest jobs, the newest first."""
        with warnings.catch_warnings():
            # The SDK warns, by a method that Python will drop, that there are fewer fields.
            warnings.simplefilter("ignore", DeprecationWarning)
            found = self.ask(
                "its pipeline jobs",
                lambda: aiplatform.PipelineJob.list(
                    filter=f'pipeline_name="{NAME}"',
                    order_by="create_time desc",
                    enable_simple_view=True,
                ),
            )
        return list(found)[:_LATEST]

    def cancel(self, job_id: str) -> None:
        """Ask for the end of a job and of its steps.

        Raises:
            InputError: there is none, or it has ended.
        """
        job = self.job(job_id)
        with vertex_errors(f"pipeline job {job_id}"):
            job.cancel()

    def training_jobs(self, job: Any) -> list[str]:
        """Numbers of the custom jobs that a pipeline job has started to train, the newest first.

        The launcher tells its own when training is over; a person wants its lines before. Vertex AI
        gives all that a run makes the same label
        (https://cloud.google.com/vertex-ai/docs/pipelines/understand-pipeline-cost-labels).
        """
        if not (mark := dict(job.labels).get(BILLING)):
            return []
        client = job_client()
        request = {
            "parent": f"projects/{self.cloud.home.project}/locations/{self.cloud.home.region}",
            "filter": f'display_name="{TRAINING_JOB}"',
            "page_size": _LISTED,
        }

        def listed() -> list[Any]:
            # Pages come as they are asked for; the newest jobs are in the first ones.
            return list(itertools.islice(client.list_custom_jobs(request=request), _LISTED))

        found = self.ask("its custom jobs", listed)
        return [
            one.name.rpartition("/")[2] for one in found if dict(one.labels).get(BILLING) == mark
        ]

    def ask(self, what: str, request: Callable[[], Answer]) -> Answer:
        """The answer, with patience for a service that can not give it now.

        Raises:
            InputError: it refuses, or can not for too long.
        """
        begun, pause = time.monotonic(), self._patience.pause
        while True:
            with vertex_errors(what):
                try:
                    return request()
                except _PASSING:
                    if time.monotonic() - begun + pause > self._patience.seconds:
                        raise
            time.sleep(pause)
            pause = min(2 * pause, 60.0)


def job_client() -> Any:
    """The API's own client of custom and tuning jobs, as the SDK is signed in."""
    return aiplatform.initializer.global_config.create_client(
        client_class=aiplatform.utils.JobClientWithOverride
    )


def check_display_name(name: str) -> None:
    """Raise `InputError` unless Vertex AI takes it; it takes any text of some length."""
    if len(name) > _LONGEST_NAME or any(ord(one) < ord(" ") for one in name):
        raise InputError(
            f"display name {name[:40]!r}{'…' if len(name) > 40 else ''}: has {len(name)} "
            f"characters, expected at most {_LONGEST_NAME}, without line breaks"
        )


def check_cron(text: str) -> None:
    """Raise `InputError` unless it is a time as Vertex AI's schedules take it."""
    zone, fields = "", text.split()
    if fields and re.match(r"(CRON_)?TZ=", fields[0]):
        zone, *fields = fields
    fits = len(fields) == 5 and all(re.fullmatch(r"[\w*?/,-]+", one) for one in fields)
    if not fits or (zone and not re.fullmatch(r"(CRON_)?TZ=[\w+-]+(/[\w+-]+)*", zone)):
        raise InputError(
            f"schedule {text!r}: expected five fields of cron, a time zone before them if it is "
            "not UTC: '0 3 * * *' or 'TZ=Europe/Berlin 0 3 * * 1'"
        )
