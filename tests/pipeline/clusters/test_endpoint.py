"""KFP's real client against a server that rejects what the real one does not know."""

import socket
import time

import pytest

from pipeline.clusters.connection import token_in
from pipeline.clusters.endpoint import Endpoint, trigger_of
from pipeline.compiled_file import compile_target
from pipeline.targets.kubernetes import KubernetesTarget
from tests.kfp_server import KfpServer
from tests.pipeline.clusters.conftest import QUICK
from trainer.errors import InputError

PARAMETERS = {"data_source": "sample", "epochs": 2, "overrides": "{}"}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_target(
        KubernetesTarget("kubernetes", "registry.example/x-cpu:1", "registry.example/x-cpu:1"), path
    )
    return path


def test_a_run_is_submitted(server, endpoint, package):
    run_id = endpoint.submit(package, "one", PARAMETERS, "mine")
    run = server.runs[run_id]
    assert run["display_name"] == "one"
    assert run["runtime_config"]["parameters"] == PARAMETERS
    assert set(run["pipeline_spec"]) == {"pipeline_spec", "platform_spec"}
    (experiment,) = server.experiments.values()
    assert experiment["display_name"] == "mine"
    assert endpoint.submit(package, "two", PARAMETERS, "mine") != run_id
    assert len(server.experiments) == 1
    assert [run.display_name for run in endpoint.runs()] == ["one", "two"]


@pytest.mark.parametrize("fault", [503, 429, "cut", "lost", "late", "slow"])
def test_a_run_is_started_once_whatever_becomes_of_the_answer(fault, server, endpoint, package):
    server.faults.append(("POST .*/runs$", fault))
    run_id = endpoint.submit(package, "one", PARAMETERS, "mine")
    time.sleep(1.0 if fault == "slow" else 0)  # until the server has done what it was told first
    assert list(server.runs) == [run_id]


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, "cut", "slow", "lost"])
def test_a_poll_goes_on_after_an_outage(fault, server, endpoint, package):
    run_id = endpoint.submit(package, "one", PARAMETERS, "mine")
    server.faults.extend([("GET .*/runs/", fault)] * 2)
    assert endpoint.run(run_id).run_id == run_id
    assert not server.faults


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (400, r"refuses run 7 \(400: as told\)"),
        (401, r"does not take the credentials \(401: as told\).*KFP_TOKEN_FILE"),
        (403, r"does not let this user do that \(403: as told\): run 7"),
        (404, r"has no run 7 \(404: as told\)"),
        (409, r"has run 7 already \(409: as told\)"),
        ("page", "answers something else than KFP's API.*log in"),
    ],
)
def test_a_refusal_is_one_line_at_once(fault, words, server, endpoint):
    server.faults.append(("runs", fault))
    with pytest.raises(InputError, match=words) as caught:
        endpoint.run("7")
    assert "\n" not in str(caught.value)
    assert [path for _, path in server.requests].count("/apis/v2beta1/runs/7") == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [(429, "asked too much"), (503, "can not answer now .503"), ("slow", "does not answer")],
)
def test_patience_ends(fault, words, server, endpoint):
    server.faults.extend([("runs", fault)] * 500)
    with pytest.raises(InputError, match=words):
        endpoint.run("7")


def test_what_the_server_does_not_know_is_refused(server, endpoint, package):
    with pytest.raises(InputError, match=r"unknown parameters \{'epoch'\}"):
        endpoint.submit(package, "one", {"epoch": 1}, "mine")
    assert not server.runs


def test_nobody_is_there():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(InputError, match=rf"KFP at {host} does not answer \(.*Connection refused"):
        Endpoint(host, patience=QUICK)


@pytest.mark.parametrize(
    ("host", "words"),
    [("localhost:8888", "expected an address"), ("", "expected an address")],
)
def test_an_address_that_can_not_be(host, words):
    with pytest.raises(InputError, match=words):
        Endpoint(host)


def test_something_else_is_there(server):
    with pytest.raises(InputError, match="is no KFP endpoint"):
        Endpoint(f"{server.host}/elsewhere", patience=QUICK)
    server.faults.append(("healthz", "page"))
    with pytest.raises(InputError, match="answers something else"):
        Endpoint(server.host, patience=QUICK)


