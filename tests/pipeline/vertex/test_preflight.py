"""What is missing is said before anything starts, each with what mends it; what is not asked is not
changed."""

import dataclasses

import google.auth.credentials
import google.auth.exceptions
import pytest

from pipeline.targets.vertex import vertex_target
from pipeline.targets.vertex_settings import vertex_settings
from pipeline.vertex.preflight import findings, images_of, preflight, quotas_needed
from tests.vertex_server import HOME, IMAGE, PROJECT, REGION
from trainer.errors import InputError

SPOT_T4 = "custom_model_training_preemptible_nvidia_t4_gpus"
T4 = "custom_model_training_nvidia_t4_gpus"
ACCOUNT = dataclasses.replace(HOME, service_account="sa@my-project-1.iam.gserviceaccount.com")


def target(*settings, home=ACCOUNT, **more):
    return vertex_target(IMAGE, vertex_settings(settings), home, **more)


def found(vertex, *settings, home=ACCOUNT, **more):
    return list(findings(vertex.cloud(home), target(*settings, home=home, **more)))


def problems(vertex, *settings, **more):
    return [one for one in found(vertex, *settings, **more) if one.problem]


def test_a_project_that_has_everything(vertex, capsys):
    preflight(vertex.cloud(ACCOUNT), target("spot=true", home=ACCOUNT))
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("  ok   ") for line in lines)
    assert len(lines) == 4 + 1 + 3 + 1  # with the service account, three images, the quota
    assert not [m for m, path, _ in vertex.requests
                if m not in ("GET", "HEAD") and "testIamPermissions" not in path]  # fmt: skip


def test_all_that_is_missing_is_said_before_it_fails(vertex, capsys):
    vertex.answers[r"GET /serviceusage/v1/.*:batchGet"] = (200, {"services": []})
    vertex.answers[r"HEAD /registry/v2/.*"] = (404, None)
    with pytest.raises(InputError, match=r"not ready: APIs of my-project-1, image .*vertex-setup"):
        preflight(vertex.cloud(ACCOUNT), target())
    lines = capsys.readouterr().out
    assert lines.count("fail ") == 4
    assert "gcloud services enable aiplatform.googleapis.com storage.googleapis.com " in lines


def test_apis(vertex):
    vertex.answers[r"GET /serviceusage/v1/.*:batchGet"] = (200, {"services": [
        {"config": {"name": "aiplatform.googleapis.com"}, "state": "ENABLED"},
        {"config": {"name": "storage.googleapis.com"}, "state": "DISABLED"},
        {"config": {"name": "artifactregistry.googleapis.com"}, "state": "ENABLED"},
    ]})  # fmt: skip
    (one,) = problems(vertex)
    assert one.problem == "storage.googleapis.com not enabled"
    assert one.mend == f"gcloud services enable storage.googleapis.com --project={PROJECT}"
    (one,) = problems(vertex, beam_pipeline_args=["--runner=DataflowRunner"])
    assert "dataflow.googleapis.com" in one.problem


def test_no_such_project(vertex):
    vertex.answers[r"GET /serviceusage/v1/.*:batchGet"] = (404, {"error": {"message": "gone"}})
    (one,) = problems(vertex)
    assert (one.what, one.mend) == (f"project {PROJECT}", "gcloud projects list")


def test_permissions(vertex):
    vertex.answers[r"POST /cloudresourcemanager/.*"] = (200, {})
    (one,) = problems(vertex)
    assert "lacks aiplatform.pipelineJobs.create, aiplatform.pipelineJobs.get" in one.problem
    assert "--role=roles/aiplatform.user" in one.mend


@pytest.mark.parametrize(
    ("answer", "words", "mend"),
    [
        ((404, {}), "there is none", "make vertex-setup"),
        ((200, {}), "may not start steps as it", "roles/iam.serviceAccountUser"),
    ],
)
def test_service_account(vertex, answer, words, mend):
    vertex.answers[r"POST /iam/.*"] = answer
    (one,) = problems(vertex, home=ACCOUNT)
    assert words in one.problem
    assert mend in one.mend
    assert one.fatal


