"""Beam's engines: this process, processes of this machine, Flink, Spark, Dataflow.

The engine is chosen by Beam's own options; here they are checked, and what an engine raises when it
can not be reached or loses a worker becomes one clear line.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.pipeline import Pipeline
from apache_beam.runners.runner import PipelineState, create_runner

from components.statistics.worker_watch import DIED, watched_workers
from trainer.errors import InputError
from trainer.parameter import nearest
from trainer.termination import ended_by_signals

IN_PROCESS_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
"""Beam's own engine in this process. `DirectRunner` may fetch and start another one (Prism)."""
_WHERE = re.compile(r" \[while running '.*'\]$", re.DOTALL)
_SYSTEM = re.compile(r"\w+Error: \[Errno \d+\] (?P<what>[^:\n]+?)(?:: '(?P<path>[^']+)')?(?= \[|$)")
"""What Beam makes of an error of the system, such as a full disk."""
LARGE_BYTES = 4 << 30
"""From so many bytes on a process for each core pays for its start."""


def arguments_of(workers: int, given: Sequence[str]) -> list[str]:
    """Beam's options for so many processes of this machine, or those that are given.

    Raises:
        InputError: both are.
    """
    if workers == 1:
        return list(given)
    if given:
        raise InputError("workers is of Beam's own engine; beside Beam's options give Beam's own")
    return [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]


def engine_options(arguments: Sequence[str], data_bytes: int = 0) -> PipelineOptions:
    """Checked options of an engine.

    Args:
        arguments: Beam's, such as `--runner=FlinkRunner`; without a runner Beam's own engine on
            this machine takes them, with a process for each core if there is much data.
        data_bytes: how much.

    Raises:
        InputError: an option that Beam does not have (it would pass over it), or a value that it
            does not take.
    """
    given = [str(argument) for argument in arguments]
    _check_names(given)
    if not any(re.match(r"--runner\b", argument) for argument in given):
        given.insert(0, f"--runner={IN_PROCESS_RUNNER}")
        cores = len(os.sched_getaffinity(0))
        if len(given) == 1 and data_bytes >= LARGE_BYTES and cores > 1:
            given += [f"--direct_num_workers={cores}", "--direct_running_mode=multi_processing"]
    try:
        options = PipelineOptions(given)
        runner = create_runner(str(options.view_as(StandardOptions).runner))
        errors = _validated(given, runner)
    except (ValueError, ImportError, AttributeError) as error:
        raise InputError(f"beam_pipeline_args: {error}") from None
    if errors:
        raise InputError(f"beam_pipeline_args: {'; '.join(_plain(error) for error in errors)}")
    return options


def _validated(given: Sequence[str], runner: object) -> list[str]:
    """What Beam itself finds wrong; nothing is looked up, and no bucket made.

    Beam's own validation makes a bucket where it has no usable one to write to, and asks for the
    policy of the others, unless in a dry run.
    """
    options = PipelineOptions([*given, "--dry_run=True"])
    validator = PipelineOptionsValidator(options, runner)
    if validator.is_service_runner():
        cloud = options.view_as(GoogleCloudOptions)
        errors: list[str] = validator.validate_gcs_path(cloud, "temp_location")
        if cloud.staging_location is not None:
            errors += validator.validate_gcs_path(cloud, "staging_location")
        if errors:
            return errors
    found: list[str] = validator.validate()
    return found


def _plain(message: str) -> str:
    return re.sub(r"\s+", " ", message).strip().rstrip(".")


def _check_names(arguments: Sequence[str]) -> None:
    parser = _Parser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for options in _all_options(PipelineOptions):
        options._add_argparse_args(parser)
    known = list(parser._option_string_actions)
    for argument in arguments:
        name = argument.partition("=")[0]
        if name.startswith("-") and name not in known:
            raise InputError(
                f"beam_pipeline_args: Beam has no option {name}"
                f"{nearest(name.lstrip('-'), [one.lstrip('-') for one in known], prefix='--')}"
            )
    _, rest = parser.parse_known_args(arguments)  # what it does not know is refused below
    if rest:
        raise InputError(f"beam_pipeline_args: {rest[0]!r}: expected --name=value")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"beam_pipeline_args: {message}")


def _all_options(kind: type[PipelineOptions]) -> Iterator[type[PipelineOptions]]:
    for options in kind.__subclasses__():
        if options.__module__.startswith("apache_beam."):
            yield options
            yield from _all_options(options)


