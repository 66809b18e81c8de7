"""Run the DAG on Vertex AI and leave the folder that a local run leaves."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.cloud.aiplatform_v1.types import PipelineState

from components.download.bucket_folder import local_folder
from pipeline.compiled_file import compile_target
from pipeline.console import Console
from pipeline.parameters import pipeline_parameters
from pipeline.report import Run, write_report
from pipeline.run_folder import new_run_folder
from pipeline.targets.vertex import VertexTarget
from pipeline.training_pipeline import NAME
from pipeline.vertex.check_file import check_vertex_file
from pipeline.vertex.following import Following, seconds_of, steps_of
from pipeline.vertex.jobs import Jobs
from pipeline.vertex.plan import planned_steps
from pipeline.vertex.prices import Prices
from trainer.config import parse_overrides
from trainer.configuration_file import OVERRIDES, merged
from trainer.errors import InputError
from trainer.files import atomic_directory, write_json

ARTIFACTS = ("examples", "example_statistics", "trained_model", "evaluation", "serving_model")
_VERDICT = "verdict"
_STATE = "PIPELINE_STATE_"


@dataclasses.dataclass(frozen=True)
class Request:
    """What is run, and how it is followed.

    Attributes:
        target: images, machines, project.
        parameters: of the pipeline, checked, all of them.
        prices: for what is said of costs.
        display_name: in the console; empty: the job's id.
        poll_seconds: between two looks.
    """

    target: VertexTarget
    parameters: Mapping[str, Any]
    prices: Prices
    display_name: str = ""
    poll_seconds: float = 10.0


def run_on_vertex(jobs: Jobs, request: Request, runs: Path) -> Run:
    """Submit the DAG, follow it to its end, and write the run's folder.

    Raises:
        InputError: a step failed, the run was cancelled, or its results can not be had.
        SystemExit: with code 130, interrupted; the run goes on.
    """
    folder = new_run_folder(runs)
    package = folder / "pipeline.yaml"
    compile_target(request.target, package)
    check_vertex_file(package)
    job_id = f"{NAME}-{folder.name.lower().replace('_', '-')}-{uuid.uuid4().hex[:6]}"
    labels = request.target.labels()
    _note(jobs, job_id, folder)
    try:
        jobs.submit(package, job_id, request.parameters, request.display_name, labels)
    except KeyboardInterrupt:
        print(f"\ninterrupted: it may have been started. {_commands(jobs, job_id)}")
        raise SystemExit(130) from None
    print(f"run {folder}\n    {console_link(jobs, job_id)}", flush=True)
    rates = {one.name: one.hour for one in planned_steps(request.target, request.prices)}
    costs = Costs(rates, request.prices.pipeline_run, request.prices.currency)
    return follow_to_results(jobs, job_id, folder, request.parameters, costs, request.poll_seconds)


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a run costs.

    Attributes:
        rates: prices of an hour by step; None: unknown.
        once: of the run itself.
        currency: of both.
    """

    rates: Mapping[str, float | None]
    once: float
    currency: str


def follow_to_results(
    jobs: Jobs,
    job_id: str,
    folder: Path,
    parameters: Mapping[str, Any],
    costs: Costs | None = None,
    poll_seconds: float = 10.0,
) -> Run:
    """Follow a run to its end, and have its results in a folder of runs.

    Args:
        jobs: of the project.
        job_id: of the run.
        folder: of the run, which is there.
        parameters: of the pipeline.
        costs: of the run's machines; None: not known here.
        poll_seconds: between two looks.

    Raises:
        InputError: a step failed, the run was cancelled, or its results can not be had.
        SystemExit: with code 130, interrupted; the run goes on.
    """
    begun = time.monotonic()
    write_json(folder / "parameters.json", dict(parameters))
    _note(jobs, job_id, folder)
    with Console(sys.stdout, folder / "pipeline.log") as console:
        following = Following(jobs, job_id, console, poll_seconds)
        try:
            job = following.to_the_end()
        except KeyboardInterrupt:
            print(f"\ninterrupted: {goes_on(jobs, job_id, following.running, costs)}")
            raise SystemExit(130) from None
        except InputError as error:
            words = goes_on(jobs, job_id, following.running, costs)
            raise InputError(f"{error}; {words}") from None
    state = job.state.name.removeprefix(_STATE)
    more: dict[str, Any] = {"state": state, "from_cache": console.cached}
    cost = cost_of(job, costs) if costs else 0.0
    if costs:
        more["estimated_cost"] = round(cost, 2)
    _note(jobs, job_id, folder, **more)
    if job.state == PipelineState.PIPELINE_STATE_CANCELLED:
        raise InputError(f"run {job_id} was cancelled (log: {folder / 'pipeline.log'})")
    if job.state != PipelineState.PIPELINE_STATE_SUCCEEDED:
        raise console.failure(f"run {job_id} ended as {state}")
    if costs:
        print(
            f"\nabout {cost:,.2f} {costs.currency} at list prices, the machines' "
            "start-up and what they store not counted",
            flush=True,
        )
    try:
        run = fetched(job, folder, parameters, console.seconds, time.monotonic() - begun)
    except KeyboardInterrupt:
        print(f"\ninterrupted: the run has ended well. {_commands(jobs, job_id)}")
        raise SystemExit(130) from None
    write_report(run)
    return run


