"""The real SDK against a server that knows the API: submit, list, cancel, schedule; never twice."""

import pytest
from google.cloud.aiplatform_v1.types import PipelineState, Schedule

from pipeline.compiled_file import compile_target
from pipeline.parameters import configured
from pipeline.targets.vertex import vertex_target
from pipeline.targets.vertex_settings import vertex_settings
from pipeline.vertex.flags import with_places
from pipeline.vertex.jobs import Jobs, Patience, check_cron, check_display_name
from tests.pipeline.test_compile import HOME as EVERY_HOME
from tests.vertex_server import HOME, IMAGE, PARENT
from trainer.errors import InputError

CREATE = rf"POST /v1/{PARENT}/pipelineJobs"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("package") / "pipeline.yaml"
    compile_target(vertex_target(IMAGE, vertex_settings([]), HOME), path)
    return path


@pytest.fixture
def parameters():
    return with_places(configured("", ["epochs=3", "model.groups=4"]), HOME)


@pytest.fixture
def jobs(vertex):
    return Jobs(vertex.cloud(), Patience(3.0, 0.01))


def test_the_whole_request(vertex, package, parameters):
    jobs = Jobs(vertex.cloud(EVERY_HOME))
    jobs.submit(package, "run-1", parameters, "a name", {"team": "video"})
    (body,) = vertex.sent(CREATE)
    spec = body.pop("pipelineSpec")
    assert spec["pipelineInfo"]["name"] == "nextvlad-training"
    assert body == {
        "displayName": "a name",
        "labels": {"team": "video"},
        "serviceAccount": EVERY_HOME.service_account,
        "network": EVERY_HOME.network,
        "encryptionSpec": {"kmsKeyName": EVERY_HOME.kms_key},
        "runtimeConfig": {
            "gcsOutputDirectory": "gs://data/nextvlad/artifacts",
            "failurePolicy": 2,
            "parameterValues": parameters,
        },
    }
    assert parameters["checkpoint_root"] == "gs://data/nextvlad/checkpoints"


def test_a_lost_answer_starts_no_second_run(vertex, jobs, package, parameters):
    vertex.faults.append((CREATE, "lost"))
    job = jobs.submit(package, "run-1", parameters)
    assert job.resource_name == f"{PARENT}/pipelineJobs/run-1"
    assert len(jobs.latest()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, "cut"])
def test_a_service_that_fails_for_a_while(vertex, jobs, package, parameters, fault):
    vertex.faults.extend([(CREATE, fault)] * 2)
    jobs.submit(package, "run-1", parameters)
    vertex.faults.extend([(r"GET .*/run-1", fault)] * 2)
    assert jobs.job("run-1").state == PipelineState.PIPELINE_STATE_RUNNING
    assert not vertex.faults


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (400, "refuses it: fault 400"),
        (401, "does not take the credentials: gcloud auth application-default login"),
        (403, "does not let this account do that: docs/vertex.md has the roles"),
        (404, "is not there"),
    ],
)
def test_a_refusal_is_one_line(vertex, jobs, package, parameters, fault, words):
    # A token that is not taken is renewed, and tried twice more.
    vertex.faults.extend([(CREATE, fault)] * (3 if fault == 401 else 1))
    with pytest.raises(InputError, match="pipeline job run-1") as failure:
        jobs.submit(package, "run-1", parameters)
    assert words in str(failure.value)
    assert "\n" not in str(failure.value)
    assert not vertex.faults
    assert len(vertex.sent(CREATE)) == (3 if fault == 401 else 1)


def test_a_token_that_expires_is_renewed(vertex, jobs, package, parameters):
    vertex.faults.append((CREATE, 401))
    jobs.submit(package, "run-1", parameters)
    assert len(vertex.sent(CREATE)) == 2


@pytest.mark.parametrize("request_", ["submit", "job", "list"])
def test_something_else_that_answers(vertex, jobs, package, parameters, request_):
    """A proxy's page to log in at, where the API should be."""
    vertex.faults.append((r".*/pipelineJobs.*", "page"))
    with pytest.raises(InputError, match="something else than its API answers: is a proxy"):
        if request_ == "submit":
            jobs.submit(package, "run-1", parameters)
        elif request_ == "job":
            jobs.job("run-1")
        else:
            jobs.latest()