@pytest.mark.parametrize(
    ("answer", "words", "mend"),
    [
        ((404, {}), "there is none", "gcloud storage buckets create gs://data "),
        ((200, {"location": "EUROPE-WEST4", "locationType": "region"}),
         "is in EUROPE-WEST4, expected us-central1", "REGION=europe-west4"),
        ((200, {"location": "EU", "locationType": "multi-region"}),
         "is in EU, expected", "another BUCKET in us-central1"),
        ((200, {"location": "NAM4", "locationType": "dual-region",
                "customPlacementConfig": {"dataLocations": ["US-EAST1", "US-WEST1"]}}),
         "is in NAM4", ""),
    ],
)  # fmt: skip
def test_bucket(vertex, answer, words, mend):
    vertex.answers[r"GET /storage/storage/v1/b/data"] = answer
    (one,) = problems(vertex)
    assert words in one.problem
    assert mend in one.mend
    assert one.fatal


def test_a_bucket_that_can_not_be_written_to(vertex):
    pattern = r"GET /storage/storage/v1/b/data/iam/testPermissions"
    vertex.answers[pattern] = (200, {"permissions": ["storage.objects.get"]})
    (one,) = problems(vertex)
    assert one.problem == "this account lacks storage.objects.create, storage.objects.list on it"
    assert "--role=roles/storage.objectUser" in one.mend
    vertex.answers[pattern] = (403, {})  # of somebody else
    (one,) = problems(vertex)
    assert one.fatal


def test_a_bucket_that_may_be_used_but_not_looked_at(vertex):
    vertex.answers[r"GET /storage/storage/v1/b/data"] = (403, {})
    (one,) = problems(vertex)
    assert one.problem == "may not be looked at: is it in the region?"
    assert not one.fatal


def test_no_service_account_is_a_note(vertex):
    (one,) = problems(vertex, home=HOME)
    assert "steps run as Compute Engine's default one" in one.problem
    assert not one.fatal


@pytest.mark.parametrize(
    ("settings", "parallel", "needed"),
    [
        ([], 1, {T4: 1}),
        (["spot=true", "workers=2", "accelerators=2"], 1, {SPOT_T4: 4}),
        (["spot=true", "evaluate_accelerators=2"], 1, {SPOT_T4: 1, T4: 2}),
        (["evaluate_accelerators=2"], 3, {T4: 3}),
        (["accelerator="], 1, {}),
        (["endpoint=e", "serving_machine=g2-standard-8", "serving_accelerator=NVIDIA_L4",
          "replicas=2", "most_replicas=2", "batch_source=gs://b/x", "batch_destination=gs://b/y",
          "batch_replicas=3"], 1, {T4: 1, "custom_model_serving_nvidia_l4_gpus": 5}),
    ],
)  # fmt: skip
def test_quotas_that_a_run_takes_at_once(settings, parallel, needed):
    found = quotas_needed(target(*settings), parallel)
    assert found == {f"aiplatform.googleapis.com/{name}": count for name, count in needed.items()}


@pytest.mark.parametrize(
    "answer",
    [
        {"location": "US", "locationType": "multi-region"},
        {"location": "US-CENTRAL1", "locationType": "region"},
        {"location": "NAM4", "locationType": "dual-region"},
        {"location": "US", "locationType": "dual-region",
         "customPlacementConfig": {"dataLocations": ["US-CENTRAL1", "US-EAST1"]}},
    ],
)  # fmt: skip
def test_buckets_that_have_the_region(vertex, answer):
    vertex.answers[r"GET /storage/storage/v1/b/data"] = (200, answer)
    assert not problems(vertex)


def test_a_bucket_of_another_project_is_a_note(vertex):
    content = {"location": "US", "locationType": "multi-region", "projectNumber": "666"}
    vertex.answers[r"GET /storage/storage/v1/b/data"] = (200, content)
    (one,) = problems(vertex)
    assert one.problem == "is of another project, number 666, and not of my-project-1"
    assert not one.fatal
    vertex.answers[r"GET /cloudresourcemanager/.*"] = (403, {})
    vertex.answers = dict(reversed(vertex.answers.items()))
    assert not problems(vertex)


@pytest.mark.parametrize(
    ("status", "words", "fatal"),
    [
        (404, "is not in its registry", True),
        (401, "can not be pulled (401)", True),
        (403, "can not be pulled (403)", True),
        (500, "its registry answers 500", False),
    ],
)
def test_images(vertex, status, words, fatal):
    vertex.answers[r"HEAD /registry/v2/.*/nextvlad-pipeline-gpu/manifests/fixed"] = (status, None)
    vertex.answers = dict(reversed(vertex.answers.items()))
    (one,) = problems(vertex)
    assert words in one.problem
    assert one.fatal == fatal
    assert "-gpu:fixed" in one.what