def test_tokens(server, tmp_path):
    server.token = "first"
    with pytest.raises(InputError, match="does not take the credentials"):
        Endpoint(server.host, patience=QUICK)
    Endpoint(server.host, token="first", patience=QUICK)
    file = tmp_path / "token"
    file.write_text("first\n")
    endpoint = Endpoint(server.host, token_file=file, patience=QUICK)
    # It expires, and whoever renews it writes the file anew.
    server.token = "second"
    with pytest.raises(InputError, match="a new one if it has expired"):
        endpoint.runs()
    file.write_text("second\n")
    assert endpoint.runs() == []
    server.logs["pod"] = "hello\n"
    server.runs["7"] = {"run_id": "7"}
    assert endpoint.log("7", "pod") == "hello\n"


def test_a_file_of_a_token_is_asked_before_the_environment(server, tmp_path):
    server.token = "good"
    file = tmp_path / "token"
    file.write_text("good")
    endpoint = Endpoint(server.host, token="old", token_file=file, patience=QUICK)
    file.write_text("")  # is just being written anew
    assert endpoint.runs() == []


def test_a_token_that_no_header_can_carry_is_not_shown(server):
    with pytest.raises(InputError, match="KFP_TOKEN: expected one token, found 2 words") as caught:
        Endpoint(server.host, token="SECRET\nmore", patience=QUICK)
    assert "SECRET" not in str(caught.value)


def test_a_server_that_answers_everything_alike(server):
    server.multi_user = None
    with pytest.raises(InputError, match="answers something else than KFP's API"):
        Endpoint(server.host, patience=QUICK)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), ("", "0 words"), ("a b", "2 words")]
)
def test_token_files_that_hold_none(content, words, tmp_path):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=words):
        token_in(path)


def test_several_users_need_a_namespace(endpoint):
    shared = KfpServer(multi_user=True)
    try:
        with pytest.raises(InputError, match="KFP_NAMESPACE"):
            Endpoint(shared.host, patience=QUICK)
        Endpoint(shared.host, namespace="team", patience=QUICK)
    finally:
        shared.close()


def test_versions_of_a_pipeline(server, endpoint, package):
    pipeline, version = endpoint.upload(package, "nextvlad", "v1")
    assert server.versions == [(pipeline, "v1")]
    assert version
    assert endpoint.upload(package, "nextvlad", "v2")[0] == pipeline
    assert [one["display_name"] for one in server.pipelines.values()] == ["nextvlad"]
    with pytest.raises(InputError, match="has version v2 of pipeline nextvlad already"):
        endpoint.upload(package, "nextvlad", "v2")


@pytest.mark.slow
@pytest.mark.parametrize("fault", [503, "cut", "lost", "late"])
@pytest.mark.parametrize("path", ["pipelines$", "upload_version", "recurringruns$", "experiments$"])
def test_nothing_is_made_twice_whatever_becomes_of_the_answer(
    path, fault, server, endpoint, package
):
    server.faults.append((f"POST .*/{path}", fault))
    endpoint.upload(package, "nextvlad", "v1")
    endpoint.schedule(package, "nightly", PARAMETERS, "mine", "every 60")
    assert not server.faults
    made = (server.pipelines, server.versions, server.recurring, server.experiments)
    assert [len(one) for one in made] == [1, 1, 1, 1]


def test_recurring_runs(server, endpoint, package):
    made = endpoint.schedule(package, "nightly", PARAMETERS, "mine", "0 0 3 * * *")
    stored = server.recurring[made]
    assert stored["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (stored["mode"], stored["max_concurrency"], stored["no_catchup"]) == ("ENABLE", 1, True)
    with pytest.raises(InputError, match="has a recurring run nightly already"):
        endpoint.schedule(package, "nightly", PARAMETERS, "mine", "every 60")
    endpoint.change_schedule("nightly", "pause")
    assert server.recurring[made]["mode"] == "DISABLE"
    endpoint.change_schedule("nightly", "resume")
    assert server.recurring[made]["mode"] == "ENABLE"
    endpoint.change_schedule("nightly", "delete")
    assert endpoint.schedules() == []
    with pytest.raises(InputError, match="has no recurring run nightly"):
        endpoint.change_schedule("nightly", "pause")


@pytest.mark.parametrize("when", ["", "hourly", "every 0", "* * * * *", "0 0 3 * * ;"])
def test_times_that_can_not_be(when):
    with pytest.raises(InputError, match="expected `every SECONDS`, or six fields"):
        trigger_of(when)


def test_a_time():
    assert trigger_of("every 3600") == {"interval_second": 3600}