def test_patience_ends(vertex, jobs, package, parameters):
    vertex.faults.extend([(CREATE, 503)] * 1000)
    with pytest.raises(InputError, match=r"run-1: can not answer now \(fault 503\)"):
        Jobs(jobs.cloud, Patience(0.1, 0.01)).submit(package, "run-1", parameters)
    assert 2 <= len(vertex.sent(CREATE)) < 20


def test_a_wrong_parameter_is_refused(vertex, jobs, package, parameters):
    with pytest.raises(InputError, match=r"run-1: .*epoch"):
        jobs.submit(package, "run-1", {**parameters, "epoch": 3})


def test_names_that_can_not_be(vertex, jobs, package, parameters):
    with pytest.raises(InputError, match="pipeline job 'Run 1': expected up to 127 of a-z"):
        jobs.submit(package, "Run 1", parameters)
    with pytest.raises(InputError, match="has 129 characters, expected at most 128"):
        jobs.submit(package, "run-1", parameters, "x" * 129)
    with pytest.raises(InputError, match="display name 'a\\\\nb'"):
        check_display_name("a\nb")
    check_display_name("Ünïcödé " + "x" * 120)
    assert not vertex.sent(CREATE)


def test_list_and_cancel(vertex, jobs, package, parameters):
    for number in (1, 2):
        jobs.submit(package, f"run-{number}", parameters)
    assert [one.name for one in jobs.latest()] == ["run-2", "run-1"]
    jobs.cancel("run-1")
    assert jobs.job("run-1").state == PipelineState.PIPELINE_STATE_CANCELLED
    with pytest.raises(InputError, match="pipeline job run-9: is not there"):
        jobs.cancel("run-9")


def test_a_schedule_is_made_once_paused_resumed_and_deleted(vertex, jobs, package, parameters):
    vertex.faults.append((rf"POST /v1/{PARENT}/schedules", "lost"))
    jobs.schedule(package, "nightly", "TZ=Europe/Berlin 0 3 * * *", parameters, {"team": "video"})
    (body,) = vertex.sent(rf"POST /v1/{PARENT}/schedules")
    request = body.pop("createPipelineJobRequest")
    assert request["parent"] == PARENT
    assert request["pipelineJob"]["runtimeConfig"]["parameterValues"] == parameters
    assert request["pipelineJob"]["labels"] == {"team": "video"}
    assert body == {
        "displayName": "nightly", "cron": "TZ=Europe/Berlin 0 3 * * *",
        "maxConcurrentRunCount": "1", "maxConcurrentActiveRunCount": "1",
    }  # fmt: skip
    (one,) = jobs.schedules("nightly")
    assert one.gca_resource.state == Schedule.State.ACTIVE
    with pytest.raises(InputError, match="nightly: there is one already: WHEN=delete ends it"):
        jobs.schedule(package, "nightly", "0 3 * * *", parameters)
    jobs.change_schedule("nightly", "pause")
    assert jobs.schedules()[0].gca_resource.state == Schedule.State.PAUSED
    jobs.change_schedule("nightly", "resume")
    assert jobs.schedules()[0].gca_resource.state == Schedule.State.ACTIVE
    jobs.change_schedule("nightly", "delete")
    assert not jobs.schedules()
    with pytest.raises(InputError, match="schedule nightly: there is none"):
        jobs.change_schedule("nightly", "pause")


@pytest.mark.parametrize("cron", ["0 3 * * *", "*/5 1-3 1,15 * MON", "CRON_TZ=Etc/GMT+3 0 3 * * 1"])
def test_times(cron):
    check_cron(cron)


@pytest.mark.parametrize(
    "cron", ["", "daily", "0 0 3 * * *", "0 3 * *", "TZ=Berlin Mitte 0 3 * * *", "0 3 * * $(rm)"]
)
def test_times_that_can_not_be(cron):
    with pytest.raises(InputError, match="expected five fields of cron"):
        check_cron(cron)
