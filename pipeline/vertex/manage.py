"""`python -m pipeline.vertex.manage`: runs, schedules, tuning and endpoints of a project."""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.cloud.aiplatform_v1.types import PipelineState

from pipeline.clusters.tools import interruptible
from pipeline.compiled_file import compile_target
from pipeline.console import Console
from pipeline.parameters import configured
from pipeline.training_pipeline import NAME
from pipeline.vertex import command, endpoints, flags, tuning
from pipeline.vertex.check_file import check_vertex_file
from pipeline.vertex.following import Following
from pipeline.vertex.jobs import Jobs
from pipeline.vertex.preflight import preflight
from pipeline.vertex.running import console_link
from trainer.configuration_file import parse_settings
from trainer.errors import InputError, reported

CHANGES = {"pause": "paused", "resume": "resumed", "delete": "deleted"}
_STATE = "PIPELINE_STATE_"


def _jobs(options: argparse.Namespace, *more: str) -> Jobs:
    """The project's jobs; commands that write there need the bucket, too."""
    return Jobs(command.connect(flags.home_of(options, ("project", "region", *more))))


def _check(options: argparse.Namespace) -> None:
    home = flags.home_of(options)
    target = command.vertex_target_of(options, home)
    preflight(command.connect(home), target)
    print(f"project {home.project} is ready")


def _list(options: argparse.Namespace) -> None:
    for job in _jobs(options).latest():
        one = job.gca_resource
        state = one.state.name.removeprefix(_STATE)
        print(f"{one.name.rpartition('/')[2]:<58}  {state:<10}  {_minute(one.create_time)}")


def _follow(options: argparse.Namespace) -> None:
    jobs, run = _jobs(options), _run(options)
    print(console_link(jobs, run), flush=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        Console(sys.stdout, Path(scratch) / "log") as console,
    ):
        job = Following(jobs, run, console).to_the_end()
    state = job.state.name.removeprefix(_STATE)
    if job.state == PipelineState.PIPELINE_STATE_CANCELLED:
        raise InputError(f"run {run} was cancelled")
    if job.state != PipelineState.PIPELINE_STATE_SUCCEEDED:
        step = f": step {console.failed} failed" if console.failed else ""
        raise InputError(f"run {run} ended as {state}{step}: {console.error or 'see its log'}")
    print(f"run {run} ended as {state}")


def _cancel(options: argparse.Namespace) -> None:
    run = _run(options)
    _jobs(options).cancel(run)
    print(
        f"run {run} is being cancelled, its training too; checkpoints stay, a new run goes on "
        "there. What it deployed goes on: make vertex-undeploy"
    )


def _schedule(options: argparse.Namespace) -> None:
    name = options.name or NAME
    if options.when in CHANGES:
        _jobs(options).change_schedule(name, options.when)
        print(f"schedule {name}: {CHANGES[options.when]}")
        return
    jobs = _jobs(options)
    if not options.when:
        for one in jobs.schedules():
            found = one.gca_resource
            following = _minute(found.next_run_time) if found.next_run_time else ""
            print(f"{found.display_name:<40} {found.state.name:<10} {found.cron:<24} {following}")
        return
    home = jobs.cloud.home
    target = command.vertex_target_of(options, home)
    parameters = flags.with_places(configured(options.config, options.settings, options.data), home)
    flags.check_parameters(parameters, target.settings)
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / "pipeline.yaml"
        compile_target(target, package)
        check_vertex_file(package)
        jobs.schedule(package, name, options.when, parameters, target.labels())
    print(f"schedule {name}: {options.when}, one run at a time; WHEN=delete ends it")


def _tune(options: argparse.Namespace) -> None:
    jobs = _jobs(options)
    home = jobs.cloud.home
    target = command.vertex_target_of(options, home)
    moment = datetime.datetime.now(datetime.UTC)
    study = tuning.Study(
        options.name or f"nextvlad-tuning-{moment:%Y%m%d-%H%M%S}",
        options.tune, options.trials, options.parallel,
    )  # fmt: skip
    tuning.parameter_specs(study.space)  # before anybody is asked anything
    job = jobs.job(_run(options)).gca_resource
    arguments = tuning.trainer_arguments(job, parse_settings(options.settings))
    started = tuning.start(jobs, target, study, arguments)
    number = started.name.rpartition("/")[2]
    where = f"https://console.cloud.google.com/vertex-ai/locations/{home.region}/training/{number}"
    print(f"{study.name}: {study.trials} trials, {study.parallel} at once\n    {where}", flush=True)
    try:
        tuning.follow(jobs, started.name)
    except KeyboardInterrupt:
        raise InputError(
            f"interrupted: the trials go on, gcloud ai hp-tuning-jobs cancel {number} "
            f"--region={home.region} --project={home.project} ends them"
        ) from None


def _endpoint(options: argparse.Namespace) -> None:
    _jobs(options)
    print("\n".join(endpoints.describe(options.endpoint)) or "nothing is deployed there")


def _rollback(options: argparse.Namespace) -> None:
    _jobs(options)
    print("\n".join(endpoints.roll_back(options.endpoint)))


def _undeploy(options: argparse.Namespace) -> None:
    _jobs(options)
    count = endpoints.undeploy(options.endpoint)
    print(f"endpoint {options.endpoint}: {count} versions undeployed and the endpoint deleted; the "
          "models stay in the registry")  # fmt: skip


def _run(options: argparse.Namespace) -> str:
    if not options.run:
        raise InputError("RUN is missing: make vertex-list lists the runs and their ids")
    return str(options.run)


def _minute(moment: Any) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


COMMANDS = {
    "check": (_check, "look whether the project has what a run needs"),
    "list": (_list, "the latest runs"),
    "follow": (_follow, "follow a run to its end"),
    "cancel": (_cancel, "end a run"),
    "schedule": (_schedule, "run again and again; without --when: list; pause, resume, delete"),
    "tune": (_tune, "search parameters on the data of a finished run"),
    "endpoint": (_endpoint, "what an endpoint answers with"),
    "rollback": (_rollback, "its traffic back to the version before"),
    "undeploy": (_undeploy, "take everything off it and delete it"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "command", choices=COMMANDS,
        help="; ".join(f"{name}: {words}" for name, (_, words) in COMMANDS.items()),
    )  # fmt: skip
    parser.add_argument("--run", default="", help="follow, cancel, tune: id of the run")
    parser.add_argument("--name", default="", help="of the schedule, or of the tuning job")
    parser.add_argument(
        "--when", default="", help="schedule: five fields of cron, or " + ", ".join(CHANGES)
    )
    parser.add_argument("--endpoint", default="", help="display name of the endpoint")
    parser.add_argument(
        "--tune", nargs="*", default=[], metavar="NAME=VALUES",
        help="learning_rate=1e-4..1e-2:log cluster_size=64,128",
    )  # fmt: skip
    parser.add_argument("--trials", type=int, default=20, help="of the tuning job, in all")
    parser.add_argument("--parallel", type=int, default=2, help="trials at once")
    parser.add_argument("--config", default="", help="YAML file")
    parser.add_argument("--data", default="", help="data source, in place of the file's")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", dest="settings")
    parser.add_argument("--image", default="", help="with {kind} for cpu, gpu or serving")
    flags.add_vertex_flags(parser)
    options = parser.parse_args(arguments)
    with reported(), interruptible("what runs on Vertex AI goes on"):
        COMMANDS[options.command][0](options)


if __name__ == "__main__":
    main()
