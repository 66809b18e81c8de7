"""A run is followed to whatever end it has."""

import io

import pytest

from pipeline.clusters.following import Following, Pace
from pipeline.console import Console
from tests.kfp_server import node, pod_of, step
from trainer.errors import InputError

PACE = Pace(poll_seconds=0.01, start_seconds=0.3)


@pytest.fixture
def follow(server, endpoint, tmp_path):
    """Follow snapshots; returns the final run, the console and what a person sees."""

    def to_the_end(*snapshots, pace=PACE):
        server.runs["7"] = {"run_id": "7"}
        server.snapshots.extend(snapshots)
        terminal = io.StringIO()
        with Console(terminal, tmp_path / "log") as console:
            run = Following(endpoint, "7", console, pace).to_the_end()
        return run, console, terminal.getvalue()

    return to_the_end


def test_step_by_step_with_the_lines_of_each(server, follow):
    server.logs[pod_of("download")] = "[download] 3 shards\nnoise\n"
    server.logs[pod_of("train")] = "[train] epoch 1\n"
    run, console, seen = follow(
        ("PENDING", []),
        ("RUNNING", [node("root-driver", "PENDING")]),
        ("RUNNING", [node("root-driver", "SUCCEEDED"), node("root", "RUNNING")]),
        ("RUNNING", step("download", "RUNNING", "RUNNING")),
        ("RUNNING", step("download", "SUCCEEDED", "SUCCEEDED", 0, 5)
            + step("train", "RUNNING", "RUNNING", 5)),
        ("SUCCEEDED", step("download", "SUCCEEDED", "SUCCEEDED", 0, 5)
            + step("train", "SUCCEEDED", "SUCCEEDED", 5, 70)),
    )  # fmt: skip
    assert run.state == "SUCCEEDED"
    assert [line for line in seen.splitlines() if line and "──" not in line] == [
        "[download] 3 shards", "[download] took 0:05", "[train] epoch 1", "[train] took 1:05",
    ]  # fmt: skip
    assert console.seconds == {"download": 5.0, "train": 65.0}
    assert not console.failed


def test_what_is_in_the_cache_is_said(follow):
    _, console, seen = follow(
        ("RUNNING", step("train", "RUNNING")),
        (
            "SUCCEEDED",
            step("train", "SUCCEEDED", "SKIPPED", 0, 1) + step("gate", "SUCCEEDED", None, 1, 2),
        ),
    )
    assert console.cached == ["train", "gate"]
    assert seen.count("earlier result used") == 2
    assert not console.seconds


def test_a_step_that_was_not_needed_is_not_shown(follow):
    _, console, seen = follow(("SUCCEEDED", step("export", "SKIPPED", None, 0, 0)))
    assert (console.seconds, console.cached, seen) == ({}, [], "")


def test_a_failed_step_with_its_error(server, follow):
    server.logs[pod_of("train")] = "x\nerror: /a: no such file\n"
    run, console, seen = follow(("FAILED", step("train", "FAILED", "FAILED", 0, 2)))
    assert run.state == "FAILED"
    assert (console.failed, console.error) == ("train", "/a: no such file")
    assert "── train" in seen


def test_a_failed_step_whose_log_is_gone(follow):
    _, console, _ = follow(("FAILED", step("train", "FAILED", "FAILED", 0, 2)))
    assert (console.failed, console.error) == ("train", "")


def test_a_failed_driver(follow):
    nodes = [node("train-driver", "FAILED"), node("train", "RUNTIME_STATE_UNSPECIFIED")]
    _, console, _ = follow(("FAILED", nodes))
    assert console.failed == "train-driver"
    assert "KFP's own container" in console.error


def test_the_log_by_way_of_the_pages_server(server, follow):
    server.pages = True
    server.logs[pod_of("train")] = "[train] one\n"
    _, _, seen = follow(("SUCCEEDED", step("train", "SUCCEEDED", "SUCCEEDED", 0, 2)))
    assert "[train] one" in seen


