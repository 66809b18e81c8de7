"""KFP's runs, pipelines and schedules.

https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/
"""

from __future__ import annotations

import functools
import json
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kfp_server_api

from pipeline.clusters.connection import Connection
from trainer.errors import InputError

_CRON_FIELDS = 6


class Endpoint(Connection):
    """What can be asked of one KFP deployment; every failure is an `InputError` of one line."""

    def submit(
        self, package: Path, name: str, parameters: Mapping[str, Any], experiment: str
    ) -> str:
        """Start a run of a compiled pipeline; returns its id.

        A request whose answer is lost is not sent again before the endpoint has said that no run of
        that name came of it: a run that is started twice costs twice.

        Args:
            package: compiled pipeline.
            name: of the run; one that no other has.
            parameters: of the pipeline.
            experiment: by its name; made if it is not there.
        """
        group = self._experiment(experiment)

        def start() -> str:
            run = self.client.run_pipeline(
                experiment_id=group, job_name=name, pipeline_package_path=str(package),
                params=dict(parameters),
            )  # fmt: skip
            return str(run.run_id)

        return self.once(f"run {name}", start, lambda: self._run_named(name, group))

    def run(self, run_id: str) -> kfp_server_api.V2beta1Run:
        """A run as it is now."""
        return self.ask(f"run {run_id}", lambda: self.client.get_run(run_id))

    def runs(self, most: int = 20) -> list[kfp_server_api.V2beta1Run]:
        """The latest runs, the newest first."""
        answer = self.ask(
            "its runs",
            lambda: self.client.list_runs(
                page_size=most, sort_by="created_at desc", namespace=self.namespace or None
            ),
        )
        return list(answer.runs or [])

    def terminate(self, run_id: str) -> None:
        """Ask for the end of a run; it is canceled when its pods have ended."""
        self.ask(f"run {run_id}", lambda: self.client.terminate_run(run_id))

    def log(self, run_id: str, pod: str) -> str:
        """What a pod of a run has printed; empty if it can not be had (yet)."""
        if not pod:
            return ""
        # Not in the API's specification: the API server's way, then that of the pages' server.
        query = urllib.parse.urlencode(
            {"podname": pod, "podnamespace": self.namespace or "kubeflow", "runid": run_id}
        )
        for place in (f"apis/v1alpha1/runs/{run_id}/nodes/{pod}/log", f"k8s/pod/logs?{query}"):
            text = self.text(f"{self.host}/{place}")
            if text is not None:
                return text
        return ""

    def upload(self, package: Path, pipeline: str, version: str) -> tuple[str, str]:
        """Add a version of a pipeline, which is made if it is not there; returns both ids.

        Raises:
            InputError: the pipeline has a version of that name.
        """
        what = f"pipeline {pipeline}"
        found = self.ask(what, lambda: self.client.get_pipeline_id(pipeline))
        if not found:
            wanted = kfp_server_api.V2beta1Pipeline(
                display_name=pipeline, namespace=self.namespace or None
            )
            make = self.client._pipelines_api.pipeline_service_create_pipeline
            found = self.once(
                what,
                lambda: str(make(pipeline=wanted).pipeline_id),
                lambda: self.ask(what, lambda: self.client.get_pipeline_id(pipeline)) or "",
            )
        there = self._version_named(found, version)
        what = f"version {version} of pipeline {pipeline}"
        if there:
            raise InputError(f"KFP at {self.host} has {what} already: give another KFP_NAME")
        upload = functools.partial(
            self.client.upload_pipeline_version,
            str(package), pipeline_version_name=version, pipeline_id=found,
        )  # fmt: skip
        added = self.once(
            what,
            lambda: str(upload().pipeline_version_id),
            lambda: self._version_named(found, version),
        )
        return str(found), added

    def schedule(
        self,
        package: Path,
        name: str,
        parameters: Mapping[str, Any],
        experiment: str,
        when: str,
        most_at_once: int = 1,
    ) -> str:
        """Run a pipeline again and again; returns the recurring run's id.

        Args:
            package: compiled pipeline.
            name: of the recurring run.
            parameters: of the pipeline.
            experiment: by its name; made if it is not there.
            when: `every 3600` (seconds), or a cron expression of six fields, seconds first.
            most_at_once: runs of it.

        Raises:
            InputError: no such time, or the endpoint refuses.
        """
        trigger = trigger_of(when)
        group = self._experiment(experiment)
        if self._schedules_named(name):
            raise InputError(
                f"KFP at {self.host} has a recurring run {name} already: delete it first"
            )
        make = functools.partial(
            self.client.create_recurring_run, group, name, params=dict(parameters),
            pipeline_package_path=str(package), no_catchup=True, max_concurrency=most_at_once,
            **trigger,
        )  # fmt: skip
        return self.once(
            f"recurring run {name}",
            lambda: str(make().recurring_run_id),
            lambda: next((one.recurring_run_id for one in self._schedules_named(name)), ""),
        )

    def schedules(self) -> list[kfp_server_api.V2beta1RecurringRun]:
        """The recurring runs, the newest first."""
        answer = self.ask(
            "its recurring runs",
            lambda: self.client.list_recurring_runs(
                page_size=100, sort_by="created_at desc", namespace=self.namespace or None
            ),
        )
        return list(answer.recurring_runs or [])

    def change_schedule(self, name: str, change: str) -> None:
        """`pause`, `resume` or `delete` the recurring run of a name.

        Raises:
            InputError: there is none.
        """
        found = self._schedules_named(name)
        if not found:
            raise InputError(f"KFP at {self.host} has no recurring run {name}")
        request = {
            "pause": self.client.disable_recurring_run,
            "resume": self.client.enable_recurring_run,
            "delete": self.client.delete_recurring_run,
        }[change]
        if len(found) > 1:
            raise InputError(
                f"KFP at {self.host} has {len(found)} recurring runs {name}: change the "
                "right one in its pages"
            )
        self.ask(f"recurring run {name}", functools.partial(request, found[0].recurring_run_id))

    def _experiment(self, name: str) -> str:
        made = self.ask(
            f"experiment {name}",
            lambda: self.client.create_experiment(name, namespace=self.namespace or None),
        )
        return str(made.experiment_id)

    def _run_named(self, name: str, experiment: str) -> str:
        answer = self.ask(
            f"run {name}",
            lambda: self.client.list_runs(experiment_id=experiment, filter=_named(name)),
        )
        return str(answer.runs[0].run_id) if answer.runs else ""

    def _schedules_named(self, name: str) -> list[kfp_server_api.V2beta1RecurringRun]:
        answer = self.ask(
            f"recurring run {name}",
            lambda: self.client.list_recurring_runs(
                filter=_named(name), namespace=self.namespace or None
            ),
        )
        return list(answer.recurring_runs or [])

    def _version_named(self, pipeline: str, name: str) -> str:
        answer = self.ask(
            f"pipeline {pipeline}",
            lambda: self.client.list_pipeline_versions(pipeline, filter=_named(name)),
        )
        found = answer.pipeline_versions
        return str(found[0].pipeline_version_id) if found else ""


def _named(name: str) -> str:
    """A filter: of that name."""
    wanted = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [wanted]})


def trigger_of(when: str) -> dict[str, Any]:
    """A schedule as KFP's client takes it.

    Raises:
        InputError: neither `every SECONDS` nor six fields of cron.
    """
    if match := re.fullmatch(r"every ([1-9]\d*)", when.strip()):
        return {"interval_second": int(match[1])}
    fields = when.split()
    if len(fields) != _CRON_FIELDS or not all(re.fullmatch(r"[\w*?/,-]+", one) for one in fields):
        raise InputError(
            f"schedule {when!r}: expected `every SECONDS`, or six fields of cron, seconds first: "
            "'0 0 3 * * *' is three o'clock every night (UTC)"
        )
    return {"cron_expression": " ".join(fields)}
