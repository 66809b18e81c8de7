"""`python -m pipeline.run`: run the DAG, by KFP's local runner or on a cluster."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

from kfp import local

from pipeline.clusters.flags import add_cluster_flags, endpoint_of, target_of
from pipeline.clusters.following import Pace
from pipeline.clusters.running import pod_settings, run_on_cluster
from pipeline.console import Console
from pipeline.parameters import CONFIGS, pipeline_parameters
from pipeline.report import Run, final_table, write_report
from pipeline.results import RecordingCache
from pipeline.run_folder import STATE, new_run_folder, with_places, with_whole_names
from pipeline.targets.docker import docker_runner, docker_target, memory_limits
from pipeline.targets.local import local_runner, local_target
from pipeline.targets.step_containers import StepContainers
from pipeline.training_pipeline import Target, build
from trainer.configuration_file import merged, parse_settings, read_configuration
from trainer.errors import InputError, reported
from trainer.files import local_path, read_json, write_json
from trainer.parameter import nearest
from trainer.progress import duration

CLUSTERS = ("kind", "kfp")
"""Targets where KFP runs the DAG, not this process."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run's steps run.

    Attributes:
        target: what is in the DAG for it.
        runner: KFP's, while it is in use; of the run's parameters and the folder of runs.
    """

    target: Target
    runner: Callable[[dict[str, Any], Path], AbstractContextManager[Any]]


def run_pipeline(
    parameters: dict[str, Any], runs: Path, caching: bool = True, place: Place | None = None
) -> Run:
    """Run the DAG and write the run's folder.

    Args:
        parameters: of the pipeline, checked, all of them.
        runs: folder of runs; a new one is made below it, and `.pipeline` for what outlives runs.
        caching: whether steps whose inputs are those of an earlier run are skipped.
        place: where steps run; by default in processes of this environment.

    Raises:
        InputError: a step failed; the message is the step's own error line.
    """
    place = place or Place(local_target(), local_runner)
    start = time.monotonic()
    state = runs / STATE
    parameters = with_places(parameters, runs)
    with place.runner(parameters, runs) as runner:
        folder = new_run_folder(runs)
        (folder / "artifacts").mkdir()  # Docker would make it as root
        write_json(folder / "parameters.json", parameters)
        print(f"run {folder}")
        local.init(
            runner=runner,
            pipeline_root=str(folder / "artifacts"),
            enable_caching=True,
            cache_root=str(state / "cache"),
            raise_on_error=False,
        )
        console = Console(sys.stdout, folder / "pipeline.log")
        results = RecordingCache(str(state / "cache"), console.skipped, caching)
        results.install()
        with console, contextlib.redirect_stdout(console):
            build(place.target)(**parameters)
    if console.failed:
        _fail(console, folder)
    verdict = results.outputs["verdict"].metadata
    run = Run(
        folder=folder,
        parameters=parameters,
        seconds=console.seconds,
        artifacts=_artifacts(results, parameters, verdict["blessed"]),
        reason=verdict["reason"],
        blessed=verdict["blessed"],
        wall_seconds=time.monotonic() - start,
    )
    for name, artifact in run.artifacts.items():
        if artifact:
            (folder / name).symlink_to(artifact)
    write_report(run)
    return run


def _artifacts(
    results: RecordingCache, parameters: dict[str, Any], blessed: bool
) -> dict[str, str]:
    """Folders by the artifact's name; empty for the serving model that was not blessed."""
    names = ("example_statistics", "trained_model", "evaluation", "serving_model")
    found = {
        name: results.folder(name) if name != "serving_model" or blessed else "" for name in names
    }
    # The download step always runs, so its output is not in the cache; the folder of its manifest
    # follows from the data alone.
    statistics = Path(found["example_statistics"]) / "statistics.json"
    fingerprint = read_json(statistics)["data_fingerprint"]
    examples = local_path(parameters["destination"]) / "manifests" / fingerprint
    return {"examples": str(examples)} | found


def _fail(console: Console, folder: Path) -> NoReturn:
    log = folder / "pipeline.log"
    if console.error:
        raise InputError(f"step {console.failed} failed: {console.error} (log: {log})")
    tail = "\n".join(console.tail)
    print(f"{tail}\n", file=sys.stderr)
    raise InputError(f"step {console.failed} failed, see the lines above (log: {log})")


def _end_children(number: int, _frame: Any) -> NoReturn:
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
    targets = ("local", "docker", *CLUSTERS)
    if options.target not in targets:
        raise InputError(
            f"TARGET is {options.target!r}, expected one of {', '.join(targets)} (for Vertex AI: "
            f"make compile){nearest(options.target, targets)}"
        )
    if options.target != "docker" and (options.memory or options.gpu):
        raise InputError("limits of memory and --gpu are for TARGET=docker")
    if options.target not in CLUSTERS and (options.host or options.kfp):
        raise InputError(f"KFP_HOST and KFP are for TARGET={' and TARGET='.join(CLUSTERS)}")
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
        help="local (processes of this environment), docker, kind (the cluster of make kind-up) or "
        "kfp (any other)",
    )
    parser.add_argument(
        "--memory", nargs="*", default=[], metavar="STEP=SIZE",
        help="docker: limits of steps' memory, train=6g statistics=2g",
    )  # fmt: skip
    parser.add_argument(
        "--gpu", action="store_true", help="docker: train and evaluate on this machine's GPUs"
    )
    add_cluster_flags(parser)
    parser.add_argument("--no-cache", action="store_true", help="run every step anew")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # On a cluster nothing of this process's is to be ended: it says what goes on.
        signal.signal(
            number, signal.default_int_handler if options.target in CLUSTERS else _end_children
        )
    with reported():
        _check_target(options)
        file = read_configuration(options.config, CONFIGS)
        configuration = merged(file, parse_settings(options.settings))
        if options.data:
            configuration["data_source"] = options.data
        parameters = pipeline_parameters(configuration)
        if options.target in CLUSTERS:
            on_cluster = _run_on_cluster(options, parameters)
            if on_cluster is None:
                print("\ndone: the results are on the cluster, see its pages")
                return
            _show(on_cluster)
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
