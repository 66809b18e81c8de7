"""Follow a pipeline job to its end, as a local run is followed: step by step, with their lines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterable
from typing import Any

from google.cloud.aiplatform_v1.types import PipelineState, PipelineTaskDetail

from pipeline.console import Console
from pipeline.training_pipeline import EXTRA_STEPS, STEPS
from pipeline.vertex.jobs import Jobs
from pipeline.vertex.logs import Logs

Task = PipelineTaskDetail.State
FINAL = (
    PipelineState.PIPELINE_STATE_SUCCEEDED,
    PipelineState.PIPELINE_STATE_FAILED,
    PipelineState.PIPELINE_STATE_CANCELLED,
)
_BEGUN = (Task.RUNNING, Task.CANCEL_PENDING, Task.CANCELLING)
_ENDED = (Task.SUCCEEDED, Task.FAILED, Task.CANCELLED)
_WITH_TRAINING = 2
"""Jobs of the train step: the launcher and what it has launched."""
RESOURCES = "gcp_resources"
"""Output of the custom job's launcher: the jobs that it started, as JSON."""


@dataclasses.dataclass
class _Step:
    state: Any = None
    jobs: tuple[str, ...] = ()
    ended: float = 0.0


class Following:
    """A job that is followed.

    Args:
        jobs: of the project.
        job_id: of the job.
        console: what a person sees, and the log.
        poll_seconds: between two looks.
        late_seconds: that lines may come after the end of what said them.

    Attributes:
        running: steps at work at the last look.
    """

    def __init__(
        self,
        jobs: Jobs,
        job_id: str,
        console: Console,
        poll_seconds: float = 10.0,
        late_seconds: float = 30.0,
    ) -> None:
        self._jobs, self._job_id, self._console = jobs, job_id, console
        self._poll_seconds, self._late_seconds = poll_seconds, late_seconds
        self._logs = Logs(jobs.cloud)
        self._steps: dict[str, _Step] = {}
        self._said = ""
        self.running: list[str] = []

    def to_the_end(self) -> Any:
        """The job when it has ended, however it did.

        Raises:
            InputError: Vertex AI does not answer any more, or the credentials have expired.
        """
        while True:
            job = self._jobs.job(self._job_id).gca_resource
            tasks = steps_of(job)
            self.running = [name for name, one in tasks.items() if one.state in _BEGUN]
            self._show_late()
            for name, task in tasks.items():
                self._look_at(name, task, job)
            if job.state in FINAL:
                self._blame(job)
                return job
            self._say_waiting(job)
            time.sleep(self._poll_seconds)

    def _look_at(self, name: str, task: Any, job: Any) -> None:
        step = self._steps.setdefault(name, _Step())
        step.jobs = tuple(dict.fromkeys((*step.jobs, *_jobs_of(task))))
        if name == "train" and task.state in _BEGUN and len(step.jobs) < _WITH_TRAINING:
            more = self._jobs.training_jobs(job)
            step.jobs = tuple(dict.fromkeys((*step.jobs, *more)))
        if step.state == task.state and task.state in (*_ENDED, Task.SKIPPED, Task.NOT_TRIGGERED):
            return
        if task.state == Task.SKIPPED:
            self._console.skipped(name)
        elif task.state in _BEGUN or (task.state in _ENDED and task.start_time):
            if step.state not in _BEGUN:
                self._console.started(name)
            self._show(step)
            if task.state in _ENDED:
                step.ended = time.monotonic()
                while task.state == Task.FAILED and not self._console.error and self._is_late(step):
                    time.sleep(max(self._poll_seconds, 0.01))
                    self._show(step)
                self._end(name, task)
        step.state = task.state

    def _show(self, step: _Step) -> None:
        """Print what the step's containers have said since the last look."""
        for number in step.jobs:
            for line in self._logs.new_lines(number):
                self._console.write(f"{line}\n")
        if self._logs.refusal and not self._said:
            self._said = self._logs.refusal
            self._console.say(f"the steps' logs can not be read here: {self._said}")

    def _show_late(self) -> None:
        """Print what came after the steps that said it had ended."""
        for step in self._steps.values():
            if step.ended and self._is_late(step):
                self._show(step)

    def _is_late(self, step: _Step) -> bool:
        if not step.jobs:
            return False
        return time.monotonic() - step.ended < self._late_seconds and not self._logs.refusal

    def _end(self, name: str, task: Any) -> None:
        self._console.finished(name, seconds_of(task), task.state == Task.SUCCEEDED)
        # The step's own `error:` line says more than what Vertex AI makes of it.
        if task.state == Task.FAILED and not self._console.error and task.error.message:
            self._console.error = " ".join(task.error.message.split())[:400]

    def _blame(self, job: Any) -> None:
        """What failed where no step did: the job as a whole."""
        well = PipelineState.PIPELINE_STATE_SUCCEEDED
        if job.state != well and not self._console.failed and job.error.message:
            self._console.error = " ".join(job.error.message.split())[:400]

    def _say_waiting(self, job: Any) -> None:
        """Say once for each reason that nothing goes on."""
        words = {
            PipelineState.PIPELINE_STATE_QUEUED: "queued: as many runs as the quota allows are on",
            PipelineState.PIPELINE_STATE_PENDING: "waits to be started",
            PipelineState.PIPELINE_STATE_PAUSED: "paused: resume it in the console",
            PipelineState.PIPELINE_STATE_CANCELLING: "is being cancelled",
        }.get(job.state, "")
        if words and words != self._said:
            self._console.say(f"the run {words}")
            self._said = words


def steps_of(job: Any) -> dict[str, Any]:
    """The newest detail of each step of ours, in the order of their starts."""
    known = (*STEPS, *EXTRA_STEPS)
    found = {}
    for one in sorted(job.job_detail.task_details, key=_when):
        name = one.task_name.replace("-", "_")  # KFP's names have no underscores
        if name in known:
            found[name] = one
    return found


def seconds_of(task: Any) -> float:
    """That a step took; 0: it has no times."""
    if not task.start_time or not task.end_time:
        return 0.0
    return max(0.0, float((task.end_time - task.start_time).total_seconds()))


def _when(task: Any) -> tuple[str, int]:
    moment = task.start_time or task.create_time
    return (moment.isoformat() if moment else "~", int(task.task_id))


def _jobs_of(task: Any) -> tuple[str, ...]:
    """Numbers of the custom jobs that a step runs in: its container's, and what that started."""
    container = task.executor_detail.container_detail
    names = [container.main_job, *container.failed_main_jobs]
    with contextlib.suppress(ValueError, TypeError, AttributeError, LookupError):
        resources = dict(task.execution.metadata or {})[f"output:{RESOURCES}"]
        names += [
            one["resourceUri"]
            for one in json.loads(resources)["resources"]
            if one["resourceType"] == "CustomJob"
        ]
    return tuple(dict.fromkeys(_numbers(names)))


def _numbers(names: Iterable[str]) -> Iterable[str]:
    return (name.rpartition("/")[2] for name in names if "/customJobs/" in name)
