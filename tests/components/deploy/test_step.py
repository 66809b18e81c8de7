"""Versions on an endpoint: shares of the traffic, what stays to roll back to, what is taken off."""

import pytest

from components.deploy.step import Deployment, by_age, endpoint_named, run_deploy
from components.register.step import Version, run_register
from pipeline.vertex.endpoints import describe, roll_back, undeploy
from tests.vertex_server import PARENT, PROJECT, REGION
from trainer.errors import InputError

MODEL = f"{PARENT}/models/videos"
CREATE = rf"POST /v1/{PARENT}/endpoints"
DEPLOY = rf"POST /v1/{PARENT}/endpoints/\d+:deployModel"


@pytest.fixture
def versions(vertex, evaluation):
    """Names of four versions of a model."""
    return [
        run_register(
            PROJECT, REGION, "videos", Version(f"gs://data/{n}", "r.example/s:1", run=f"run-{n}"),
            evaluation,
        )
        for n in range(1, 5)
    ]  # fmt: skip


def deploy(model, **settings):
    return run_deploy(PROJECT, REGION, model, "videos", Deployment(**settings))


def aliases(vertex):
    return {one["versionId"]: sorted(one["versionAliases"]) for one in vertex.versions[MODEL]}


def shares(vertex):
    """Percent by version; absent: not deployed."""
    (endpoint,) = [one for name, one in vertex.resources.items() if "/endpoints/" in name]
    return {
        int(one["modelVersionId"]): endpoint["trafficSplit"].get(one["id"], 0)
        for one in endpoint.get("deployedModels", [])
    }


def test_the_whole_request(vertex, versions):
    settings = {
        "machine_type": "g2-standard-8", "accelerator": "NVIDIA_L4", "accelerators": 1,
        "replicas": 2, "most_replicas": 5, "service_account": "sa@p.iam.gserviceaccount.com",
        "labels": {"team": "video"},
        "kms_key": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
    }  # fmt: skip
    name = deploy(versions[0], traffic=20, **settings)
    (body,) = vertex.sent(CREATE)
    assert body == {
        "displayName": "videos", "labels": {"team": "video"},
        "encryptionSpec": {"kmsKeyName": settings["kms_key"]},
    }  # fmt: skip
    (body,) = vertex.sent(DEPLOY)
    assert body == {
        "deployedModel": {
            "model": f"{MODEL}@1",
            "displayName": "videos 1",
            "serviceAccount": settings["service_account"],
            "dedicatedResources": {
                "machineSpec": {
                    "machineType": "g2-standard-8", "acceleratorType": 11, "acceleratorCount": 1,
                },
                "minReplicaCount": 2, "maxReplicaCount": 5,
            },
        },
        "trafficSplit": {"0": 100},  # the only one there takes all
    }  # fmt: skip
    assert name == endpoint_named("videos").resource_name


def test_shares_and_what_is_kept(vertex, versions):
    deploy(versions[0])
    deploy(versions[1], traffic=20)
    assert shares(vertex) == {1: 80, 2: 20}
    deploy(versions[2], keep=1)
    assert shares(vertex) == {1: 0, 3: 100}  # what had most of the traffic before stays
    deploy(versions[3], keep=0)
    assert shares(vertex) == {4: 100}
    assert len(vertex.sent(CREATE)) == 1


def test_canaries_do_not_add_up(vertex, versions):
    """The new one, the one that has most, and as many as are kept: no more is paid for."""
    deploy(versions[0])
    for number, version in enumerate(versions[1:], 2):
        deploy(version, traffic=10, keep=1)
        assert shares(vertex)[number] == 10
        assert shares(vertex)[1] == 90
        assert len(shares(vertex)) <= 3


def test_a_version_without_traffic_is_not_taken_off_at_once(vertex, versions):
    deploy(versions[0])
    deploy(versions[1], traffic=0, keep=0)
    assert shares(vertex) == {1: 100, 2: 0}


def test_what_comes_after_a_rollback(vertex, versions):
    """The version that was taken back is the first to go, and never what is gone back to."""
    deploy(versions[0])
    deploy(versions[1])
    roll_back("videos")
    assert aliases(vertex) == {"1": ["champion", "default"], "2": [], "3": [], "4": []}
    deploy(versions[2])
    assert shares(vertex) == {1: 0, 3: 100}
    roll_back("videos")
    assert shares(vertex) == {1: 100, 3: 0}


def test_a_second_try_deploys_nothing_twice(vertex, versions):
    deploy(versions[0])
    # The service gives a model by the number of its project.
    (endpoint,) = [one for name, one in vertex.resources.items() if "/endpoints/" in name]
    endpoint["deployedModels"][0]["model"] = MODEL.replace(PROJECT, "123456")
    deploy(versions[0])
    assert len(vertex.sent(DEPLOY)) == 1


def test_several_endpoints_of_a_name(vertex, versions):
    deploy(versions[0])
    (name,) = [name for name in vertex.resources if "/endpoints/" in name]
    vertex.resources[f"{name}9"] = vertex.resources[name] | {"name": f"{name}9"}
    with pytest.raises(InputError, match="has 2 endpoints videos, expected one: delete some"):
        deploy(versions[1])


@pytest.mark.parametrize(
    ("pattern", "fault", "words"),
    [(CREATE, 403, "does not let this account"), (DEPLOY, 429, "no quota is left")],
)
def test_a_refusal_is_one_line(vertex, versions, pattern, fault, words):
    vertex.faults.append((pattern, fault))
    with pytest.raises(InputError, match=f"Vertex AI: endpoint videos: {words}"):
        deploy(versions[0])


def test_roll_back_and_undeploy(vertex, versions):
    deploy(versions[0])
    with pytest.raises(InputError, match="videos: no version from before is deployed there"):
        roll_back("videos")
    deploy(versions[1])
    assert shares(vertex) == {1: 0, 2: 100}
    lines = roll_back("videos")
    assert shares(vertex) == {1: 100, 2: 0}
    assert lines == describe("videos")
    assert lines[0].split() == ["videos", "2", "0", "%", "1", "×", "n1-standard-4"]
    assert lines[1].split()[:4] == ["videos", "1", "100", "%"]
    # From there it goes no further back; the next deployment takes over.
    with pytest.raises(InputError, match="no version from before"):
        roll_back("videos")
    deploy(versions[2])
    assert shares(vertex) == {1: 0, 3: 100}
    assert [one.model_version_id for one in by_age(endpoint_named("videos"))] == ["1", "3"]
    assert undeploy("videos") == 2
    assert endpoint_named("videos") is None
    assert len(vertex.versions[MODEL]) == 4


def test_no_such_endpoint(vertex):
    for command in (describe, roll_back, undeploy):
        with pytest.raises(InputError, match="endpoint videos: there is none in this project"):
            command("videos")
        with pytest.raises(InputError, match="ENDPOINT is missing"):
            command("")