@pytest.mark.parametrize("state", ["SUCCEEDED", "SKIPPED", "FAILED", "CANCELED", "ERROR"])
def test_every_final_state_ends_it(state, follow):
    run, _, _ = follow(("RUNNING", []), (state, []))
    assert run.state == state


def test_it_waits_while_it_is_canceled_or_paused(follow):
    run, _, seen = follow(
        ("CANCELING", step("train", "RUNNING", "RUNNING")),
        ("PAUSED", step("train", "RUNNING", "RUNNING")),
        ("PAUSED", step("train", "RUNNING", "RUNNING")),
        ("CANCELED", step("train", "FAILED", "FAILED")),
    )
    assert run.state == "CANCELED"
    assert seen.count("the run is paused") == 1


@pytest.mark.parametrize(
    ("snapshot", "what"),
    [
        (("PENDING", []), "the run"),
        (("RUNNING", step("train", "RUNNING", "PENDING")), "step train"),
        (("RUNNING", [node("root-driver", "PENDING")]), "root-driver"),
    ],
)
def test_an_image_that_never_comes_ends_the_run(snapshot, what, server, follow):
    with pytest.raises(InputError, match=f"^{what} has not started in 0:00, the run was ended"):
        follow(snapshot)
    assert server.terminated == ["7"]


@pytest.mark.slow
def test_a_step_that_works_for_long_is_not_taken_for_one_that_waits(follow):
    snapshots = [("RUNNING", step("train", "RUNNING", "RUNNING"))] * 60
    run, _, _ = follow(*snapshots, ("SUCCEEDED", step("train", "SUCCEEDED", "SUCCEEDED", 0, 9)))
    assert run.state == "SUCCEEDED"


def test_lines_are_printed_once_and_whole(server, follow):
    server.logs[pod_of("train")] = "[train] one\n[train] tw"
    _, _, seen = follow(
        *[("RUNNING", step("train", "RUNNING", "RUNNING"))] * 3,
        ("SUCCEEDED", step("train", "SUCCEEDED", "SUCCEEDED", 0, 9)),
    )
    assert seen.count("[train] one\n") == 1
    assert seen.count("[train] tw\n") == 1  # when nothing more can come


def test_an_error_without_a_line_end(server, follow):
    server.logs[pod_of("train")] = "error: killed"
    _, console, _ = follow(("FAILED", step("train", "FAILED", "FAILED", 0, 2)))
    assert console.error == "killed"


def test_a_step_in_the_second_of_a_cached_one(server, follow):
    server.logs[pod_of("export")] = "[export] done\n"
    cached = step("gate", "SUCCEEDED", "SKIPPED", 5, 5)
    _, console, _ = follow(("SUCCEEDED", cached + step("export", "SUCCEEDED", "SUCCEEDED", 5, 60)))
    assert (console.cached, console.seconds) == (["gate"], {"export": 55.0})


def test_who_watches_is_told_each_state(server, endpoint, tmp_path):
    server.runs["7"] = {"run_id": "7"}
    server.snapshots.extend([("PENDING", []), ("RUNNING", []), ("SUCCEEDED", [])])
    seen = []
    with Console(io.StringIO(), tmp_path / "log") as console:
        watch = lambda run_id, state: seen.append((run_id, state))  # noqa: E731
        Following(endpoint, "7", console, PACE, watch).to_the_end()
    assert seen == [("7", "PENDING"), ("7", "RUNNING"), ("7", "SUCCEEDED")]


def test_connections_that_are_cut_in_between(server, follow):
    server.faults.extend([("GET .*/runs/", fault) for fault in ("cut", 503, "slow", 429)])
    run, console, _ = follow(
        ("RUNNING", step("train", "RUNNING", "RUNNING")),
        ("SUCCEEDED", step("train", "SUCCEEDED", "SUCCEEDED", 0, 9)),
    )
    assert (run.state, list(console.seconds)) == ("SUCCEEDED", ["train"])
