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
from tests.memory import resident
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


def held(service):
    return service.metrics.registry.get_sample_value("nextvlad_body_bytes_in_flight")


def test_a_gigabyte_is_refused_before_it_is_read(served, payload):
    port, service = served
    answer = raw(port, head(1 << 30, "Connection: close\r\n"))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"a body of 1,073,741,824 bytes, expected at most 1,048,576" in answer
    assert held(service) == 0
    assert ask(port, body=body_of(payload))[0] == 200


@pytest.mark.parametrize("stated", [True, False])
def test_a_client_that_sends_before_it_reads_gets_its_413(stated, served, payload):
    port, service = served
    before = resident()
    body = bytes(64 << 20) if stated else iter([bytes(1 << 20)] * 64)
    status, content = ask(port, body=body)
    assert status == 413
    assert "1,048,576" in content["error"]
    assert held(service) == 0
    assert resident() - before < 100 << 20, "only what the client itself made"
    assert ask(port, body=body_of(payload))[0] == 200


@pytest.mark.parametrize(
    "parts",
    [
        [head(more="Transfer-Encoding: chunked\r\n"), b"2\r\n{}\r\n0\r\n", b"T: " + bytes(1 << 20)],
        [
            head(more="Transfer-Encoding: chunked\r\n").replace(b"/predict", b"/nothing"),
            b"0\r\n",
            *[b"T: " + b"x" * 60_000 + b"\r\n"] * 40,
        ],
    ],
    ids=["one trailer", "many trailers after an answer"],
)
def test_trailers_are_not_kept_without_limit(parts, served):
    port, _ = served
    start = time.monotonic()
    raw(port, *parts)
    assert time.monotonic() - start < 4, "the limit of bytes ends it, no timer"


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        [b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"],
        [head(100).replace(b"/predict", b"/nothing"), b"{"],
        [head(100).replace(b"POST", b"PUT"), b"{"],
    ],
    ids=["a stray byte", "half a body to nowhere", "half a body to another method"],
)
def test_answered_connections_do_not_stay_for_ever(parts, served):
    port, _ = served
    start = time.monotonic()
    answer = raw(port, *parts, pause=0.2)
    assert answer.startswith(b"HTTP/1.1 ")
    assert time.monotonic() - start < 12


def test_an_answer_that_is_not_read_is_given_up(served, monkeypatch):
    from components.serving import http

    monkeypatch.setattr(http, "UNREAD_SECONDS", 0.5)
    port, _ = served
    request = b"GET /v1/models/nextvlad/metadata HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", port))
        connection.settimeout(15)
        # Answers of 50 MB, none of which is read.
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(10_000):
                connection.sendall(request)
                time.sleep(0.0005)


def test_timelines_wait_as_videos_do(frame_model, rng):
    payload = records.encode(frame_video(rng, 30))  # ten windows
    body = body_of(payload, payload, parameters={"segments": True})
    with running(lambda: frame_model, max_queue=19, max_instances=8) as (port, _, _):
        until_ready(port)
        assert ask(port, body=body) == (
            413, {"error": "20 windows in a request, expected at most 19"},
        )  # fmt: skip
    with running(lambda: frame_model, max_queue=20, max_instances=8) as (port, _, _):
        until_ready(port)
        assert ask(port, body=body)[0] == 200


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
    ],
    ids=["slow body", "half a body", "slow headers", "silence", "large headers", "no http",
         "length", "negative"],
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


class Slow:
    """The model, held until it is set free."""

    def __init__(self, model):
        self._model, self.free, self.calls = model, threading.Event(), 0

    def __getattr__(self, name):
        return getattr(self._model, name)

    def answer(self, videos):
        self.calls += 1
        self.free.wait(20)
        return self._model.answer(videos)


def test_more_than_the_server_holds_are_told_to_come_again(frame_model, payload):
    slow = Slow(frame_model)
    limits = {"max_queue": 1, "max_instances": 1, "max_batch": 1}
    with running(lambda: slow, **limits) as (port, _, _):
        until_ready(port)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            waiting = []
            for calls in (1, 1):
                waiting.append(pool.submit(ask, port, body=body_of(payload)))
                while slow.calls < calls:
                    time.sleep(0.01)
            time.sleep(0.3)
            assert ask(port, body=body_of(payload)) == (
                503, {"error": "1 videos wait already, try again later"},
            )  # fmt: skip
            slow.free.set()
            assert [one.result()[0] for one in waiting] == [200, 200]
    body = body_of(payload)
    limits = {"max_bytes_in_flight": len(body), "max_body_bytes": len(body)}
    slow = Slow(frame_model)
    with running(lambda: slow, **limits) as (port, service, _):
        until_ready(port)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            first = pool.submit(ask, port, body=body)
            while not slow.calls:
                time.sleep(0.01)
            assert ask(port, body=body)[0] == 503
            slow.free.set()
            assert first.result()[0] == 200
        assert held(service) == 0


def test_a_client_that_leaves_is_not_worked_for(frame_model, payload):
    slow = Slow(frame_model)
    with running(lambda: slow, max_batch=1, batch_milliseconds=0.0) as (port, service, _):
        until_ready(port)
        body = body_of(*[payload] * 5)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head(len(body)) + body)
            while not slow.calls:
                time.sleep(0.01)
        time.sleep(0.3)
        slow.free.set()
        assert ask(port, body=body_of(payload))[0] == 200
        assert slow.calls < 5, "those of its videos that waited were let go"
        assert held(service) == 0


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
