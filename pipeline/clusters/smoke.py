"""`python -m pipeline.clusters.smoke`: does a cluster do what it should, on the built-in sample?

Four runs: one that succeeds with the metrics of a run on this machine; the same again, from the
cache; one with a step made to fail; one that is terminated.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from components.download.bucket_folder import in_bucket
from components.download.cloud_storage import CloudStorage
from pipeline.clusters.endpoint import Endpoint
from pipeline.clusters.flags import add_cluster_flags, endpoint_of, target_of
from pipeline.clusters.running import run_on_cluster
from pipeline.parameters import CONFIGS, pipeline_parameters
from pipeline.report import Run
from pipeline.run import run_pipeline
from pipeline.targets.kubernetes import KubernetesTarget
from pipeline.training_pipeline import STEPS
from trainer.configuration_file import merged, parse_settings, read_configuration
from trainer.errors import InputError, reported
from trainer.files import local_path
from trainer.progress import duration

_NEVER_CACHED = ("download",)


class Smoke:
    """The four runs on one cluster.

    Args:
        endpoint: of its KFP.
        target: images and pod settings.
        parameters: of the pipeline; a small configuration.
        runs: folder of runs.
        fresh: empty folder for the run on this machine.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        target: KubernetesTarget,
        parameters: dict[str, Any],
        runs: Path,
        fresh: Path,
    ) -> None:
        self._endpoint, self._target = endpoint, target
        self._parameters, self._runs, self._fresh = parameters, runs, fresh

    def checks(self) -> dict[str, Callable[[], str]]:
        """By what they show; each returns what was seen, and raises `InputError` if it is wrong."""
        return {
            "succeeds with the metrics of a run on this machine": self.succeeds,
            "the same again comes from the cache": self.cached,
            "a step that fails ends the run as failed, with its error": self.fails,
            "a run that is terminated ends": self.terminated,
        }

    def succeeds(self) -> str:
        run = self._run(self._parameters)
        places = {"destination": str(self._fresh / "data"), "checkpoint_root": ""}
        local = run_pipeline(self._parameters | places, self._fresh / "runs")
        if run.evaluation()["metrics"] != local.evaluation()["metrics"]:
            raise InputError(
                f"metrics differ: {run.evaluation()['metrics']} on the cluster, "
                f"{local.evaluation()['metrics']} here"
            )
        return f"GAP@20 {run.evaluation()['metrics']['model']['gap']:.4f} on both"

    def cached(self) -> str:
        run = self._run(self._parameters)
        again = [step for step in STEPS if step in run.seconds and step not in _NEVER_CACHED]
        if again:
            raise InputError(f"ran again although nothing changed: {', '.join(again)}")
        return f"all but {', '.join(_NEVER_CACHED)}"

    def fails(self) -> str:
        wrong = {"data_source": f"{self._parameters['destination']}/not-there"}
        try:
            self._run(self._parameters | wrong)
        except InputError as error:
            if "step download failed: " in str(error) and "not-there" in str(error):
                return str(error)
            raise InputError(f"expected the download step's error, found: {error}") from None
        raise InputError("a run on data that is not there succeeded")

    def terminated(self) -> str:
        ending = threading.Thread(target=self._terminate_the_newest, daemon=True)
        ending.start()
        try:
            self._run(self._parameters | {"seed": int(self._parameters["seed"]) + 1})
        except InputError as error:
            if "was terminated" in str(error):
                return str(error)
            raise
        raise InputError("the run ended before it was terminated: run it again")

    def _terminate_the_newest(self) -> None:
        """End the run that this process starts next, once it runs."""
        before = {run.run_id for run in self._endpoint.runs()}
        for _ in range(600):
            for run in self._endpoint.runs():
                if run.run_id not in before and str(run.state).upper() == "RUNNING":
                    self._endpoint.terminate(run.run_id)
                    return
            time.sleep(1)

    def _run(self, parameters: dict[str, Any]) -> Run:
        run = run_on_cluster(self._endpoint, self._target, parameters, self._runs)
        if run is None:
            raise InputError(
                "results can not be read here: give a destination that this machine reads too, "
                "SET=destination=gs://…"
            )
        return run


def report(checks: dict[str, Callable[[], str]], terminal: TextIO, log: Path) -> bool:
    """Run the checks, one line each; returns whether all are well. Their output goes to a file."""
    well = True
    for words, check in checks.items():
        start = time.monotonic()
        with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            try:
                mark, seen = "ok  ", check()
            except InputError as error:
                mark, seen, well = "FAIL", str(error), False
        passed = duration(time.monotonic() - start)
        print(f"{mark}  {passed:>6}  {words}\n              {seen}", file=terminal, flush=True)
    return well


@contextlib.contextmanager
def _new_place(base: str) -> Iterator[str]:
    """A place below a folder or `gs://` prefix that no earlier run has used; it goes afterwards."""
    if in_bucket(base):
        place = f"{base.rstrip('/')}/smoke-{time.time_ns()}"
        try:
            yield place
        finally:
            storage = CloudStorage()
            for uri in storage.under(f"{place}/"):
                storage.delete(uri)
        return
    local_path(base).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=local_path(base), prefix=".smoke-") as folder:
        (Path(folder) / "data").mkdir()
        yield folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", default="pipeline/configs/sample.yaml", help="YAML file")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", dest="settings")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs")
    add_cluster_flags(parser)
    options = parser.parse_args(arguments)
    with reported():
        runs = options.runs.resolve()
        file = read_configuration(options.config, CONFIGS)
        parameters = pipeline_parameters(merged(file, parse_settings(options.settings)))
        base = parameters["destination"] or ("" if options.host else str(runs))
        if not base:
            raise InputError(
                "SET=destination=… is missing: a gs:// prefix, or a folder that the cluster's "
                "steps and this machine see by one name"
            )
        with _new_place(base) as place, tempfile.TemporaryDirectory() as scratch:
            # A seed of its own keeps the first run out of the cluster's cache.
            parameters |= {"destination": f"{place}/data", "seed": time.time_ns() % 1_000_000_000}
            parameters["checkpoint_root"] = "" if in_bucket(base) else f"{place}/checkpoints"
            target, parameters = target_of(options, parameters, runs)
            endpoint = endpoint_of(options)
            print(f"smoke test of KFP at {endpoint.host}", flush=True)
            runs.mkdir(parents=True, exist_ok=True)
            log = runs / "smoke.log"
            log.write_text("")
            smoke = Smoke(endpoint, target, parameters, runs, Path(scratch))
            if not report(smoke.checks(), sys.stdout, log):
                raise InputError(f"the smoke test failed (log: {log})")


if __name__ == "__main__":
    main()
