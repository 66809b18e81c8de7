"""A version for each run, once; the champion is the newest that was blessed."""

import dataclasses

import pytest
from google.cloud import aiplatform

from components.evaluate.champion import resolved
from components.register.step import Version, run_register
from tests.vertex_server import PARENT, PROJECT, REGION
from trainer.errors import InputError

MODEL = f"{PARENT}/models/videos"
UPLOAD = rf"POST /v1/{PARENT}/models:upload"
FIRST = Version(
    "gs://data/run-1/serving_model", "registry.example/serving:fixed", ("prod",),
    {"team": "video"}, "projects/p/locations/l/keyRings/r/cryptoKeys/k", "run-1",
)  # fmt: skip
SECOND = dataclasses.replace(FIRST, artifact_uri="gs://data/run-2/serving_model", run="run-2")


def register(evaluation, version=FIRST, model="videos"):
    return run_register(PROJECT, REGION, model, version, evaluation)


def aliases(vertex):
    return {one["versionId"]: sorted(one["versionAliases"]) for one in vertex.versions[MODEL]}


def test_the_whole_request(vertex, evaluation):
    assert register(evaluation) == f"{MODEL}@1"
    (body,) = vertex.sent(UPLOAD)
    assert body == {
        "modelId": "videos",
        "model": {
            "displayName": "videos",
            "artifactUri": "gs://data/run-1/serving_model",
            "containerSpec": {
                "imageUri": "registry.example/serving:fixed",
                "predictRoute": "/predict",
                "healthRoute": "/health",
                "ports": [{"containerPort": 8080}],
            },
            "versionAliases": ["default"],
            "versionDescription": "GAP@20 0.8123, pipeline run run-1",
            "labels": {"team": "video", "nextvlad_run": "run-1"},
            "encryptionSpec": {"kmsKeyName": FIRST.kms_key},
        },
    }
    assert aliases(vertex) == {"1": ["champion", "default", "prod"]}


def test_the_next_run_makes_a_version_and_takes_the_aliases(vertex, evaluation):
    register(evaluation)
    assert register(evaluation, SECOND) == f"{MODEL}@2"
    assert vertex.sent(UPLOAD)[1]["parentModel"] == MODEL
    assert "modelId" not in vertex.sent(UPLOAD)[1]
    assert aliases(vertex) == {"1": [], "2": ["champion", "default", "prod"]}


def test_a_second_try_of_a_step_makes_no_second_version(vertex, evaluation):
    register(evaluation)
    # Killed after the upload, before it had its aliases.
    vertex.versions[MODEL][0]["versionAliases"] = ["default"]
    assert register(evaluation) == f"{MODEL}@1"
    assert len(vertex.sent(UPLOAD)) == 1
    assert aliases(vertex) == {"1": ["champion", "default", "prod"]}


def test_a_run_whose_export_was_in_the_cache_has_no_other_model(vertex, evaluation):
    register(evaluation)
    same = dataclasses.replace(SECOND, artifact_uri=FIRST.artifact_uri)
    assert register(evaluation, same) == f"{MODEL}@1"
    assert len(vertex.sent(UPLOAD)) == 1


def test_other_aliases_stay(vertex, evaluation):
    register(evaluation)
    vertex.versions[MODEL][0]["versionAliases"].append("golden")
    register(evaluation, SECOND)
    assert aliases(vertex)["1"] == ["golden"]


def test_the_champion_of_the_next_run(vertex, evaluation, monkeypatch, bucket):
    name = f"{PARENT}/models/videos@champion"
    monkeypatch.setattr("components.evaluate.champion._model_service", lambda _: Service(vertex))
    assert resolved("registered", name) == ("", "")
    register(evaluation)
    blob = bucket.blob("run-1/serving_model/saved_model/saved_model.pb")
    blob.upload_from_string(b"a model")
    uri, digest = resolved("registered", name)
    assert uri == "gs://data/run-1/serving_model"
    assert digest


class Service:
    """The client of the registry, over the same server."""

    def __init__(self, vertex):
        self._vertex = vertex

    def get_model(self, name, timeout):  # noqa: ARG002
        client = aiplatform.initializer.global_config.create_client(
            client_class=aiplatform.utils.ModelClientWithOverride
        )
        return client.get_model(name=name)


def test_a_champion_whose_alias_is_off_for_a_moment(vertex, evaluation, monkeypatch, bucket):
    """It must not let the next model pass without a comparison."""
    monkeypatch.setattr("components.evaluate.champion._model_service", lambda _: Service(vertex))
    bucket.blob("run-1/serving_model/saved_model/saved_model.pb").upload_from_string(b"a model")
    register(evaluation)
    vertex.versions[MODEL][0]["versionAliases"] = ["default"]
    uri, _ = resolved("registered", f"{PARENT}/models/videos@champion")
    assert uri == "gs://data/run-1/serving_model"


def test_registered_needs_a_registry():
    with pytest.raises(InputError, match="champion registered: this pipeline has no Model Reg"):
        resolved("registered")


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        ("My Model", {}, "registered model 'My Model': expected up to 63"),
        ("videos", {"aliases": ["v1!"]}, "alias 'v1!' of model videos: expected 2 to 128"),
        ("videos", {"artifact_uri": "/tmp/x"}, "is at /tmp/x, expected gs://"),
    ],
)
def test_what_can_not_be_registered(vertex, evaluation, model, changes, words):
    with pytest.raises(InputError, match=words):
        register(evaluation, dataclasses.replace(FIRST, **changes), model)
    assert not vertex.requests


@pytest.mark.parametrize(
    ("fault", "words"),
    [(403, "does not let this account do that"), (400, "refuses it: fault 400"), (429, "no quota")],
)
def test_a_refusal_is_one_line(vertex, evaluation, fault, words):
    vertex.faults.append((UPLOAD, fault))
    with pytest.raises(InputError, match=f"Vertex AI: model videos of the registry: {words}"):
        register(evaluation)
    assert not vertex.versions.get(MODEL)
