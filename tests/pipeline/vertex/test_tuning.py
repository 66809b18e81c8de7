"""A tuning job on the data of a finished run: the whole request, its trials, its end."""

import json

import pytest
from google.cloud import aiplatform_v1
from google.protobuf import json_format

from pipeline.parameters import configured
from pipeline.targets.vertex import vertex_target
from pipeline.targets.vertex_settings import vertex_settings
from pipeline.vertex.jobs import Jobs, Patience
from pipeline.vertex.tuning import (
    Study,
    follow,
    ranked,
    setting_name,
    start,
    trainer_arguments,
)
from tests.pipeline.test_compile import HOME
from tests.vertex_server import IMAGE, PARENT, task
from trainer.errors import InputError
from trainer.task import configuration, make_parser

CREATE = rf"POST /v1/{PARENT}/hyperparameterTuningJobs"
SPACE = ("learning_rate=1e-4..1e-2:log", "cluster_size=64,128", "groups=4..8", "name=nextvlad,dbof")
OUTPUTS = {
    "examples": ("gs://data/examples", {}), "example_statistics": ("gs://data/statistics", {}),
}  # fmt: skip


def finished_run(**parameters):
    overrides = {"data": {"holdout_shards": 1}, "training": {"baseline": "mean_pooling"}}
    values = {"model": "nextvlad", "epochs": 3.0, "batch_size": 32.0, "seed": 0.0,
              "learning_rate": 0.002, "min_gap": 0.5, "champion": "", "data_source": "sample",
              "overrides": json.dumps(overrides)} | parameters  # fmt: skip
    content = {
        "name": f"{PARENT}/pipelineJobs/run-1",
        "runtimeConfig": {"parameterValues": values, "gcsOutputDirectory": "gs://data"},
        "jobDetail": {"taskDetails": [task("statistics", "SUCCEEDED", 0, 5, outputs=OUTPUTS)]},
    }
    return aiplatform_v1.PipelineJob(
        json_format.ParseDict(content, aiplatform_v1.PipelineJob()._pb)
    )


@pytest.fixture
def jobs(vertex):
    return Jobs(vertex.cloud(HOME), Patience(2.0, 0.01))


def target(*settings):
    return vertex_target(IMAGE, vertex_settings(settings), HOME)


def trial(number, state, gap=None, **parameters):
    content = {
        "id": str(number), "state": state,
        "startTime": "2026-11-01T00:00:00Z", "endTime": "2026-11-01T01:30:00Z",
        "parameters": [{"parameterId": k, "value": v} for k, v in parameters.items()],
    }  # fmt: skip
    if gap is not None:
        content["finalMeasurement"] = {"metrics": [{"metricId": "holdout_gap", "value": gap}]}
    return content


def test_the_whole_request(vertex, jobs):
    arguments = trainer_arguments(finished_run(), {})
    one = target("spot=true", "train_hours=2", "labels=team:video", "disk_gb=300")
    start(jobs, one, Study("search", SPACE, 12, 3), arguments)
    (body,) = vertex.sent(CREATE)
    pools = body["trialJobSpec"].pop("workerPoolSpecs")
    assert body == {
        "displayName": "search",
        "labels": {"application": "nextvlad-pipeline", "team": "video"},
        "encryptionSpec": {"kmsKeyName": HOME.kms_key},
        "maxTrialCount": 12, "parallelTrialCount": 3, "maxFailedTrialCount": 3,
        "studySpec": {
            "metrics": [{"metricId": "holdout_gap", "goal": 1}],
            "parameters": [
                {"parameterId": "learning_rate", "scaleType": 2,
                 "doubleValueSpec": {"minValue": 0.0001, "maxValue": 0.01}},
                {"parameterId": "cluster_size", "scaleType": 1,
                 "discreteValueSpec": {"values": [64, 128]}},
                {"parameterId": "groups", "scaleType": 1,
                 "integerValueSpec": {"minValue": "4", "maxValue": "8"}},
                {"parameterId": "name",
                 "categoricalValueSpec": {"values": ["nextvlad", "dbof"]}},
            ],
        },
        "trialJobSpec": {
            "scheduling": {"timeout": "7200s", "strategy": 4},
            "serviceAccount": HOME.service_account,
            "network": HOME.network,
            "baseOutputDirectory": {"outputUriPrefix": "gs://data/nextvlad/tuning/search"},
        },
    }  # fmt: skip
    assert pools == [{
        "machineSpec": {
            "machineType": "n1-standard-8", "acceleratorType": 5, "acceleratorCount": 1,
        },
        "replicaCount": "1",
        "diskSpec": {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 300},
        "containerSpec": {
            "imageUri": IMAGE.replace("{kind}", "gpu"),
            "command": ["python3", "-m", "trainer.task"],
            "args": arguments,
        },
    }]  # fmt: skip


