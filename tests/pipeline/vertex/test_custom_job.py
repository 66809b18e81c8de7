"""The train step as Vertex AI would run it: the published launcher starts the custom job, and the
custom job's container command, run as it stands, writes what the step promises."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.cloud import aiplatform
from google_cloud_pipeline_components.container.v1.custom_job import launcher
from google_cloud_pipeline_components.container.v1.gcp_launcher import job_remote_runner

from components.statistics.step import run_statistics
from pipeline.compiled_file import compile_target
from pipeline.targets.vertex import vertex_target
from pipeline.targets.vertex_settings import vertex_settings
from tests.conftest import ROOT, TINY_MODEL
from tests.pipeline.test_compile import HOME
from tests.vertex_server import IMAGE, PARENT, PROJECT, REGION
from trainer.manifest import read_manifest

CREATE = rf"POST /v1/{PARENT}/customJobs"
DEFAULTED = re.compile(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}")


def compiled(folder, *settings):
    target = vertex_target(IMAGE, vertex_settings(settings), HOME)
    compile_target(target, folder / "pipeline.yaml")
    return yaml.safe_load((folder / "pipeline.yaml").read_text())


def as_text(value):
    """A value as Vertex AI puts it in a placeholder's place: text as it is, the rest as JSON."""
    if isinstance(value, str):
        return value
    return re.sub(r"\b(\d+)\.0\b", r"\1", json.dumps(value))


def launched(spec, executor_input, gcp_resources):
    """The launcher's arguments, with the placeholders of a run in project and region."""
    values = {
        name: one.get("defaultValue")
        for name, one in spec["components"]["comp-train"]["inputDefinitions"]["parameters"].items()
    }
    values |= {"project": PROJECT, "location": REGION}
    container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    escaped = json.dumps(json.dumps(executor_input))[1:-1]
    found = []
    for argument in container["args"]:
        text = DEFAULTED.sub(lambda match: as_text(values[match[1]]), argument)
        text = text.replace("{{$.json_escape[1]}}", escaped)
        text = text.replace("{{$.pipeline_persistent_resource_id}}", "")
        text = text.replace("{{$.pipeline_job_name}}", "run-1")
        text = text.replace("{{$.outputs.parameters['gcp_resources'].output_file}}", gcp_resources)
        assert "{{" not in text.replace("{{}}", ""), text[-400:]
        found.append(text)
    return container["command"], found


def executor_input(folder, examples, statistics, checkpoints, epochs=1, **training):
    """As KFP's executor takes it, with paths of this machine in place of /gcs."""

    def artifact(kind, path):
        content = {"name": "a", "type": {"schemaTitle": f"system.{kind}"}, "uri": str(path)}
        return {"artifacts": [content | {"metadata": {}}]}

    overrides = {"data": {"max_frames": 12}, "model": TINY_MODEL, "training": training}
    return {
        "inputs": {
            "parameterValues": {
                "data_fingerprint": "f", "model": "nextvlad", "epochs": epochs, "batch_size": 8,
                "learning_rate": 0.001, "seed": 0, "checkpoint_root": str(checkpoints),
                "overrides": json.dumps(overrides),
            },
            "artifacts": {
                "examples": artifact("Dataset", examples),
                "example_statistics": artifact("Artifact", statistics),
            },
        },
        "outputs": {
            "artifacts": {
                "trained_model": artifact("Model", folder / "trained_model"),
                "metrics": artifact("Metrics", folder / "metrics"),
            },
            "outputFile": str(folder / "executor_output.json"),
        },
    }  # fmt: skip


@pytest.fixture
def through_launcher(vertex, monkeypatch, tmp_path):
    """Runs the launcher; gives the custom job that it asks for."""
    client = aiplatform.gapic.JobServiceClient

    def at_server(client_options, client_info):
        vertex.cloud()
        config = aiplatform.initializer.global_config
        return config.create_client(client_class=aiplatform.utils.JobClientWithOverride)

    assert client
    monkeypatch.setattr(job_remote_runner.aiplatform.gapic, "JobServiceClient", at_server)
    monkeypatch.setenv("VERTEX_AI_PIPELINES_RUN_LABELS", json.dumps({"run": "run-1"}))
    vertex.finished["customJobs"] = {"state": "JOB_STATE_SUCCEEDED"}

    def run(spec, given):
        resources = tmp_path / "gcp_resources"
        command, arguments = launched(spec, given, str(resources))
        assert command[-1] == launcher.__name__
        launcher.main(arguments)
        (job,) = vertex.sent(CREATE)
        (found,) = json.loads(resources.read_text())["resources"]
        assert found["resourceType"] == "CustomJob"
        assert found["resourceUri"].endswith(tuple(vertex.resources))
        return job

    return run


