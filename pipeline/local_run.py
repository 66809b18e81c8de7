"""Run a DAG on this machine by one of KFP's local runners, and write the run's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from kfp import local

from pipeline.console import Console
from pipeline.report import Run, write_report
from pipeline.results import RecordingCache
from pipeline.run_folder import STATE, new_run_folder, with_places
from pipeline.targets.local import local_runner, local_target
from pipeline.training_pipeline import Target, build
from trainer.files import local_path, read_json, write_json


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a run's steps run.

    Attributes:
        target: what is in the DAG for it.
        runner: KFP's, while it is in use; of the run's parameters and the folder of runs.
    """

    target: Target
    runner: Callable[[dict[str, Any], Path], AbstractContextManager[Any]]


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a DAG left.

    Attributes:
        folder: of the run.
        results: where its artifacts are.
        seconds: by step that ran.
        wall_seconds: of the whole.
    """

    folder: Path
    results: RecordingCache
    seconds: dict[str, float]
    wall_seconds: float

    def link(self, artifacts: dict[str, str]) -> None:
        """Make links to folders of artifacts, by name, in the run's."""
        for name, artifact in artifacts.items():
            if artifact:
                (self.folder / name).symlink_to(artifact)


def here() -> Place:
    """In processes of this environment."""
    return Place(local_target(), local_runner)


def run_dag(
    make: Callable[[Target], Any],
    parameters: dict[str, Any],
    runs: Path,
    caching: bool,
    place: Place,
) -> Ran:
    """Run a DAG in a new folder of a run.

    Args:
        make: the DAG for a target.
        parameters: of it.
        runs: folder of runs; a new one is made below it, and `.pipeline` for what outlives runs.
        caching: whether steps whose inputs are those of an earlier run are skipped.
        place: where steps run.

    Raises:
        InputError: a step failed; the message is the step's own error line.
    """
    start = time.monotonic()
    state = runs / STATE
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
            make(place.target)(**parameters)
    if console.failed:
        raise console.failure()
    return Ran(folder, results, console.seconds, time.monotonic() - start)


def run_pipeline(
    parameters: dict[str, Any], runs: Path, caching: bool = True, place: Place | None = None
) -> Run:
    """Run the training pipeline and write the run's folder.

    Args:
        parameters: of the pipeline, checked, all of them.
        runs, caching: see `run_dag`.
        place: where steps run; by default in processes of this environment.

    Raises:
        InputError: a step failed; the message is the step's own error line.
    """
    parameters = with_places(parameters, runs)
    ran = run_dag(build, parameters, runs, caching, place or here())
    verdict = ran.results.outputs["verdict"].metadata
    run = Run(
        folder=ran.folder,
        parameters=parameters,
        seconds=ran.seconds,
        artifacts=_artifacts(ran.results, parameters, verdict["blessed"]),
        reason=verdict["reason"],
        blessed=verdict["blessed"],
        wall_seconds=ran.wall_seconds,
    )
    ran.link(run.artifacts)
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
