"""The commands beside a run, as make calls them."""

import json

import pytest

from pipeline.vertex import command
from pipeline.vertex.manage import main
from tests.pipeline.vertex.test_tuning import OUTPUTS, trial
from tests.vertex_server import BUCKET, IMAGE, PARENT, PROJECT, REGION, entry, task

FLAGS = ["--project", PROJECT, "--region", REGION, "--bucket", f"gs://{BUCKET}", "--image", IMAGE]
RUN = f"{PARENT}/pipelineJobs/run-1"


@pytest.fixture
def manage(vertex, monkeypatch, capsys):
    """Calls a command; gives its lines, or with `error` the one of its failure."""
    monkeypatch.setattr(command, "connect", vertex.cloud)

    def manage(*arguments, error=False):
        if error:
            with pytest.raises(SystemExit) as ended:
                main([*arguments, *FLAGS])
            assert ended.value.code == 1
            (line,) = capsys.readouterr().err.splitlines()
            return line
        main([*arguments, *FLAGS])
        return capsys.readouterr().out.splitlines()

    return manage


@pytest.fixture
def run(vertex):
    vertex.resources[RUN] = {"name": RUN, "createTime": "2026-11-01T03:04:05Z",
                             "state": "PIPELINE_STATE_RUNNING"}  # fmt: skip


def test_check(manage, vertex):
    assert manage("check")[-1] == "project my-project-1 is ready"
    vertex.answers[r"GET /storage/storage/v1/b/data"] = (404, {})
    assert "not ready: bucket data; see" in manage("check", error=True)


def test_list(manage, run):
    (line,) = manage("list")
    assert line.split() == ["run-1", "RUNNING", "2026-11-01", "03:04"]


def test_follow(manage, run, vertex, tmp_path):
    vertex.logs = {"1": [entry("a", "[download] 4 shards")]}
    vertex.snapshots.append(("SUCCEEDED", [task("download", "SUCCEEDED", 0, 5, job=1)]))
    vertex.resources[RUN]["runtimeConfig"] = {"parameterValues": {"epochs": 3.0, "overrides": "{}"}}
    line = manage("follow", "--run", "run-1", "--runs", str(tmp_path), error=True)
    assert line == "error: run run-1: has no artifact examples"
    (folder,) = tmp_path.iterdir()
    assert "[download] 4 shards" in (folder / "pipeline.log").read_text()
    assert json.loads((folder / "vertex.json").read_text())["state"] == "SUCCEEDED"
    assert json.loads((folder / "parameters.json").read_text())["epochs"] == 3


def test_follow_what_ends_badly(manage, run, vertex, tmp_path):
    vertex.snapshots.append(("FAILED", [task("train", "FAILED", 0, 5, error="no memory")]))
    line = manage("follow", "--run", "run-1", "--runs", str(tmp_path), error=True)
    assert line.startswith("error: step train failed: no memory (log: ")
    vertex.snapshots[0] = ("CANCELLED", [])
    line = manage("follow", "--run", "run-1", "--runs", str(tmp_path), error=True)
    assert "run run-1 was cancelled" in line
    assert "pipeline job run-2: is not there" in manage("follow", "--run", "run-2", error=True)
    assert "RUN is missing: make vertex-list" in manage("follow", error=True)


def test_cancel(manage, run, vertex):
    (line,) = manage("cancel", "--run", "run-1")
    assert line.startswith("run run-1 is being cancelled, its training too; checkpoints stay")
    assert len(vertex.sent(rf"POST /v1/{RUN}:cancel")) == 1


def test_schedules(manage, vertex):
    lines = manage("schedule", "--when", "0 3 * * *", "--name", "nightly", "--set", "epochs=3")
    assert lines[-1] == "schedule nightly: 0 3 * * *, one run at a time; WHEN=delete ends it"
    assert any(line.startswith("never above  ") for line in lines)
    (body,) = vertex.sent(rf"POST /v1/{PARENT}/schedules")
    job = body["createPipelineJobRequest"]["pipelineJob"]
    assert job["runtimeConfig"]["parameterValues"]["epochs"] == 3
    assert job["runtimeConfig"]["parameterValues"]["destination"] == "gs://data/nextvlad/data"
    (line,) = manage("schedule")
    assert line.split()[:7] == ["nightly", "ACTIVE", "0", "3", "*", "*", "*"]
    for change, words in (("pause", "paused"), ("resume", "resumed"), ("delete", "deleted")):
        assert manage("schedule", "--when", change, "--name", "nightly") == [
            f"schedule nightly: {words}"
        ]
    assert "there is none" in manage("schedule", "--when", "pause", error=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--when", "daily"], "schedule 'daily': expected five fields of cron"),
        (["--when", "0 3 * * *", "--data", "/data"], "data_source /data: no machine of Vertex AI"),
        (["--when", "0 3 * * *", "--set", "epoch=3"], "epoch"),
    ],
)
def test_schedules_that_can_not_be(manage, vertex, arguments, words):
    assert words in manage("schedule", *arguments, error=True)
    assert not vertex.sent(rf"POST /v1/{PARENT}/schedules")


