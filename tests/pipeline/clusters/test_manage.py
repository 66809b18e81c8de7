"""Pipelines, runs and schedules by the command line."""

import pytest

from pipeline.clusters import manage
from tests.kfp_server import pod_of, step

IMAGE = "registry.example/nextvlad-{kind}:1"


@pytest.fixture
def command(server):
    def run(name, *arguments):
        manage.main([name, "--host", server.host, "--image", IMAGE, *arguments])

    return run


@pytest.mark.slow
def test_a_version(server, command, capsys):
    command("upload", "--name", "v1")
    command("upload")
    first, second = (version for _, version in server.versions)
    assert first == "v1"
    assert second.startswith("code ")
    assert "has version v1" in capsys.readouterr().out


@pytest.mark.slow
def test_schedules(server, command, capsys):
    command("schedule", "--when", "0 0 3 * * *", "--set", "epochs=3")
    (stored,) = server.recurring.values()
    assert stored["runtime_config"]["parameters"]["epochs"] == 3
    command("schedule", "--when", "every 60", "--name", "often")
    command("schedule", "--when", "pause")
    assert stored["mode"] == "DISABLE"
    command("schedule", "--when", "resume")
    capsys.readouterr()
    command("schedule")
    lines = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "nextvlad-training ENABLED 0 0 3 * * *", "often ENABLED every 60",
    ]  # fmt: skip
    command("schedule", "--when", "delete", "--name", "often")
    assert len(server.recurring) == 1
    assert "often: deleted" in capsys.readouterr().out


def test_runs_are_listed_followed_and_ended(server, command, capsys):
    server.runs["7"] = {"run_id": "7", "display_name": "mine", "created_at": "2026-11-01T10:20:00Z"}
    server.logs[pod_of("train")] = "[train] epoch 1\n"
    server.snapshots.append(("SUCCEEDED", step("train", "SUCCEEDED", "SUCCEEDED", 0, 60)))
    command("follow", "--run", "7")
    command("runs")
    seen = capsys.readouterr().out
    assert "[train] epoch 1\n[train] took 1:00" in seen
    assert "run 7 ended as SUCCEEDED" in seen
    assert seen.splitlines()[-1].split() == ["7", "SUCCEEDED", "2026-11-01", "10:20", "mine"]


def test_a_run_is_ended(server, command, capsys):
    server.runs["7"] = {"run_id": "7"}
    command("terminate", "--run", "7")
    assert server.terminated == ["7"]
    assert "run 7 is being ended" in capsys.readouterr().out
    server.snapshots.append(("RUNNING", []))
    with pytest.raises(SystemExit):
        command("follow", "--run", "7")
    assert "error: run 7 was terminated" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["follow"], "RUN is missing: make kfp-runs lists"),
        (["follow", "--run", "8"], "has no run 8 (404: Run 8 not found)"),
        (["terminate", "--run", "9"], "refuses run 9 (400: Failed to terminate"),
        (["schedule", "--when", "now"], "expected `every SECONDS`"),
        (["upload", "--image", "x"], "IMAGE is missing"),
        (["upload", "--kfp", "gpu=1"], "did you mean gpus"),
    ],
)
def test_what_can_not_be_is_one_line(arguments, words, server, command, capsys):
    server.runs["9"] = {"run_id": "9", "state": "SUCCEEDED"}
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
