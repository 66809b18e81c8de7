"""KFP's API by its own client, with time-outs, retries and every failure as one line.

https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import time
import urllib.parse
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import kfp
import kfp_server_api
import tenacity
import urllib3
from kfp.client.token_credentials_base import TokenCredentialsBase
from kfp_server_api.exceptions import ApiException

from pipeline.clusters.answers import FAILURES, HEALTH, bounded, in_words, passes, quiet
from trainer.errors import InputError

Answer = TypeVar("Answer")
_CONNECT_SECONDS = 10.0
_LOG_SECONDS = 10.0
_LOG_BYTES = 4 << 20
_CRON_FIELDS = 6
_OK = 200


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long a client waits.

    Attributes:
        answer_seconds: for one answer.
        connect_seconds: for the first answer.
        outage_seconds: for an endpoint that gives none any more, or says that it is busy.
        first_wait, longest_wait: seconds between two attempts.
    """

    answer_seconds: float = 60.0
    connect_seconds: float = 15.0
    outage_seconds: float = 300.0
    first_wait: float = 1.0
    longest_wait: float = 20.0


class _Client(kfp.Client):  # type: ignore[misc]
    """KFP's client, which neither asks before it has time-outs nor reads notes of other clients."""

    def _load_context_setting_or_default(self) -> None:
        self._context_setting = {"namespace": "known later"}


class _TokenFile(TokenCredentialsBase):
    """A token that somebody else renews: read anew for each request."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def refresh_api_key_hook(self, config: Any) -> None:
        config.api_key["authorization"] = token_in(self._path)


def token_in(path: Path) -> str:
    """The token that a file holds.

    Raises:
        InputError: there is no such file, or nothing in it.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"token file {path}: {getattr(error, 'strerror', error)}") from None
    if not token or not token.isascii() or len(token.split()) != 1:
        raise InputError(f"token file {path}: expected one token, found {len(token.split())} words")
    return token