@contextlib.contextmanager
def engine_errors(options: PipelineOptions) -> Iterator[None]:
    """Turn what an engine raises that is no bug into an `InputError`."""
    runner = str(options.view_as(StandardOptions).runner).rpartition(".")[2]
    endpoint = options.view_as(PortableOptions).job_endpoint
    where = f"{runner} at {endpoint}" if endpoint else runner
    try:
        with watched_workers(options):
            yield
    except InputError as error:
        raise InputError(_WHERE.sub("", str(error))) from None
    except (grpc.RpcError, grpc.FutureTimeoutError, ConnectionError, TimeoutError) as error:
        raise _gone(where, error) from None
    except RuntimeError as error:
        text = str(error)
        if any(one in text for one in (DIED, "Channel closed prematurely", "SDK harness")):
            raise InputError(
                f"a worker of the Beam engine {where} died before it was done (killed, or out of "
                "memory); nothing was written, run the step again, if need be with fewer workers"
            ) from None
        if found := _SYSTEM.match(text):
            where = f"{found['path']}: " if found["path"] else ""
            raise InputError(f"{where}{found['what']}") from None
        if re.search(r"Pipeline \S+ failed in state|Job did not reach to a terminal", text):
            raise InputError(f"the Beam engine {where}: {_first_line(error)}") from None
        raise
    except Exception as error:
        # Of Google's libraries, which share no base: no credentials, no such project, a failed job.
        if type(error).__module__.partition(".")[0] in ("google", "apitools") or (
            "dataflow" in type(error).__module__
        ):
            raise _gone(where, error) from None
        raise


@contextlib.contextmanager
def beam_says_nothing() -> Iterator[None]:
    """In this process what Beam logs of an error is raised as well."""
    log = logging.getLogger("apache_beam")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _gone(where: str, error: BaseException) -> InputError:
    return InputError(
        f"the Beam engine {where} can not be reached, or went away "
        f"({_first_line(error) or type(error).__name__}); nothing was written"
    )


def _first_line(error: BaseException) -> str:
    details = getattr(error, "details", None)
    text = details() if callable(details) else str(error)
    return (str(text or "").strip().splitlines() or [""])[0]


@dataclasses.dataclass(frozen=True)
class Dataflow:
    """Google Cloud's managed engine; https://cloud.google.com/dataflow/docs/reference/pipeline-options.

    Attributes:
        project, region: that the job runs in.
        temp_location: `gs://` prefix for staging, temporary files and results.
        worker_image: container image with this project's code: its cpu image.
        service_account: e-mail of the workers' identity; empty: the project's default.
        subnetwork: of the workers, `regions/…/subnetworks/…`; without public addresses it needs
            Private Google Access.
        machine_type: of a worker; empty: Dataflow's choice.
        max_workers: bound of autoscaling; 0: Dataflow's own.
        public_ips: whether workers have addresses of their own on the internet.
        kms_key: full name of a key of one's own; empty: Google's.
        labels: of the job, for the bill.
    """

    project: str
    region: str
    temp_location: str
    worker_image: str
    service_account: str = ""
    subnetwork: str = ""
    machine_type: str = ""
    max_workers: int = 0
    public_ips: bool = False
    kms_key: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def arguments(self) -> list[str]:
        """Beam's options."""
        root = self.temp_location.rstrip("/")
        given = [
            "--runner=DataflowRunner",
            f"--project={self.project}",
            f"--region={self.region}",
            f"--temp_location={root}/temp",
            f"--staging_location={root}/staging",
            f"--sdk_container_image={self.worker_image}",
            # The image has all that a worker needs: nothing is installed when it starts.
            "--sdk_location=container",
            "--autoscaling_algorithm=THROUGHPUT_BASED",
            "--use_public_ips" if self.public_ips else "--no_use_public_ips",
        ]
        for name in ("service_account", "subnetwork", "machine_type"):
            if value := getattr(self, name):
                option = "service_account_email" if name == "service_account" else name
                given.append(f"--{option}={value}")
        if self.kms_key:
            given.append(f"--dataflow_kms_key={self.kms_key}")
        if self.max_workers:
            given.append(f"--max_num_workers={self.max_workers}")
        labels = {"application": "nextvlad-pipeline", **self.labels}
        return given + [f"--labels={key}={value}" for key, value in labels.items()]


def run_pipeline(build: Callable[[Any], None], options: PipelineOptions, step: str) -> None:
    """Run a pipeline to its end.

    A job of a service outlives the process that waits for it: a step that is ended cancels it, as
    nobody would have its result, and somebody its bill.

    Args:
        build: adds the transforms.
        options: of the engine.
        step: that runs it, for what is said when it is ended.
    """
    pipeline = Pipeline(options=options)
    if not is_service(options):
        with pipeline:
            build(pipeline)
        return
    build(pipeline)
    wait_or_cancel(pipeline.run(), step)


def wait_or_cancel(job: Any, step: str) -> None:
    """Wait for a job of a service; whatever ends the waiting before it has ended cancels it."""
    with ended_by_signals(step, "its job is cancelled"):
        try:
            job.wait_until_finish()
        finally:
            if not PipelineState.is_terminal(job.state):
                job.cancel()


def is_service(options: PipelineOptions) -> bool:
    """Whether a service runs the job, which does not end with this process."""
    return str(options.view_as(StandardOptions).runner).endswith("DataflowRunner")


def is_in_process(options: PipelineOptions) -> bool:
    """Whether one worker in this process does all, so that it knows how far the whole is."""
    direct = options.view_as(DirectOptions)
    return (
        str(options.view_as(StandardOptions).runner) == IN_PROCESS_RUNNER
        and direct.direct_running_mode != "multi_processing"
        and direct.direct_num_workers == 1
    )