def test_the_launcher_asks_for_the_job_that_the_settings_say(through_launcher, tmp_path):
    spec = compiled(
        tmp_path, "workers=3", "spot=true", "machine=g2-standard-24", "accelerator=NVIDIA_L4",
        "accelerators=2", "disk_gb=300", "train_hours=1.5", "labels=team:video",
        "tensorboard=projects/1/locations/us-central1/tensorboards/7",
    )  # fmt: skip
    given = executor_input(tmp_path, "/gcs/e", "/gcs/s", "gs://data/c")
    job = through_launcher(spec, given)
    pools = job["jobSpec"].pop("workerPoolSpecs")
    assert job == {
        "displayName": "nextvlad-train",
        "labels": {"application": "nextvlad-pipeline", "team": "video", "run": "run-1"},
        "encryptionSpec": {"kmsKeyName": HOME.kms_key},
        "jobSpec": {
            "scheduling": {"timeout": "5400s", "restartJobOnWorkerRestart": True, "strategy": 4},
            "serviceAccount": HOME.service_account,
            "network": HOME.network,
            "tensorboard": "projects/1/locations/us-central1/tensorboards/7",
            "baseOutputDirectory": {"outputUriPrefix": "gs://data/nextvlad/tensorboard/run-1"},
        },
    }
    assert aiplatform.gapic.CustomJob.__name__ == "CustomJob"
    assert [one["replicaCount"] for one in pools] == ["1", "2"]
    for pool in pools:
        assert pool["machineSpec"] == {
            "machineType": "g2-standard-24", "acceleratorType": 11, "acceleratorCount": 2,
        }  # fmt: skip
        assert pool["diskSpec"] == {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 300}
        container = pool["containerSpec"]
        assert container["imageUri"] == IMAGE.replace("{kind}", "gpu")
        # What the container is told is what the step was told, through two layers of JSON.
        place = container["args"].index("--executor_input") + 1
        assert json.loads(container["args"][place]) == given


def test_on_cpus_it_is_one_machine_of_the_cpu_image(through_launcher, tmp_path):
    spec = compiled(tmp_path, "accelerator=", "machine=n1-standard-16")
    job = through_launcher(spec, executor_input(tmp_path, "/gcs/e", "/gcs/s", ""))
    (pool,) = job["jobSpec"]["workerPoolSpecs"]
    assert pool["machineSpec"] == {"machineType": "n1-standard-16"}
    assert pool["containerSpec"]["imageUri"] == IMAGE.replace("{kind}", "cpu")
    assert "restartJobOnWorkerRestart" not in job["jobSpec"]["scheduling"]


@pytest.fixture
def inputs(manifest, tmp_path):
    (tmp_path / "examples").mkdir()
    manifest.write(tmp_path / "examples" / "manifest.json")
    examples, statistics = tmp_path / "examples", tmp_path / "statistics"
    run_statistics(str(examples), str(statistics), str(tmp_path / "r.html"), [])
    return examples, statistics


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def vertex_environment(ports, rank):
    """What Vertex AI sets on a replica: the chief is of workerpool0, the others of workerpool1."""
    addresses = [f"127.0.0.1:{port}" for port in ports]
    job, index = ("chief", 0) if rank == 0 else ("worker", rank - 1)
    cluster = {"chief": addresses[:1], "worker": addresses[1:]}
    pools = {"workerpool0": addresses[:1], "workerpool1": addresses[1:]}
    task = {"type": job, "index": index, "cloud": "c"}
    kind = {"type": "workerpool0" if rank == 0 else "workerpool1", "index": index, "trial": ""}
    return {
        "TF_CONFIG": json.dumps({"cluster": cluster, "task": task, "environment": "cloud"}),
        "CLUSTER_SPEC": json.dumps({"cluster": pools, "task": kind, "environment": "cloud"}),
    }


def start(pool, folder, environment):
    """The container's command, with the libraries of this environment in the image's place."""
    container = pool["containerSpec"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    plain = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [*container["command"], *container["args"]], cwd=folder, env=plain | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_container_command_trains(through_launcher, inputs, tmp_path, workers):
    examples, statistics = inputs
    spec = compiled(tmp_path, f"workers={workers}")
    given = executor_input(tmp_path, examples, statistics, tmp_path / "checkpoints")
    job = through_launcher(spec, given)
    pools = job["jobSpec"]["workerPoolSpecs"]
    ports = free_ports(workers)
    started = [
        start(
            pools[min(rank, len(pools) - 1)], tmp_path,
            vertex_environment(ports, rank) if workers > 1 else {},
        )
        for rank in range(workers)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=400)[0] for process in started]
    assert [process.returncode for process in started] == [0] * workers, outputs
    assert (tmp_path / "trained_model" / "model.keras").is_file()
    metrics = json.loads((tmp_path / "metrics").read_text())
    assert metrics["model_loss"] > 0
    written = json.loads((tmp_path / "executor_output.json").read_text())
    assert set(written["artifacts"]) == {"trained_model", "metrics"}
    assert written["artifacts"]["metrics"]["artifacts"][0]["metadata"] == metrics
    assert read_manifest(examples).fingerprint


@pytest.mark.slow
def test_a_spot_machine_that_is_taken_away(through_launcher, inputs, tmp_path):
    """Vertex AI starts the same container again: it goes on at its last checkpoint."""
    examples, statistics = inputs
    spec = compiled(tmp_path, "spot=true")
    given = executor_input(
        tmp_path, examples, statistics, tmp_path / "checkpoints", epochs=60,
        checkpoint_minutes=0.005,
    )  # fmt: skip
    (pool,) = through_launcher(spec, given)["jobSpec"]["workerPoolSpecs"]
    process = start(pool, tmp_path, {"PYTHONUNBUFFERED": "1"})
    for line in process.stdout:
        if "epoch 9: mean loss" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (tmp_path / "executor_output.json").exists()
    output, _ = start(pool, tmp_path, {}).communicate(timeout=400)
    (place,) = re.findall(r"goes on at epoch (\d+)", output)
    assert int(place) > 3
    assert (tmp_path / "trained_model" / "model.keras").is_file()
    assert (tmp_path / "executor_output.json").is_file()
