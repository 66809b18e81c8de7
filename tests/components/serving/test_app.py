"""The server as its clients see it, well-behaved and not, over real sockets."""

import concurrent.futures
import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from tests.components.serving.conftest import running
from tests.components.serving.http_client import ask, body_of
from tests.conftest import frame_video
from trainer import records
from trainer.errors import InputError


@pytest.fixture
def payload(rng):
    return records.encode(frame_video(rng, 4))


@pytest.fixture
def served(frame_model):
    """(port, service) of a server that is ready."""
    with running(lambda: frame_model, max_body_bytes=1 << 20, body_seconds=1.0,
                 header_seconds=1.0, max_instances=8) as (port, service, _):  # fmt: skip
        until_ready(port)
        yield port, service


def until_ready(port):
    for _ in range(2000):
        if ask(port, "/health")[0] == 200:
            return
        time.sleep(0.01)
    raise AssertionError("the server is not ready")


def raw(port, *parts, pause=0.0, half_close=False):
    """What comes back for bytes as they are, until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


def head(length=None, more=""):
    stated = "" if length is None else f"Content-Length: {length}\r\n"
    return f"POST /predict HTTP/1.1\r\nHost: x\r\n{stated}{more}\r\n".encode()


def test_it_is_ready_once_the_model_is_loaded(frame_model, payload):
    free = threading.Event()

    def load():
        free.wait(10)
        return frame_model

    with running(load) as (port, _, problems):
        loading = (503, {"error": "the model is being loaded"})
        assert ask(port, "/health") == loading
        assert ask(port, body=body_of(payload)) == loading
        assert ask(port, "/v1/models/nextvlad/metadata") == loading
        status = ask(port, "/v1/models/nextvlad")[1]["model_version_status"][0]
        assert status["state"] == "LOADING"
        free.set()
        until_ready(port)
        assert ask(port, body=body_of(payload))[0] == 200
    assert problems == []


def test_a_model_that_does_not_load_is_told(frame_model):
    def load():
        raise InputError("no model")

    with running(load) as (port, _, problems):
        for _ in range(500):
            if problems:
                break
            time.sleep(0.01)
        assert ask(port, "/health")[0] == 503
    assert [str(problem) for problem in problems] == ["no model"]


def test_answers_are_the_models(served, frame_model, rng):
    port, _ = served
    payloads = [records.encode(frame_video(rng, n)) for n in (1, 4, 6, 9)]
    videos = [records.parse(records.Record("", 0, 0, one)) for one in payloads]
    expected = frame_model.answer(videos)
    paths = ("/predict", "/v1/models/nextvlad:predict", "/v1/models/nextvlad/versions/1:predict")
    for path in paths:
        status, content = ask(port, path, body_of(*payloads))
        assert status == 200
        rows = content["predictions"]
        assert [row["classes"] for row in rows] == expected.classes.tolist()
        np.testing.assert_allclose([row["scores"] for row in rows], expected.scores, atol=1e-6)
        assert [row["id"] for row in rows] == [video.video_id for video in videos]


def test_a_timeline_has_a_window_every_three_seconds(served, rng):
    port, _ = served
    body = body_of(records.encode(frame_video(rng, 7)), parameters={"segments": True, "top_k": 2})
    status, content = ask(port, body=body)
    assert status == 200
    windows = content["predictions"][0]["windows"]
    assert [window["start"] for window in windows] == [0, 3, 6]
    assert all(len(window["classes"]) == 2 for window in windows)
    assert windows[0]["classes"][0].keys() == {"class", "name", "vertical", "score"}


def test_metadata_and_metrics(served, payload):
    port, _ = served
    ask(port, body=body_of(payload, payload))
    content = ask(port, "/v1/models/nextvlad/metadata")[1]
    signatures = content["metadata"]["signature_def"]["signature_def"]
    assert signatures.keys() == {"serving_default", "features", "segments"}
    assert signatures["serving_default"]["inputs"]["examples"]["dtype"] == "DT_STRING"
    status, text = ask(port, "/metrics")
    assert status == 200
    assert "nextvlad_videos_total 2.0" in text
    assert 'nextvlad_requests_total{route="predict",status="200"} 1.0' in text
    assert "nextvlad_body_bytes_in_flight 0.0" in text


def test_what_is_not_served(served):
    port, _ = served
    assert ask(port, "/nothing") == (404, {"error": "GET /nothing: not found"})
    assert ask(port, "/predict") == (405, {"error": "GET /predict: method not allowed"})
    assert ask(port, "/v1/models/nextvlad/versions/2:predict", b"{}")[0] == 404
    assert ask(port, body=b"no json")[0] == 400
    assert ask(port, body=b"")[0] == 400


def test_a_gigabyte_is_refused_before_it_is_read(served, payload):
    port, service = served
    answer = raw(port, head(1 << 30))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"a body of 1,073,741,824 bytes, expected at most 1,048,576" in answer
    # Without a stated length it is read up to the limit, and no further.
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    answer = raw(port, head(more="Transfer-Encoding: chunked\r\n"), *([chunk] * 400))
    assert answer == b"" or b"a body of over 1,048,576 bytes" in answer
    assert service.metrics.registry.get_sample_value("nextvlad_body_bytes_in_flight") == 0
    assert ask(port, body=body_of(payload))[0] == 200


@pytest.mark.parametrize(
    ("parts", "options", "status"),
    [
        ([head(100), b"{"], {}, b"408"),
        ([head(100), b"{"], {"half_close": True}, None),
        ([b"POST /predict HTTP/1.1\r\nHost:"], {}, None),
        ([b""], {}, None),
        ([b"POST /predict HTTP/1.1\r\nX: " + b"x" * 70_000], {}, b"400"),
        ([b"\x16\x03\x01\x02\x00garbage\r\n\r\n"], {}, b"400"),
        ([head("twelve")], {}, b"400"),
        ([head(-1)], {}, b"400"),
        ([head(2), b"{}"], {"half_close": True}, b"400"),
    ],
    ids=["slow body", "half a body", "slow headers", "silence", "large headers", "no http",
         "length", "negative", "half-closed after its request"],
)  # fmt: skip
def test_clients_that_behave_badly_are_ended_and_others_served(
    parts, options, status, served, payload
):
    port, service = served
    ended = time.monotonic()
    answer = raw(port, *parts, **options)
    assert time.monotonic() - ended < 15
    assert answer.startswith(b"HTTP/1.1 " + status if status else b"")
    assert ask(port, body=body_of(payload))[0] == 200
    assert service.metrics.registry.get_sample_value("nextvlad_body_bytes_in_flight") == 0


def test_two_hundred_clients_at_once(served, rng):
    port, _ = served
    payloads = [records.encode(frame_video(rng, n)) for n in range(1, 9)]
    alone = [ask(port, body=body_of(one))[1]["predictions"][0]["classes"] for one in payloads]
    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda n: ask(port, body=body_of(payloads[n % 8])), range(400)))
    assert {status for status, _ in answers} == {200}
    for number, (_, content) in enumerate(answers):
        assert content["predictions"][0]["classes"] == alone[number % 8]


def test_more_than_the_server_holds_are_told_to_come_again(frame_model, payload):
    with running(lambda: frame_model, max_queue=1) as (port, _, _):
        until_ready(port)
        status, content = ask(port, body=body_of(payload, payload))
        assert (status, content) == (503, {"error": "0 videos wait already, try again later"})
        assert ask(port, body=body_of(payload))[0] == 200
    with running(lambda: frame_model, max_bytes_in_flight=100) as (port, _, _):
        until_ready(port)
        assert ask(port, body=body_of(payload))[0] == 503
        assert ask(port, body=b"{}")[0] == 400


def test_what_is_a_bug_is_a_500_and_is_logged(frame_model, payload, monkeypatch, caplog):
    class Broken:
        def __getattr__(self, name):
            return getattr(frame_model, name)

        def answer(self, _):
            raise RuntimeError("broken inside")

    with running(Broken) as (port, _, _):
        until_ready(port)
        assert ask(port, body=body_of(payload)) == (
            500, {"error": "internal error, the server's log has it"},
        )  # fmt: skip
    assert "broken inside" in caplog.text