class Endpoint:
    """One KFP deployment.

    Args:
        host: `http://…` or `https://…` of its API server, or of its UI, which passes on.
        token: to show; empty: none.
        token_file: holds the token, and is read anew for each request.
        namespace: of the user, where there are several; empty: the only one.
        ca: PEM file of certificates to trust in place of the public ones.
        patience: how long to wait.

    Raises:
        InputError: nothing there that speaks KFP's API, or it does not let this user in.
    """

    def __init__(
        self,
        host: str,
        token: str = "",
        token_file: Path | None = None,
        namespace: str = "",
        ca: Path | None = None,
        patience: Patience | None = None,
    ) -> None:
        if not re.match(r"https?://[^/\s]+", host):
            raise InputError(
                f"KFP_HOST is {host!r}, expected an address such as http://localhost:8888 (of a "
                "port-forward) or https://kfp.example.com"
            )
        if ca is not None and not ca.is_file():
            raise InputError(f"certificates {ca}: no such file")
        self.host = host.rstrip("/")
        self.namespace = namespace
        self._patience = patience or Patience()
        if token_file is not None:
            token_in(token_file)
        credentials = None if token_file is None else _TokenFile(token_file)
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore", FutureWarning)
            self._client = _Client(
                host=self.host, existing_token=token or None, credentials=credentials,
                namespace="kubeflow", ssl_ca_cert=str(ca) if ca else None,
            )  # fmt: skip
        self._client._context_setting = {"namespace": namespace}
        self._bound_answers()
        health = self._ask(
            HEALTH,
            self._client._healthz_api.healthz_service_get_healthz,
            self._patience.connect_seconds,
        )
        if health.multi_user and not namespace:
            raise InputError(
                f"KFP at {self.host} has several users: say whose namespace with KFP_NAMESPACE=…"
            )

    def _bound_answers(self) -> None:
        """Give each request a time-out, and no attempt of its own: only some may be repeated."""
        rest = self._client._run_api.api_client.rest_client
        timeout = (_CONNECT_SECONDS, self._patience.answer_seconds)
        rest.request = functools.partial(bounded, rest.request, timeout)
        rest.pool_manager.connection_pool_kw["retries"] = urllib3.Retry(0, redirect=3)

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
            run = self._client.run_pipeline(
                experiment_id=group, job_name=name, pipeline_package_path=str(package),
                params=dict(parameters),
            )  # fmt: skip
            return str(run.run_id)

        return self._once(f"run {name}", start, lambda: self._run_named(name, group))

    def run(self, run_id: str) -> kfp_server_api.V2beta1Run:
        """A run as it is now."""
        return self._ask(f"run {run_id}", lambda: self._client.get_run(run_id))

    def runs(self, most: int = 20) -> list[kfp_server_api.V2beta1Run]:
        """The latest runs, the newest first."""
        answer = self._ask(
            "its runs",
            lambda: self._client.list_runs(
                page_size=most, sort_by="created_at desc", namespace=self.namespace or None
            ),
        )
        return list(answer.runs or [])

    def terminate(self, run_id: str) -> None:
        """Ask for the end of a run; it is canceled when its pods have ended."""
        self._ask(f"run {run_id}", lambda: self._client.terminate_run(run_id))

    def log(self, run_id: str, pod: str) -> str:
        """What a pod of a run has printed; empty if it can not be had (yet)."""
        if not pod:
            return ""
        # Not in the API's specification: the API server's way, then that of the pages' server.
        query = urllib.parse.urlencode(
            {"podname": pod, "podnamespace": self.namespace or "kubeflow", "runid": run_id}
        )
        for place in (f"apis/v1alpha1/runs/{run_id}/nodes/{pod}/log", f"k8s/pod/logs?{query}"):
            text = self._text(f"{self.host}/{place}")
            if text is not None:
                return text
        return ""

    def _text(self, address: str) -> str | None:
        """A page of plain text; None: it can not be had, or is something else."""
        api = self._client._run_api.api_client
        headers: dict[str, str] = dict(api.default_headers)
        api.update_params_for_auth(headers, [], ["Bearer"])
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_LOG_SECONDS)
        try:
            answer = api.rest_client.pool_manager.request(
                "GET", address, headers=headers, timeout=timeout, preload_content=False
            )
            try:
                text = bytes(answer.read(_LOG_BYTES)).decode(errors="replace")
            finally:
                answer.release_conn()
        except urllib3.exceptions.HTTPError:
            return None
        page = "html" in answer.headers.get("Content-Type", "")
        failed = answer.status != _OK or text.startswith('{"error_message"')
        return None if page or failed else text

    def upload(self, package: Path, pipeline: str, version: str) -> tuple[str, str]:
        """Add a version of a pipeline, which is made if it is not there; returns both ids.

        Raises:
            InputError: the pipeline has a version of that name.
        """
        what = f"pipeline {pipeline}"
        found = self._ask(what, lambda: self._client.get_pipeline_id(pipeline))
        if not found:
            wanted = kfp_server_api.V2beta1Pipeline(
                display_name=pipeline, namespace=self.namespace or None
            )
            make = self._client._pipelines_api.pipeline_service_create_pipeline
            found = self._once(
                what,
                lambda: str(make(pipeline=wanted).pipeline_id),
                lambda: self._ask(what, lambda: self._client.get_pipeline_id(pipeline)) or "",
            )
        there = self._version_named(found, version)
        what = f"version {version} of pipeline {pipeline}"
        if there:
            raise InputError(f"KFP at {self.host} has {what} already: give another NAME")
        upload = functools.partial(
            self._client.upload_pipeline_version,
            str(package), pipeline_version_name=version, pipeline_id=found,
        )  # fmt: skip
        added = self._once(
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
            self._client.create_recurring_run, group, name, params=dict(parameters),
            pipeline_package_path=str(package), no_catchup=True, max_concurrency=most_at_once,
            **trigger,
        )  # fmt: skip
        return self._once(
            f"recurring run {name}",
            lambda: str(make().recurring_run_id),
            lambda: next((one.recurring_run_id for one in self._schedules_named(name)), ""),
        )

    def schedules(self) -> list[kfp_server_api.V2beta1RecurringRun]:
        """The recurring runs, the newest first."""
        answer = self._ask(
            "its recurring runs",
            lambda: self._client.list_recurring_runs(
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
            "pause": self._client.disable_recurring_run,
            "resume": self._client.enable_recurring_run,
            "delete": self._client.delete_recurring_run,
        }[change]
        for one in found:
            self._ask(f"recurring run {name}", functools.partial(request, one.recurring_run_id))

    def _experiment(self, name: str) -> str:
        made = self._ask(
            f"experiment {name}",
            lambda: self._client.create_experiment(name, namespace=self.namespace or None),
        )
        return str(made.experiment_id)

    def _run_named(self, name: str, experiment: str) -> str:
        answer = self._ask(
            f"run {name}",
            lambda: self._client.list_runs(experiment_id=experiment, filter=_named(name)),
        )
        return str(answer.runs[0].run_id) if answer.runs else ""

    def _schedules_named(self, name: str) -> list[kfp_server_api.V2beta1RecurringRun]:
        answer = self._ask(
            f"recurring run {name}",
            lambda: self._client.list_recurring_runs(
                filter=_named(name), namespace=self.namespace or None
            ),
        )
        return list(answer.recurring_runs or [])

    def _version_named(self, pipeline: str, name: str) -> str:
        answer = self._ask(
            f"pipeline {pipeline}",
            lambda: self._client.list_pipeline_versions(pipeline, filter=_named(name)),
        )
        found = answer.pipeline_versions
        return str(found[0].pipeline_version_id) if found else ""

    def _once(self, what: str, request: Callable[[], str], done_already: Callable[[], str]) -> str:
        """Send what must not be done twice until it is known to be done; returns an id."""
        deadline = time.monotonic() + self._patience.outage_seconds
        while True:
            try:
                with quiet():
                    return request()
            except FAILURES as error:
                if not passes(error) or time.monotonic() > deadline:
                    raise InputError(in_words(self.host, what, error)) from None
                refused = isinstance(error, ApiException) or "refused" in str(error)
            # One that was taken and not answered may still be at work there.
            until = time.monotonic() + (0 if refused else self._patience.answer_seconds)
            while True:
                time.sleep(self._patience.first_wait)
                if found := done_already():
                    return found
                if time.monotonic() >= until:
                    break

    def _ask(self, what: str, request: Callable[[], Answer], outage: float | None = None) -> Answer:
        """Ask until there is an answer; `what` it is about is for the error's line."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(passes),
            stop=tenacity.stop_after_delay(outage or self._patience.outage_seconds),
            wait=tenacity.wait_random_exponential(
                self._patience.first_wait, max=self._patience.longest_wait
            ),
            reraise=True,
        )
        try:
            with quiet():
                return retrying(request)
        except FAILURES as error:
            raise InputError(in_words(self.host, what, error)) from None


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
