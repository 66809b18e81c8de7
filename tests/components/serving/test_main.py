"""The command: where its settings come from, and how it starts and stops."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.serving.__main__ import main
from tests.components.serving.http_client import ask, body_of
from tests.conftest import frame_video
from trainer import records

ROOT = Path(__file__).parents[3]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def start(request):
    """Starts the command; whatever is left of it ends with the test."""
    started = []

    def begin(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "components.serving", *map(str, arguments)],
            cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def until_ready(port, path="/health"):
    for _ in range(600):
        try:
            if ask(port, path)[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server is not ready")


@pytest.mark.slow
def test_as_vertex_ai_starts_it_and_stops_it(start, frame_export, rng):
    port = free_port()
    process = start(
        AIP_HTTP_PORT=str(port), AIP_HEALTH_ROUTE="/ping", AIP_PREDICT_ROUTE="/score",
        AIP_STORAGE_URI=str(frame_export),
    )  # fmt: skip
    until_ready(port, "/ping")
    payload = records.encode(frame_video(rng, 5))
    assert ask(port, "/score", body_of(payload))[0] == 200
    # Requests that have arrived are answered, whatever comes while they are.
    answers = []
    clients = [
        threading.Thread(
            target=lambda: answers.append(ask(port, "/score", body_of(*[payload] * 128))[0])
        )
        for _ in range(4)
    ]
    for client in clients:
        client.start()
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    for client in clients:
        client.join()
    output, _ = process.communicate(timeout=60)
    assert answers == [200] * 4
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert all(line.keys() >= {"severity", "time", "message"} for line in lines)
    assert lines[-1]["message"] == "stopped"
    first = next(line for line in lines if line["message"] == "predicted")
    assert (first["status"], first["videos"], first["route"]) == (200, 1, "/score")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "--port is '0', expected 1 to 65535"),
        (["--port", "http"], "--port is 'http', expected 1 to 65535"),
        (["--max-batch", "0"], "--max-batch is 0, expected at least 1"),
        (["--max-batch", "many"], "--max-batch"),
        (["--health-route", "ping"], "--health-route is 'ping', expected a path"),
        (["--runs", "nowhere"], "nowhere: no run there has serving_model"),
        (["--modle", "x"], "--modle"),
    ],
)
def test_settings_that_can_not_be(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize("wrong", ["none", "old", "port"])
def test_a_model_that_is_none_and_a_port_that_is_taken(
    wrong, frame_export, tmp_path, capsys, monkeypatch
):
    # The handlers of this process stay its own.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    shutil.copytree(frame_export, tmp_path / "old")
    (tmp_path / "old" / "export.json").write_text("{}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] if wrong == "port" else free_port()
        folder = frame_export if wrong == "port" else tmp_path / wrong
        with pytest.raises(SystemExit) as ended:
            main(["--model", str(folder), "--host", "127.0.0.1", "--port", str(port)])
    assert ended.value.code == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    expected = {
        "none": "is no exported model", "old": "another version exported this model",
        "port": f"127.0.0.1:{port}: can not be listened on (Address already in use)",
    }  # fmt: skip
    assert expected[wrong] in errors[0]
