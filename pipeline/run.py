"""`python -m pipeline.run`: run the DAG on this machine with KFP's local runner."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
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

from components.download.plan import is_release
from components.download.step import SAMPLE
from pipeline.console import Console
from pipeline.parameters import CONFIGS, pipeline_parameters
from pipeline.report import Run, final_table, write_report
from pipeline.results import RecordingCache
from pipeline.targets.docker import docker_runner, docker_target, memory_limits
from pipeline.targets.local import local_runner, local_target
from pipeline.targets.step_containers import StepContainers
from pipeline.training_pipeline import Target, build
from trainer.configuration_file import merged, parse_settings, read_configuration
from trainer.errors import InputError, reported
from trainer.files import local_path, read_json, write_json
from trainer.progress import duration

STATE = ".pipeline"
"""What outlives a run, below the folder of runs: data, checkpoints, KFP's cache."""


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
    parameters = parameters | {
        "destination": _absolute(parameters["destination"]) or str(state / "data"),
        "checkpoint_root": _absolute(parameters["checkpoint_root"]) or str(state / "checkpoints"),
    }
    with place.runner(parameters, runs) as runner:
        folder = _new_run_folder(runs)
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


def _absolute(place: str) -> str:
    """A folder by its whole name, as steps start elsewhere; a URI, or nothing, as it is."""
    return str(Path(place).resolve()) if place and "://" not in place else place


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


def _new_run_folder(runs: Path) -> Path:
    """`runs/<time>`; two runs that start in one second get two folders."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{runs}: runs can not be put there ({error.strerror})") from None
    stamp = f"{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = runs / f"{stamp}{suffix}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise InputError(f"{runs / stamp}: there are 99 runs of this second already")


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


def _place(target: str, memory: list[str], gpu: bool) -> Place:
    if target == "docker":
        images = docker_target(gpu)
        return Place(images, functools.partial(docker_runner, images, memory_limits(memory)))
    if target != "local":
        raise InputError(
            f"TARGET is {target!r}, expected local or docker (for Vertex AI and Kubernetes: make "
            "compile)"
        )
    if memory or gpu:
        raise InputError("limits of memory and --gpu are for TARGET=docker")
    return Place(local_target(), local_runner)


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
        "--target", default="local", help="local (processes of this environment) or docker"
    )
    parser.add_argument(
        "--memory", nargs="*", default=[], metavar="STEP=SIZE",
        help="docker: limits of steps' memory, train=6g statistics=2g",
    )  # fmt: skip
    parser.add_argument(
        "--gpu", action="store_true", help="docker: train and evaluate on this machine's GPUs"
    )
    parser.add_argument("--no-cache", action="store_true", help="run every step anew")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end_children)
    with reported():
        place = _place(options.target, options.memory, options.gpu)
        file = read_configuration(options.config, CONFIGS)
        configuration = merged(file, parse_settings(options.settings))
        if options.data:
            configuration["data_source"] = options.data
        parameters = pipeline_parameters(configuration)
        source, champion = parameters["data_source"], parameters["champion"]
        if source != SAMPLE and not is_release(source):
            parameters["data_source"] = _absolute(source)
        if not champion.startswith("projects/"):
            parameters["champion"] = _absolute(champion)
        try:
            run = run_pipeline(parameters, options.runs.resolve(), not options.no_cache, place)
        except KeyboardInterrupt:
            print("\ninterrupted: start it again, finished steps and checkpoints are kept")
            raise SystemExit(130) from None
        print(f"\n── done in {duration(run.wall_seconds)} " + "─" * 54)
        print(final_table(run))


if __name__ == "__main__":
    main()
