"""`python -m pipeline.run`: run the DAG, by KFP's local runner or on a cluster."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.clusters.flags import add_cluster_flags, endpoint_of, target_of
from pipeline.clusters.following import Pace
from pipeline.clusters.running import pod_settings, run_on_cluster
from pipeline.local_run import Place, run_pipeline
from pipeline.parameters import configured
from pipeline.report import Run, final_table
from pipeline.run_folder import with_whole_names
from pipeline.targets.docker import docker_runner, docker_target, memory_limits
from pipeline.targets.local import local_runner, local_target
from pipeline.targets.step_containers import StepContainers
from pipeline.vertex.flags import add_run_flags, add_vertex_flags, given_flags
from trainer.errors import InputError, reported
from trainer.parameter import nearest
from trainer.progress import duration

CLUSTERS = ("kind", "kfp")
"""Targets where KFP runs the DAG, not this process."""
VERTEX = "vertex"


def end_children(number: int, _frame: Any) -> NoReturn:
    """End the running step too, which would otherwise go on without a parent."""
    if StepContainers.current:
        StepContainers.current.stop()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            _terminate_below(task / "children")
    os._exit(128 + number)


def _terminate_below(children: Path) -> None:
    for child in children.read_text().split():
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{child}/task").iterdir():
                _terminate_below(task / "children")
            os.kill(int(child), signal.SIGTERM)


def _place(options: argparse.Namespace) -> Place:
    if options.target == "docker":
        images = docker_target(options.gpu)
        limits = memory_limits(options.memory)
        return Place(images, functools.partial(docker_runner, images, limits))
    return Place(local_target(), local_runner)


def _check_target(options: argparse.Namespace) -> None:
    """Raise `InputError` unless there is such a target and it takes the settings that are given."""
    targets = ("local", "docker", *CLUSTERS, VERTEX)
    if options.target not in targets:
        raise InputError(
            f"TARGET is {options.target!r}, expected one of {', '.join(targets)}"
            f"{nearest(options.target, targets)}"
        )
    if options.target != "docker" and (options.memory or options.gpu):
        raise InputError("limits of memory and --gpu are for TARGET=docker")
    if options.target not in CLUSTERS and (options.host or options.kfp):
        raise InputError(f"KFP_HOST and KFP are for TARGET={' and TARGET='.join(CLUSTERS)}")
    if options.target != VERTEX and (given := given_flags(options)):
        raise InputError(f"for TARGET=vertex alone: {', '.join(given)}")
    if options.target == "kind" and options.host:
        raise InputError("TARGET=kind is the cluster of make kind-up: for KFP_HOST give TARGET=kfp")
    if options.target == "kfp" and not options.host:
        raise InputError("TARGET=kfp: KFP_HOST is missing, the address of KFP's API or pages")


def _run_on_cluster(options: argparse.Namespace, parameters: dict[str, Any]) -> Run | None:
    runs = options.runs.resolve()
    target, parameters = target_of(options, parameters, runs, not options.no_cache)
    pace = Pace(start_seconds=pod_settings(options.kfp).start_seconds)
    return run_on_cluster(endpoint_of(options), target, parameters, runs, options.experiment, pace)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="pipeline/configs/sample.yaml", help="YAML file")
    parser.add_argument("--data", default="", help="data source, in place of the file's")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", dest="settings",
        help="parameters, in place of the file's: epochs=3 model.cluster_size=32",
    )  # fmt: skip
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs")
    parser.add_argument(
        "--target",
        default="local",
        help="local (processes of this environment), docker, kind (the cluster of make kind-up), "
        "kfp (any other) or vertex (Vertex AI)",
    )
    parser.add_argument(
        "--memory", nargs="*", default=[], metavar="STEP=SIZE",
        help="docker: limits of steps' memory, train=6g statistics=2g",
    )  # fmt: skip
    parser.add_argument(
        "--gpu", action="store_true", help="docker: train and evaluate on this machine's GPUs"
    )
    add_cluster_flags(parser)
    add_vertex_flags(parser)
    add_run_flags(parser)
    parser.add_argument("--no-cache", action="store_true", help="run every step anew")
    options = parser.parse_args(arguments)
    elsewhere = (*CLUSTERS, VERTEX)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Elsewhere nothing of this process's is to be ended: it says what goes on.
        signal.signal(
            number, signal.default_int_handler if options.target in elsewhere else end_children
        )
    with reported():
        _check_target(options)
        parameters = configured(options.config, options.settings, options.data)
        if options.target in CLUSTERS:
            on_cluster = _run_on_cluster(options, parameters)
            if on_cluster is None:
                print("\ndone: the results are on the cluster, see its pages")
                return
            _show(on_cluster)
            return
        if options.target == VERTEX:
            # Its libraries take seconds to import.
            from pipeline.vertex.command import run_command  # noqa: PLC0415

            if on_vertex := run_command(options, parameters):
                _show(on_vertex)
            return
        place, parameters = _place(options), with_whole_names(parameters)
        try:
            run = run_pipeline(parameters, options.runs.resolve(), not options.no_cache, place)
        except KeyboardInterrupt:
            print("\ninterrupted: start it again, finished steps and checkpoints are kept")
            raise SystemExit(130) from None
        _show(run)


def _show(run: Run) -> None:
    print(f"\n── done in {duration(run.wall_seconds)} " + "─" * 54)
    print(final_table(run))


if __name__ == "__main__":
    main()
