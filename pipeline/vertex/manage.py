"""`python -m pipeline.vertex.manage`: runs, schedules, tuning and endpoints of a project."""

from __future__ import annotations

import argparse
import datetime
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.clusters.tools import interruptible
from pipeline.compiled_file import compile_target
from pipeline.parameters import configured
from pipeline.report import final_table
from pipeline.run_folder import new_run_folder
from pipeline.training_pipeline import NAME, STEPS
from pipeline.vertex import command, endpoints, flags, tuning
from pipeline.vertex.check_file import check_vertex_file
from pipeline.vertex.jobs import Jobs, check_cron
from pipeline.vertex.plan import expected_hours, plan_text
from pipeline.vertex.preflight import preflight
from pipeline.vertex.prices import PRICES, read_prices
from pipeline.vertex.running import console_link, follow_to_results, parameters_of
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
    run = _run(options)
    jobs = _jobs(options)
    job = jobs.job(run).gca_resource
    print(console_link(jobs, run), flush=True)
    folder = new_run_folder(options.runs.resolve())
    parameters = parameters_of(job)
    found = follow_to_results(jobs, run, folder, parameters)
    print(final_table(found))


def _cancel(options: argparse.Namespace) -> None:
    run = _run(options)
    _jobs(options).cancel(run)
    print(
        f"run {run} is being cancelled, its training too; checkpoints stay, a new run goes on "
        "there. What it deployed goes on: "
        f"make vertex-undeploy PROJECT={options.project} REGION={options.region} ENDPOINT=…"
    )


def _schedule(options: argparse.Namespace) -> None:
    name = options.name or NAME
    if options.when in CHANGES:
        _jobs(options).change_schedule(name, options.when)
        print(f"schedule {name}: {CHANGES[options.when]}")
        return
    if not options.when:
        for one in _jobs(options).schedules():
            found = one.gca_resource
            following = _minute(found.next_run_time) if found.next_run_time else ""
            print(f"{found.display_name:<40} {found.state.name:<10} {found.cron:<24} {following}")
        return
    check_cron(options.when)
    home = flags.home_of(options)
    target = command.vertex_target_of(options, home)
    parameters = flags.with_places(configured(options.config, options.settings, options.data), home)
    flags.check_parameters(parameters, target.settings)
    prices = read_prices(options.prices or PRICES)
    hours = expected_hours(options.hours, (*STEPS, *target.extra_steps))
    print(plan_text(target, prices, parameters, hours))
    print(f"\neach time that {options.when} says, until WHEN=delete", flush=True)
    if options.dry_run:
        return
    jobs = Jobs(command.connect(home))
    preflight(jobs.cloud, target)
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / "pipeline.yaml"
        compile_target(target, package)
        check_vertex_file(package)
        jobs.schedule(package, name, options.when, parameters, target.labels())
    print(f"schedule {name}: {options.when}, one run at a time; WHEN=delete ends it")


def _tune(options: argparse.Namespace) -> None:
    home = flags.home_of(options)
    target = command.vertex_target_of(options, home)
    moment = datetime.datetime.now(datetime.UTC)
    study = tuning.Study(
        options.name or f"nextvlad-tuning-{moment:%Y%m%d-%H%M%S}",
        options.tune, options.trials, options.parallel,
    )  # fmt: skip
    tuning.check_study(study)
    prices = read_prices(options.prices or PRICES)
    hours = expected_hours(options.hours, ("train",)).get("train")
    print(tuning.plan_text(target, study, prices, hours), flush=True)
    if options.dry_run:
        return
    run = _run(options)
    jobs = Jobs(command.connect(home))
    job = jobs.job(run).gca_resource
    arguments = tuning.trainer_arguments(job, parse_settings(options.settings))
    preflight(jobs.cloud, target, parallel=study.parallel)
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
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs")
    flags.add_vertex_flags(parser)
    flags.add_run_flags(parser)
    options = parser.parse_args(arguments)
    with reported(), interruptible("what runs on Vertex AI goes on"):
        COMMANDS[options.command][0](options)


if __name__ == "__main__":
    main()
