"""`python -m pipeline.clusters.manage`: pipelines, runs and schedules of a KFP deployment."""

from __future__ import annotations

import argparse
import datetime
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.clusters.endpoint import Endpoint
from pipeline.clusters.flags import add_cluster_flags, endpoint_of, target_of
from pipeline.clusters.following import WELL, Following, Pace
from pipeline.clusters.tools import interruptible
from pipeline.compiled_file import compile_target
from pipeline.console import Console
from pipeline.image_names import code_digest
from pipeline.parameters import configured
from pipeline.training_pipeline import NAME
from trainer.errors import InputError, reported

CHANGES = {"pause": "paused", "resume": "resumed", "delete": "deleted"}


def _upload(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        package, _ = _compiled(options, Path(scratch))
        version = options.name or f"code {code_digest()}"
        pipeline, _ = endpoint_of(options).upload(package, NAME, version)
        print(f"pipeline {NAME} ({pipeline}) has version {version}")


def _schedule(options: argparse.Namespace) -> None:
    endpoint = endpoint_of(options)
    name = options.name or NAME
    if options.when in CHANGES:
        endpoint.change_schedule(name, options.when)
        print(f"recurring run {name}: {CHANGES[options.when]}")
        return
    if not options.when:
        for one in endpoint.schedules():
            print(f"{one.display_name:<40} {one.status or one.mode!s:<10} {_when(one.trigger)}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        package, parameters = _compiled(options, Path(scratch))
        endpoint.schedule(package, name, parameters, options.experiment, options.when)
    print(f"recurring run {name}: {options.when}")


def _runs(options: argparse.Namespace) -> None:
    for run in endpoint_of(options).runs():
        begun = run.created_at
        time = f"{begun:%Y-%m-%d %H:%M}" if isinstance(begun, datetime.datetime) else ""
        print(f"{run.run_id:<36}  {run.state or ''!s:<10}  {time:<16}  {run.display_name}")


def _follow(options: argparse.Namespace) -> None:
    endpoint = endpoint_of(options)
    run_id = _run_id(options)
    with tempfile.TemporaryDirectory() as scratch:
        console = Console(sys.stdout, Path(scratch) / "log")
        with console:
            following = Following(endpoint, run_id, console, Pace(start_seconds=math.inf))
            state = str(following.to_the_end().state).upper()
    if following.terminated:
        raise InputError(f"run {run_id} was terminated")
    if state not in WELL:
        step = f": step {console.failed} failed" if console.failed else ""
        raise InputError(f"run {run_id} ended as {state}{step}: {console.error or 'see its log'}")
    print(f"run {run_id} ended as {state}")


def _terminate(options: argparse.Namespace) -> None:
    endpoint: Endpoint = endpoint_of(options)
    run_id = _run_id(options)
    endpoint.terminate(run_id)
    print(f"run {run_id} is being ended; checkpoints stay, a new run goes on there")


def _run_id(options: argparse.Namespace) -> str:
    if not options.run:
        raise InputError("RUN is missing: make kfp-runs lists the runs and their ids")
    return str(options.run)


def _compiled(options: argparse.Namespace, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The compiled pipeline with the configuration as its defaults, and the parameters."""
    parameters = configured(options.config, options.settings)
    target, parameters = target_of(options, parameters, options.runs.resolve())
    package = folder / "pipeline.yaml"
    compile_target(target, package, parameters)
    return package, parameters


def _when(trigger: Any) -> str:
    if trigger is None:
        return ""
    if trigger.cron_schedule is not None:
        return str(trigger.cron_schedule.cron)
    return f"every {trigger.periodic_schedule.interval_second}"


COMMANDS = {
    "upload": (_upload, "add a version of the pipeline"),
    "schedule": (_schedule, "run it again and again; without WHEN: list; pause, resume, delete"),
    "runs": (_runs, "list the latest runs"),
    "follow": (_follow, "follow a run to its end"),
    "terminate": (_terminate, "end a run"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "command", choices=COMMANDS,
        help="; ".join(f"{name}: {words}" for name, (_, words) in COMMANDS.items()),
    )  # fmt: skip
    parser.add_argument("--run", default="", help="follow, terminate: id of the run")
    parser.add_argument("--name", default="", help="of the version, or of the recurring run")
    parser.add_argument(
        "--when", default="", help="schedule: `every SECONDS`, six fields of cron, or "
        + ", ".join(CHANGES),
    )  # fmt: skip
    parser.add_argument("--config", default="pipeline/configs/sample.yaml", help="YAML file")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", dest="settings")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs")
    add_cluster_flags(parser)
    options = parser.parse_args(arguments)
    with reported(), interruptible("what runs on the cluster goes on"):
        COMMANDS[options.command][0](options)


if __name__ == "__main__":
    main()
