"""A job is followed as a local run is: steps and their lines, from descriptions and logs."""

import io

import pytest

from pipeline.console import Console
from pipeline.vertex.following import Following, steps_of
from pipeline.vertex.jobs import Jobs, Patience
from pipeline.vertex.logs import Logs
from tests.vertex_server import PARENT, entry, task
from trainer.errors import InputError

JOB = f"{PARENT}/pipelineJobs/run-1"


@pytest.fixture
def follow(vertex, tmp_path):
    """Follows a job to its end; gives what people see, and the console."""
    vertex.resources[JOB] = {
        "name": JOB,
        "displayName": "run",
        "createTime": "2026-11-01T00:00:00Z",
    }

    def follow(*snapshots, late=0.0):
        vertex.snapshots.extend(snapshots)
        terminal = io.StringIO()
        with Console(terminal, tmp_path / "log") as console:
            jobs = Jobs(vertex.cloud(), Patience(2.0, 0.01))
            following = Following(jobs, "run-1", console, 0.0, late)
            job = following.to_the_end()
        return terminal.getvalue(), console, job

    return follow


def test_steps_with_their_lines_and_times(vertex, follow):
    vertex.logs = {
        "11": [entry("a", "[download] 4 shards"), entry("b", "a line of a library", 1)],
        "12": [entry("c", "Job started for type: CustomJob")],
        "99": [entry("d", "[train] epoch 1\n[train] epoch 2", 5)],
    }
    text, console, _ = follow(
        ("PENDING", []),
        ("RUNNING", [task("download", "RUNNING", 0, job=11)]),
        ("RUNNING", [task("download", "SUCCEEDED", 0, 65, job=11), task("statistics", "PENDING")]),
        ("RUNNING", [task("download", "SUCCEEDED", 0, 65, job=11),
                     task("statistics", "SKIPPED", 66, 66),
                     task("train", "RUNNING", 70, job=12, started=[99])]),
        ("SUCCEEDED", [task("download", "SUCCEEDED", 0, 65, job=11),
                       task("statistics", "SKIPPED", 66, 66),
                       task("train", "SUCCEEDED", 70, 3670, job=12, started=[99]),
                       task("export", "NOT_TRIGGERED")]),
    )  # fmt: skip
    lines = [line for line in text.splitlines() if line and not line.startswith("──")]
    assert lines == [
        "the run waits to be started",
        "[download] 4 shards",
        "[download] took 1:05",
        "[statistics] nothing that it depends on changed: earlier result used",
        "[train] epoch 1",
        "[train] epoch 2",
        "[train] took 1:00:00",
    ]
    assert console.seconds == {"download": 65.0, "train": 3600.0}
    assert (console.cached, console.failed) == (["statistics"], "")


def test_the_lines_of_a_training_as_they_come(vertex, follow):
    """The custom job is found by the run's label while its launcher says nothing of it."""
    mark = "vertex-ai-pipelines-run-billing-id"
    vertex.resources[JOB]["labels"] = {mark: "77"}
    for number, label in ((5, "76"), (6, "77"), (7, "")):
        name = f"{PARENT}/customJobs/{number}"
        vertex.resources[name] = {
            "name": name, "displayName": "nextvlad-train", "labels": {mark: label},
            "createTime": f"2026-11-01T00:00:0{number}Z",
        }  # fmt: skip
    vertex.logs = {"5": [entry("a", "[train] of another run")], "6": [entry("b", "[train] ours")]}
    running = ("RUNNING", [task("train", "RUNNING", 0, job=1)])
    text, _, _ = follow(running, running, ("CANCELLED", [task("train", "CANCELLED", 0, 9, job=1)]))
    assert [line for line in text.splitlines() if line.startswith("[train]")] == ["[train] ours"]


def test_each_line_once_also_those_that_come_late(vertex, follow):
    first, second, late = (
        entry("a", "[train] 1", 10),
        entry("b", "[train] 2", 20),
        entry("c", "[train] 1b", 11),
    )
    vertex.logs = {"11": [first]}
    looks = []

    def more(*_):
        looks.append(1)
        vertex.logs["11"] = [[first], [first, second], [first, late, second]][min(len(looks), 2)]

    vertex.snapshots.extend([("RUNNING", [task("train", "RUNNING", 0, job=11)])] * 4)
    original = vertex._plain

    def plain(request):
        answer = original(request)
        if "entries:list" in request:
            more()
        return answer

    vertex._plain = plain
    text, _, _ = follow(("SUCCEEDED", [task("train", "SUCCEEDED", 0, 30, job=11)]))
    assert [line for line in text.splitlines() if line.startswith("[train] ")] == [
        "[train] 1", "[train] 2", "[train] 1b", "[train] took 0:30",
    ]  # fmt: skip
    # Later looks ask from a minute before the last line on.
    filters = [body["filter"] for body in vertex.sent(r"POST /logging/.*")]
    assert "timestamp" not in filters[0]
    assert 'timestamp>="2026-10-31T23:59:20Z"' in filters[-1]


def test_a_failing_step_with_its_own_error(vertex, follow):
    vertex.logs = {"11": [entry("a", "error: manifest: no shards")]}
    _, console, job = follow(
        ("FAILED", [task("download", "FAILED", 0, 5, job=11, error="The replica exited with 1.")])
    )
    assert (console.failed, console.error) == ("download", "manifest: no shards")
    assert job.state.name == "PIPELINE_STATE_FAILED"