def _note(jobs: Jobs, job_id: str, folder: Path, **more: Any) -> None:
    """Leave in the run's folder which run it is, before it is one."""
    home = jobs.cloud.home
    facts = {"job": job_id, "project": home.project, "region": home.region}
    write_json(folder / "vertex.json", facts | more)


def fetched(
    job: Any,
    folder: Path,
    parameters: Mapping[str, Any],
    seconds: Mapping[str, float],
    wall_seconds: float,
) -> Run:
    """Copy a job's artifacts into a run's folder.

    Raises:
        InputError: one is not there any more.
    """
    places = artifacts_of(job)
    verdict = _verdict(job)
    found = {}
    for name in ARTIFACTS:
        if name in places:
            with (
                local_folder(places[name], f"artifact {name}") as copy,
                atomic_directory(folder / name) as partial,
            ):
                shutil.copytree(copy, partial, dirs_exist_ok=True)
            found[name] = str(folder / name)
        elif name != "serving_model":
            raise InputError(f"run {job.name.rpartition('/')[2]}: has no artifact {name}")
    return Run(
        folder=folder,
        parameters=dict(parameters),
        seconds=dict(seconds),
        artifacts={name: found.get(name, "") for name in ARTIFACTS},
        reason=str(verdict.get("reason", "")),
        blessed=bool(verdict.get("blessed", "serving_model" in places)),
        wall_seconds=wall_seconds,
    )


def parameters_of(job: Any, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All parameters of a run, checked; settings are in place of its own.

    Args:
        job: of the run.
        settings: configuration, as `parse_settings` has it.

    Raises:
        InputError: the run is of another pipeline, or a setting that can not be.
    """
    given = dict(job.runtime_config.parameter_values)
    # Numbers come back as floats.
    configuration = {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in given.items()
    }
    configuration[OVERRIDES] = parse_overrides(str(given.get(OVERRIDES, "{}")))
    return pipeline_parameters(merged(configuration, dict(settings or {})))


def artifacts_of(job: Any) -> dict[str, str]:
    """URIs of what the steps have made, by the output's name."""
    found = {}
    for task in steps_of(job).values():
        for name, output in task.outputs.items():
            if output.artifacts:
                found[name] = str(output.artifacts[0].uri)
    return found


def _verdict(job: Any) -> dict[str, Any]:
    task = steps_of(job).get("gate")
    if task is None or _VERDICT not in task.outputs:
        return {}
    return dict(task.outputs[_VERDICT].artifacts[0].metadata or {})


def cost_of(job: Any, costs: Costs) -> float:
    """What the steps that ran have cost at the table's prices, by their times so far."""
    now = datetime.datetime.now(datetime.UTC)
    total = costs.once
    for name, task in steps_of(job).items():
        seconds = seconds_of(task)
        if task.start_time and not task.end_time:
            seconds = max(0.0, (now - task.start_time).total_seconds())
        if task.state.name not in ("SKIPPED", "NOT_TRIGGERED"):
            total += (costs.rates.get(name) or 0.0) * seconds / 3600
    return total


def goes_on(jobs: Jobs, job_id: str, running: list[str], costs: Costs | None) -> str:
    """What becomes of a run that is not followed any more, and what it costs."""
    words = ""
    for name in running:
        rate = costs.rates.get(name) if costs else None
        if costs and rate is not None:
            words += f", step {name} for about {rate:,.2f} {costs.currency} an hour"
    return f"run {job_id} goes on{words}. {_commands(jobs, job_id)}"


def _commands(jobs: Jobs, job_id: str) -> str:
    home = jobs.cloud.home
    where = f"PROJECT={home.project} REGION={home.region} RUN={job_id}"
    return (
        f"make vertex-follow {where} shows it and has its results, make vertex-cancel {where} "
        "ends it"
    )


def console_link(jobs: Jobs, job_id: str) -> str:
    """The run's page in Google Cloud's console."""
    home = jobs.cloud.home
    return (
        f"https://console.cloud.google.com/vertex-ai/locations/{home.region}/pipelines/runs/"
        f"{job_id}?project={home.project}"
    )