def test_tune(manage, run, vertex):
    overrides = '{"data": {"holdout_shards": 1}}'
    vertex.resources[RUN]["runtimeConfig"] = {"parameterValues": {"overrides": overrides}}
    vertex.snapshots.append(("SUCCEEDED", [task("statistics", "SUCCEEDED", 0, 5, outputs=OUTPUTS)]))
    done = [trial(1, "SUCCEEDED", 0.71, learning_rate=0.001)]
    vertex.finished["hyperparameterTuningJobs"] = {"state": "JOB_STATE_SUCCEEDED", "trials": done}
    lines = manage("tune", "--run", "run-1", "--tune", "learning_rate=1e-4..1e-2:log",
                   "--trials", "4", "--name", "search")  # fmt: skip
    assert "search: 4 trials, 2 at once" in lines
    assert lines[0] == "4 trials, 2 at once, each on n1-standard-8 + 1 × NVIDIA_TESLA_T4"
    # 8 vCPUs, a T4 and a disk for 24 hours, four times.
    assert lines[1] == "never above  85.73 USD: 0.89 an hour, a trial is ended after 24 h"
    assert lines[-1].endswith('SET="learning_rate=0.001"')


@pytest.mark.parametrize(
    "arguments",
    [
        ["schedule", "--when", "0 3 * * *"],
        ["tune", "--run", "run-1", "--tune", "groups=4,8", "--hours", "train=2"],
    ],
)
def test_a_dry_run_asks_nobody(manage, vertex, arguments):
    lines = manage(*arguments, "--dry-run")
    assert any("never above" in line for line in lines)
    assert not vertex.requests


def test_a_run_needs_no_bucket(manage, run, vertex):
    """As the line says that a run which is not followed any more ends with."""
    FLAGS[:] = [one for one in FLAGS if one not in ("--bucket", f"gs://{BUCKET}")]
    try:
        manage("cancel", "--run", "run-1")
    finally:
        FLAGS[4:4] = ["--bucket", f"gs://{BUCKET}"]
    assert vertex.sent(rf"POST /v1/{RUN}:cancel")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "TUNE is missing"),
        (["--tune", "learning_rat=1..2"], "learning_rat"),
        (["--tune", "groups=4,8"], "RUN is missing"),
        (["--tune", "groups=4,8", "--run", "run-1"], "has no examples, expected a run whose"),
    ],
)
def test_studies_that_can_not_be(manage, run, vertex, arguments, words):
    assert words in manage("tune", *arguments, error=True)
    assert not vertex.sent(rf"POST /v1/{PARENT}/hyper.*")


@pytest.mark.parametrize("name", ["endpoint", "rollback", "undeploy"])
def test_endpoints_that_are_not_there(manage, name):
    assert "endpoint videos: there is none" in manage(name, "--endpoint", "videos", error=True)
    assert "ENDPOINT is missing" in manage(name, error=True)


def test_endpoint_rollback_undeploy(manage, vertex):
    def deployed(number):
        return {"id": str(number), "model": f"{PARENT}/models/m", "modelVersionId": str(number),
                "displayName": f"m {number}", "createTime": f"2026-11-0{number}T00:00:00Z",
                "dedicatedResources": {"machineSpec": {"machineType": "n1-standard-4"},
                                       "minReplicaCount": 1}}  # fmt: skip

    name = f"{PARENT}/endpoints/5"
    vertex.resources[name] = {
        "name": name, "displayName": "videos", "createTime": "2026-11-01T00:00:00Z",
        "deployedModels": [deployed(1), deployed(2)], "trafficSplit": {"2": 100},
    }  # fmt: skip
    model = f"{PARENT}/models/m"
    vertex.versions[model] = [
        {"name": model, "versionId": "1", "versionAliases": []},
        {"name": model, "versionId": "2", "versionAliases": ["default", "champion"]},
    ]
    vertex.resources[model] = vertex.versions[model][1]
    lines = manage("endpoint", "--endpoint", "videos")
    assert [line.split()[:3] for line in lines] == [["m", "2", "100"], ["m", "1", "0"]]
    said, *lines = manage("rollback", "--endpoint", "videos")
    assert said == "[register] version 1 is now champion, default"
    assert [line.split()[:3] for line in lines] == [["m", "2", "0"], ["m", "1", "100"]]
    assert vertex.versions[model][0]["versionAliases"] == ["champion", "default"]
    (line,) = manage("undeploy", "--endpoint", "videos")
    assert line.startswith("endpoint videos: 2 versions undeployed and the endpoint deleted")
    assert name not in vertex.resources