def test_the_trainer_takes_what_a_trial_is_given(monkeypatch):
    monkeypatch.setenv("AIP_MODEL_DIR", "gs://data/nextvlad/tuning/search/7/model/")
    monkeypatch.setenv("AIP_CHECKPOINT_DIR", "gs://data/nextvlad/tuning/search/7/checkpoints/")
    arguments = trainer_arguments(finished_run(), {"batch_size": 16})
    # As Vertex AI adds a trial's choice: a discrete parameter as a float.
    given = [*arguments, "--learning_rate=0.0005", "--cluster_size=128.0", "--groups=4"]
    options = make_parser().parse(given)
    assert options.output == "gs://data/nextvlad/tuning/search/7/model/"
    assert options.checkpoints == "gs://data/nextvlad/tuning/search/7/checkpoints/"
    assert (options.examples, options.statistics) == ("gs://data/examples", "gs://data/statistics")
    config = configuration(options)
    assert config.training.learning_rate == 0.0005
    assert (config.model.cluster_size, config.model.groups) == (128, 4)
    assert (config.training.batch_size, config.training.epochs) == (16, 3)
    assert config.training.baseline == ""


def test_a_lost_answer_starts_no_second_job(vertex, jobs):
    vertex.faults.append((CREATE, "lost"))
    start(jobs, target(), Study("search", SPACE), [])
    assert len(vertex.sent(CREATE)) == 1


def test_trials_and_the_best_of_them(vertex, jobs, capsys):
    started = start(jobs, target(), Study("search", SPACE), [])
    vertex.finished["hyperparameterTuningJobs"] = {
        "state": "JOB_STATE_SUCCEEDED",
        "trials": [
            trial(1, "SUCCEEDED", 0.71, learning_rate=0.001, cluster_size=64.0),
            trial(2, "INFEASIBLE", learning_rate=0.1),
            trial(3, "SUCCEEDED", 0.74, learning_rate=0.00051, cluster_size=128.0),
        ],
    }
    job = follow(jobs, started.name, 0.01)
    assert [one.id for one in ranked(job)] == ["3", "1"]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "  trial 1: holdout_gap 0.7100 in 1:30:00: learning_rate 0.001, cluster_size 64",
        "  trial 2: infeasible in 1:30:00: learning_rate 0.1",
        "  trial 3: holdout_gap 0.7400 in 1:30:00: learning_rate 0.00051, cluster_size 128",
        "",
        "best of 2: trial 3: holdout_gap 0.7400 in 1:30:00: learning_rate 0.00051, "
        "cluster_size 128",
        "take it: make pipeline-run TARGET=vertex … "
        'SET="learning_rate=0.00051 model.cluster_size=128"',
    ]


def test_what_is_to_be_taken_is_taken():
    names = {"learning_rate": "learning_rate", "cluster_size": "model.cluster_size",
             "name": "model", "model.groups": "model.groups"}  # fmt: skip
    assert {name: setting_name(name) for name in names} == names
    values = {"learning_rate": 0.01, "model.cluster_size": 16, "model": "dbof", "model.groups": 4}
    settings = [f"{name}={values[name]}" for name in names.values()]
    assert configured("", settings)["learning_rate"] == 0.01


def test_a_name_that_is_taken(vertex, jobs):
    start(jobs, target(), Study("search", SPACE), [])
    with pytest.raises(InputError, match="search: there is one already, give another name"):
        start(jobs, target(), Study("search", SPACE, 40), [])
    assert len(vertex.sent(CREATE)) == 1


def test_a_job_without_a_result(vertex, jobs):
    started = start(jobs, target(), Study("search", SPACE), [])
    vertex.finished["hyperparameterTuningJobs"] = {
        "state": "JOB_STATE_FAILED", "error": {"code": 3, "message": "too many\nfailed trials"},
    }  # fmt: skip
    with pytest.raises(InputError, match="search: no trial has a result: too many failed trials"):
        follow(jobs, started.name, 0.01)


def test_more_at_once_than_in_all(vertex, jobs):
    with pytest.raises(InputError, match="PARALLEL is 9, expected 1 to TRIALS, which is 3"):
        start(jobs, target(), Study("search", SPACE, 3, 9), [])
    assert not vertex.sent(CREATE)
