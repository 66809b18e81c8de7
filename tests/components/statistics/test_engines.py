"""Options of engines, against Beam's own parsing and validation; engines that are not there."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)

from components.statistics.beam_pass import run_pass
from components.statistics.engines import (
    IN_PROCESS_RUNNER,
    LARGE_BYTES,
    Dataflow,
    engine_errors,
    engine_options,
    is_service,
    wait_or_cancel,
)
from tests.conftest import ROOT
from trainer.errors import InputError

DATAFLOW = Dataflow(
    "my-project", "europe-west4", "gs://my-bucket/beam/", "europe-docker.pkg.dev/p/r/cpu:1",
    service_account="runner@my-project.iam.gserviceaccount.com",
    subnetwork="regions/europe-west4/subnetworks/private", machine_type="n2-standard-4",
    max_workers=64, labels={"team": "video"},
)  # fmt: skip


def test_without_options_it_runs_here(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    options = engine_options([])
    assert options.view_as(StandardOptions).runner == IN_PROCESS_RUNNER
    assert options.view_as(DirectOptions).direct_num_workers == 1
    large = engine_options([], LARGE_BYTES).view_as(DirectOptions)
    assert (large.direct_num_workers, large.direct_running_mode) == (3, "multi_processing")
    chosen = engine_options(["--direct_num_workers=2"], LARGE_BYTES).view_as(DirectOptions)
    assert chosen.direct_num_workers == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runer=FlinkRunner"], "Beam has no option --runer; did you mean --runner"),
        (["--direct_num_worker=2"], "no option --direct_num_worker; did you mean --direct_num_w"),
        (["--runner=NoSuchRunner"], "NoSuchRunner"),
        (["runner=FlinkRunner"], "'runner=FlinkRunner': expected --name=value"),
        (["--job_server_timeout=soon"], "job-server-timeout: invalid int value: 'soon'"),
        (["--runner=DataflowRunner", "--project=my-project"], "Missing GCS path option"),
        (
            [a.replace("gs://", "s3://") for a in DATAFLOW.arguments()],
            "Invalid GCS path",
        ),
    ],
)
def test_options_that_beam_would_pass_over_or_refuse_later(arguments, words, capfd):
    with pytest.raises(InputError, match=f"beam_pipeline_args: .*{words}"):
        engine_options(arguments)


def test_dataflow_s_options_are_beam_s():
    options = engine_options(DATAFLOW.arguments())
    cloud, workers = options.view_as(GoogleCloudOptions), options.view_as(WorkerOptions)
    assert options.view_as(StandardOptions).runner == "DataflowRunner"
    assert (cloud.project, cloud.region) == ("my-project", "europe-west4")
    assert cloud.temp_location == "gs://my-bucket/beam/temp"
    assert cloud.staging_location == "gs://my-bucket/beam/staging"
    assert cloud.service_account_email == DATAFLOW.service_account
    assert cloud.labels == ["application=nextvlad-pipeline", "team=video"]
    assert workers.sdk_container_image == DATAFLOW.worker_image
    assert workers.subnetwork == DATAFLOW.subnetwork
    assert workers.machine_type == "n2-standard-4"
    assert workers.max_num_workers == 64
    assert workers.autoscaling_algorithm == "THROUGHPUT_BASED"
    assert workers.use_public_ips is False


def test_dataflow_s_defaults():
    options = engine_options(Dataflow("my-project", "us-central1", "gs://b12/x", "i:1").arguments())
    workers = options.view_as(WorkerOptions)
    assert workers.max_num_workers is None
    assert workers.machine_type is None
    public = Dataflow("my-project", "us-central1", "gs://b12/x", "i:1", public_ips=True)
    assert engine_options(public.arguments()).view_as(WorkerOptions).use_public_ips is True


def test_an_engine_that_is_not_there(manifest, tmp_path):
    options = engine_options(
        ["--runner=PortableRunner", "--job_endpoint=localhost:1", "--job_server_timeout=2"]
    )
    with pytest.raises(InputError, match=r"PortableRunner at localhost:1 can not be reached, or"):
        run_pass(manifest, options, False, str(tmp_path / "bad"))


def test_a_bug_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="ours"), engine_errors(PipelineOptions([])):
        raise RuntimeError("ours")
    text = "Pipeline job-1 failed in state FAILED: why"
    with pytest.raises(InputError, match=text), engine_errors(PipelineOptions([])):
        raise RuntimeError(text)


def workers_of(process):
    """Beam's worker processes that it started, which live in groups of their own."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            text = (folder / "cmdline").read_text()
        except OSError:  # it has ended
            continue
        if "sdk_worker_main" in text:
            is_shell = "\0-c\0" in text  # Beam starts a worker through one
            found.append((int(folder.name), parent, is_shell))
    ours = {process.pid}
    for _ in range(4):
        ours |= {pid for pid, parent, _ in found if parent in ours}
    return [pid for pid, _, is_shell in found if pid in ours and not is_shell]


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0, 3.5])
def test_a_worker_that_is_killed_ends_the_step(delay, manifest, tmp_path):
    """Before it has reported for work, or at work: with a line that says so, nothing written."""
    repeated = [shard for _ in range(4000) for shard in manifest.shards]
    type(manifest)(**{**vars(manifest), "shards": tuple(repeated)}).write(
        tmp_path / "manifest.json"
    )
    process = subprocess.Popen(
        # Deaf to SIGINT, as a shell starts a command in the background.
        ["sh", "-c", "trap '' INT; exec \"$@\"", "sh",
         sys.executable, "-m", "components.statistics", "--examples", str(tmp_path), "--output",
         str(tmp_path / "s"), "--", "--direct_num_workers=2",
         "--direct_running_mode=multi_processing"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    killed = threading.Event()

    def kill():
        while process.poll() is None and not killed.is_set():
            if pids := workers_of(process):
                time.sleep(delay)
                os.kill(pids[0], signal.SIGKILL)
                killed.set()
            time.sleep(0.1)

    thread = threading.Thread(target=kill)
    thread.start()
    output, error = process.communicate(timeout=120)
    thread.join()
    assert killed.is_set()
    assert process.returncode == 1, output + error
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "a worker of the Beam engine FnApiRunner died before it was done" in line
    assert "Traceback" not in error
    assert not (tmp_path / "s").exists()
    assert not list(tmp_path.glob("*.html"))


class Job:
    """A job of a service that does not end by itself."""

    def __init__(self, state="RUNNING", error=None):
        self.state, self.error, self.cancelled = state, error, 0

    def wait_until_finish(self):
        if self.error:
            raise self.error
        if self.state == "RUNNING":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    def cancel(self):
        self.cancelled += 1


def test_a_job_of_a_service_is_cancelled_with_its_step(capsys):
    job = Job()
    with pytest.raises(SystemExit) as ended:
        wait_or_cancel(job, "statistics")
    assert ended.value.code == 143
    assert job.cancelled == 1
    assert capsys.readouterr().out == "[statistics] ended by SIGTERM: its job is cancelled\n"


def test_a_job_that_ended_is_left_alone():
    job = Job("DONE")
    wait_or_cancel(job, "statistics")
    failed = Job("FAILED", RuntimeError("no quota"))
    with pytest.raises(RuntimeError, match="no quota"):
        wait_or_cancel(failed, "statistics")
    assert job.cancelled == failed.cancelled == 0


def test_what_runs_as_a_service():
    assert is_service(PipelineOptions(["--runner=DataflowRunner"]))
    assert not is_service(engine_options([]))