def test_images_that_no_service_can_pull(vertex):
    local = vertex_target("nextvlad-pipeline-{kind}:fixed", vertex_settings([]), ACCOUNT)
    lines = [one.line() for one in findings(vertex.cloud(ACCOUNT), local) if one.problem]
    assert len(lines) == 3
    assert all("has no registry in its name" in line for line in lines)


def test_another_registry_is_not_shown_the_credentials(vertex):
    vertex.answers[r"HEAD /elsewhere/v2/.*"] = (401, None)
    one = vertex_target("registry.example/x-{kind}:1", vertex_settings([]), ACCOUNT)
    notes = [one for one in findings(vertex.cloud(ACCOUNT), one) if one.problem]
    assert len(notes) == 3
    assert not any(one.fatal for one in notes)
    assert "its registry does not say (401)" in notes[0].problem
    asked = [path for method, path, _ in vertex.requests if method == "HEAD"]
    assert len(asked) == 3
    assert not vertex.shown & set(asked)
    assert vertex.shown


def test_only_the_images_that_are_used(vertex):
    assert len(images_of(target())) == 3
    cpu = images_of(target("accelerator=", "registered_model="))
    assert {one.rpartition("-")[2] for one in cpu} == {"cpu:fixed"}
    dataflow = images_of(target(beam_pipeline_args=["--sdk_container_image=r/x-dataflow:fixed"]))
    assert "r/x-dataflow:fixed" in dataflow


def quota(metric, value, region=REGION):
    details = {"value": value} if value else {}
    return {"quotaInfos": [{"metric": f"aiplatform.googleapis.com/{metric}", "dimensionsInfos": [
        {"applicableLocations": ["europe-west4"], "details": {"value": "99"}},
        {"applicableLocations": [region], "details": details},
    ]}]}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "answer", "words", "fatal"),
    [
        ([], quota(T4, ""), "0, expected at least 1 (aiplatform.googleapis.com/" + T4, True),
        (["workers=3"], quota(T4, "2"), "2, expected at least 3", True),
        (["spot=true"], quota(SPOT_T4, "0"), "0, expected at least 1", True),
        (["spot=true"], quota(T4, "9"), "there is no quota", False),
        ([], quota(T4, "9", "us-east1"), "0, expected at least 1", True),
    ],
)
def test_quota(vertex, settings, answer, words, fatal):
    vertex.answers[r"GET /cloudquotas/.*"] = (200, answer)
    (one,) = problems(vertex, *settings)
    assert words in one.problem
    assert one.fatal == fatal
    assert "us-central1" in one.what


@pytest.mark.parametrize("value", ["4", "-1"])
def test_quota_that_suffices(vertex, value):
    vertex.answers[r"GET /cloudquotas/.*"] = (200, quota(T4, value))
    assert not problems(vertex, "workers=4")


def test_no_quota_is_asked_for_without_accelerators(vertex):
    assert not problems(vertex, "accelerator=")
    assert not vertex.sent(r"GET /cloudquotas/.*")


def test_what_may_not_be_looked_at_is_a_note(vertex):
    for pattern in (r"GET /serviceusage/v1/.*:batchGet", r"GET /cloudquotas/.*"):
        vertex.answers[pattern] = (403, {"error": {"message": "denied"}})
    notes = problems(vertex)
    assert [one.fatal for one in notes] == [False, False]
    assert notes[0].line().startswith("note APIs: may not be looked at (")
    preflight(vertex.cloud(ACCOUNT), target(), lambda _: None)


def test_a_service_that_does_not_answer(vertex):
    vertex.faults.append((r"POST /cloudresourcemanager/.*", 503))
    vertex.faults.append((r"GET /storage/.*", "cut"))
    one, two = problems(vertex)
    assert "can not answer now (fault 503)" in one.problem
    assert "can not be reached" in two.problem


class Expired(google.auth.credentials.Credentials):
    def refresh(self, _request):
        raise google.auth.exceptions.RefreshError("invalid_grant: Token has been expired")


def test_credentials_that_have_expired(vertex):
    (one,) = list(findings(vertex.cloud(credentials=Expired()), target()))
    assert "have expired or were revoked" in one.problem
    assert one.mend == "gcloud auth application-default login"
    assert not vertex.requests