def test_an_error_that_comes_after_the_end(vertex, follow):
    looks = []
    original = vertex._plain

    def plain(request):
        if "entries:list" in request:
            looks.append(request)
            if len(looks) == 3:
                vertex.logs = {"11": [entry("a", "error: manifest: no shards")]}
        return original(request)

    vertex._plain = plain
    failed = task("download", "FAILED", 0, 5, job=11, error="The replica exited with 1.")
    _, console, _ = follow(("FAILED", [failed]), late=20.0)
    assert (console.failed, console.error) == ("download", "manifest: no shards")


def test_lines_that_come_after_the_end(vertex, follow):
    looks = []
    original = vertex._plain

    def plain(request):
        if "entries:list" in request:
            looks.append(request)
            if len(looks) == 2:
                vertex.logs = {"11": [entry("a", "[download] the last line")]}
        return original(request)

    vertex._plain = plain
    done = task("download", "SUCCEEDED", 0, 5, job=11)
    text, console, _ = follow(("RUNNING", [done]), ("SUCCEEDED", [done]), late=20.0)
    assert "[download] the last line" in text
    assert console.seconds == {"download": 5.0}


def test_a_page_that_can_not_be_had_is_read_again(vertex):
    pages = iter([
        (200, {"entries": [entry("a", "one")], "nextPageToken": "more"}),
        (503, {}),
        (200, {"entries": [entry("a", "one")], "nextPageToken": "more"}),
        (200, {"entries": [entry("b", "two")]}),
    ])  # fmt: skip
    original = vertex._plain
    vertex._plain = lambda request: next(pages) if "entries:list" in request else original(request)
    logs = Logs(vertex.cloud())
    assert logs.new_lines("11") == []
    assert logs.new_lines("11") == ["one", "two"]


def test_a_failing_step_without_one(vertex, follow):
    _, console, _ = follow(
        ("FAILED", [task("train", "FAILED", 0, 5, job=11, error="Out\nof memory.")])
    )
    assert (console.failed, console.error) == ("train", "Out of memory.")


def test_a_job_that_fails_before_any_step(vertex, follow):
    _, console, _ = follow(("FAILED", []))
    assert (console.failed, console.error) == ("", "The DAG failed because some tasks failed.")


def test_a_cancelled_job(vertex, follow):
    text, _, job = follow(
        ("RUNNING", [task("train", "RUNNING", 0)]),
        ("CANCELLING", [task("train", "CANCELLING", 0)]),
        ("CANCELLED", [task("train", "CANCELLED", 0, 9)]),
    )
    assert "the run is being cancelled" in text
    assert job.state.name == "PIPELINE_STATE_CANCELLED"


def test_waiting_is_said_once(vertex, follow):
    text, _, _ = follow(("QUEUED", []), ("QUEUED", []), ("PAUSED", []), ("SUCCEEDED", []))
    assert text.splitlines() == [
        "the run queued: as many runs as the quota allows are on",
        "the run paused: resume it in the console",
    ]


def test_logs_that_may_not_be_read_are_said_once(vertex, follow):
    vertex.answers["logging"] = (403, {"error": {"message": "Permission denied"}})
    text, console, _ = follow(
        ("RUNNING", [task("download", "RUNNING", 0, job=11)]),
        ("RUNNING", [task("download", "RUNNING", 0, job=11)]),
        ("SUCCEEDED", [task("download", "SUCCEEDED", 0, 9, job=11)]),
    )
    assert text.count("logs can not be read here: does not let this account") == 1
    assert console.seconds == {"download": 9.0}


def test_logging_that_fails_does_not_end_it(vertex, follow):
    vertex.answers["logging"] = (503, {})
    text, console, _ = follow(("SUCCEEDED", [task("download", "SUCCEEDED", 0, 9, job=11)]))
    assert "can not be read" not in text
    assert console.seconds == {"download": 9.0}


def test_pages_of_logs(vertex):
    pages = iter([
        (200, {"entries": [entry("a", "one")], "nextPageToken": "more"}),
        (200, {"entries": [entry("b", "two"), {"insertId": "c", "textPayload": "three"}]}),
    ])  # fmt: skip
    original = vertex._plain
    vertex._plain = lambda request: next(pages) if "entries:list" in request else original(request)
    assert Logs(vertex.cloud()).new_lines("11") == ["one", "two", "three"]
    assert vertex.sent(r"POST /logging/.*")[1]["pageToken"] == "more"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["cut", 503, 429])
def test_a_poll_that_fails_is_asked_again(vertex, follow, fault):
    vertex.faults.extend([(r"GET .*/run-1", fault)] * 2)
    _text, console, _ = follow(("SUCCEEDED", [task("gate", "SUCCEEDED", 0, 9)]))
    assert console.seconds == {"gate": 9.0}
    assert not vertex.faults


def test_credentials_that_expire_while_polling(vertex, follow):
    vertex.faults.extend([(r"GET .*/run-1", 401)] * 3)
    with pytest.raises(InputError, match=r"does not take the credentials: gcloud auth app"):
        follow(("RUNNING", []))


def test_steps_of_takes_the_newest_try_and_no_other_tasks(vertex, follow):
    retried = task("batch-predict", "FAILED", 5, 6) | {"taskId": "1"}
    _, _, job = follow(
        ("SUCCEEDED", [task("condition-1", "SUCCEEDED", 0, 9), retried,
                       task("batch-predict", "SUCCEEDED", 7, 9) | {"taskId": "2"},
                       task("download", "SUCCEEDED", 0, 5)])
    )  # fmt: skip
    found = steps_of(job)
    assert list(found) == ["download", "batch_predict"]
    assert found["batch_predict"].state.name == "SUCCEEDED"
