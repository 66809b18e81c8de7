"""`python -m pipeline.clusters.smoke`: does a cluster do what it should, on the built-in sample?

Four runs: one that succeeds with the metrics of a run on this machine; the same again, from the
cache; one with a step made to fail; one that is terminated.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from components.download.bucket_folder import in_bucket
from components.download.cloud_storage import CloudStorage
from pipeline.clusters.endpoint import Endpoint
from pipeline.clusters.flags import add_cluster_flags, endpoint_of, target_of
from pipeline.clusters.following import Pace
from pipeline.clusters.running import pod_settings, run_on_cluster
from pipeline.clusters.tools import interruptible
from pipeline.local_run import run_pipeline
from pipeline.parameters import configured
from pipeline.report import Run
from pipeline.targets.kubernetes import KubernetesTarget
from pipeline.training_pipeline import STEPS
from trainer.errors import InputError, reported
from trainer.files import local_path, read_json
from trainer.progress import duration

_NEVER_CACHED = ("download",)
_OTHER_MACHINE = 0.01


class Smoke:
    """The four runs on one cluster.

    Args:
        endpoint: of its KFP.
        target: images and pod settings.
        parameters: of the pipeline; a small configuration.
        runs: folder of runs.
        fresh: empty folder for the run on this machine.
        pace: how runs are followed.
        same_machine: whether the cluster's processor is this one.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        target: KubernetesTarget,
        parameters: dict[str, Any],
        runs: Path,
        fresh: Path,
        pace: Pace | None = None,
        same_machine: bool = True,
    ) -> None:
        self._endpoint, self._target = endpoint, target
        self._pace, self._same_machine = pace, same_machine
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
        there, here = run.evaluation()["metrics"], local.evaluation()["metrics"]
        gaps = f"GAP@20 {there['model']['gap']:.4f} there, {here['model']['gap']:.4f} here"
        # Another processor computes with other roundings.
        near = abs(there["model"]["gap"] - here["model"]["gap"]) < _OTHER_MACHINE
        if there != here and (self._same_machine or not near):
            raise InputError(f"metrics differ: {gaps}")
        return gaps

    def cached(self) -> str:
        run = self._run(self._parameters)
        cached = read_json(run.folder / "kfp.json")["from_cache"]
        again = [step for step in STEPS if step not in (*cached, *_NEVER_CACHED)]
        if again:
            raise InputError(f"not from the cache although nothing changed: {', '.join(again)}")
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
        ended: list[str] = []

        def end(run_id: str, state: str) -> None:
            if state == "RUNNING" and not ended:
                ended.append(run_id)
                self._endpoint.terminate(run_id)

        try:
            self._run(self._parameters | {"seed": int(self._parameters["seed"]) + 1}, end)
        except InputError as error:
            if "was terminated" in str(error):
                return str(error)
            raise
        raise InputError("the run ended well although it was told to end")

    def _run(
        self, parameters: dict[str, Any], watch: Callable[[str, str], None] | None = None
    ) -> Run:
        run = run_on_cluster(
            self._endpoint, self._target, parameters, self._runs, pace=self._pace, watch=watch
        )
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
        # Steps may run as another user.
        Path(folder).chmod(0o777)
        (Path(folder) / "data").mkdir()
        (Path(folder) / "data").chmod(0o777)
        yield folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", default="pipeline/configs/sample.yaml", help="YAML file")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", dest="settings")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs")
    add_cluster_flags(parser)
    options = parser.parse_args(arguments)
    with reported(), interruptible("the run that was on goes on, make kfp-runs shows it"):
        runs = options.runs.resolve()
        parameters = configured(options.config, options.settings)
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
            pace = Pace(start_seconds=pod_settings(options.kfp).start_seconds)
            smoke = Smoke(endpoint, target, parameters, runs, Path(scratch), pace, not options.host)
            if not report(smoke.checks(), sys.stdout, log):
                raise InputError(f"the smoke test failed (log: {log})")


if __name__ == "__main__":
    main()
