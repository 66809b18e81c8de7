"""A batch prediction job: the whole request, its end, and never two of one run."""

import os
import signal

import pytest

from components.batch_predict import step
from components.batch_predict.step import Batch, run_batch_predict
from tests.vertex_server import PARENT, PROJECT, REGION
from trainer.errors import InputError

MODEL = f"{PARENT}/models/videos@3"
CREATE = rf"POST /v1/{PARENT}/batchPredictionJobs"
BATCH = Batch(
    "gs://data/a*.tfrecord, gs://data/b.tfrecord", "gs://data/out", "g2-standard-8", "NVIDIA_L4",
    replicas=3, labels={"team": "video"}, run="run-1",
)  # fmt: skip
WELL = {
    "state": "JOB_STATE_SUCCEEDED",
    "outputInfo": {"gcsOutputDirectory": "gs://data/out/prediction-1"},
    "completionStats": {"successfulCount": "1000"},
}


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(step, "POLL_SECONDS", 0.02)


def predict(batch=BATCH):
    return run_batch_predict(PROJECT, REGION, MODEL, batch)


def test_the_whole_request(vertex, capsys):
    vertex.finished["batchPredictionJobs"] = WELL
    assert predict() == "gs://data/out/prediction-1"
    (body,) = vertex.sent(CREATE)
    assert body == {
        "displayName": "nextvlad run-1",
        "model": MODEL,
        "labels": {"team": "video"},
        "inputConfig": {
            "instancesFormat": "tf-record",
            "gcsSource": {"uris": ["gs://data/a*.tfrecord", "gs://data/b.tfrecord"]},
        },
        "outputConfig": {
            "predictionsFormat": "jsonl",
            "gcsDestination": {"outputUriPrefix": "gs://data/out"},
        },
        "dedicatedResources": {
            "machineSpec": {
                "machineType": "g2-standard-8", "acceleratorType": 11, "acceleratorCount": 1,
            },
            "startingReplicaCount": 3, "maxReplicaCount": 3,
        },
        "manualBatchTuningParameters": {},
    }  # fmt: skip
    assert "1,000 records in" in capsys.readouterr().out


def test_a_second_try_waits_for_the_job_of_the_first(vertex):
    vertex.finished["batchPredictionJobs"] = WELL
    assert predict() == predict()
    assert len(vertex.sent(CREATE)) == 1


def test_a_lost_job_is_started_again(vertex):
    lost = {"state": "JOB_STATE_FAILED", "error": {"code": 3, "message": "no\nquota"}}
    vertex.finished["batchPredictionJobs"] = lost
    with pytest.raises(InputError, match="run-1: ended as JOB_STATE_FAILED: no quota"):
        predict()
    for one in vertex.resources.values():
        one["state"] = "JOB_STATE_FAILED"
    vertex.finished["batchPredictionJobs"] = WELL
    predict()
    assert len(vertex.sent(CREATE)) == 2


def test_records_without_an_answer_fail_the_step(vertex):
    stats = {"successfulCount": "990", "failedCount": "10"}
    vertex.finished["batchPredictionJobs"] = WELL | {"completionStats": stats}
    with pytest.raises(InputError, match="10 records have no answer, their errors are in gs://"):
        predict()


@pytest.mark.parametrize("field", ["source", "destination"])
def test_places_outside_of_buckets(vertex, field):
    with pytest.raises(InputError, match="batch prediction: '/tmp/x': expected gs://"):
        predict(Batch(**{"source": "gs://a", "destination": "gs://b"} | {field: "/tmp/x"}))
    assert not vertex.requests


def test_a_time_that_is_over_cancels_the_job(vertex, capsys, monkeypatch):
    monkeypatch.setattr(step.time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        predict()
    assert ended.value.code == 143
    assert len(vertex.sent(r"POST .*/batchPredictionJobs/\d+:cancel")) == 1
    assert "[batch_predict] ended by SIGTERM: the job is cancelled" in capsys.readouterr().out
