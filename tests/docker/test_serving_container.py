"""The server's image, on an exported model, as it is run."""

import base64
import json
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from tests.conftest import frame_video
from tests.exported_models import write_export
from trainer import records

pytestmark = pytest.mark.docker


def fetch(url, body=None):
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_it_answers_as_vertex_ai_asks_and_ends_in_order(engine, image, tmp_path):
    write_export(tmp_path, records.FRAME, 7, 3, 6)
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    container = engine.containers.run(
        image("serving"), detach=True, read_only=True, tmpfs={"/tmp": ""}, cap_drop=["ALL"],
        security_opt=["no-new-privileges"], mem_limit="2g", ports={"8080/tcp": ("127.0.0.1", None)},
        volumes={str(tmp_path): {"bind": "/model", "mode": "ro"}},
        environment={"AIP_HEALTH_ROUTE": "/alive", "AIP_PREDICT_ROUTE": "/answer"},
    )  # fmt: skip
    try:
        container.reload()
        port = container.ports["8080/tcp"][0]["HostPort"]
        for _ in range(300):
            try:
                fetch(f"http://127.0.0.1:{port}/alive")
                break
            except (urllib.error.URLError, ConnectionError):
                container.reload()
                assert container.status == "running", container.logs().decode()
                time.sleep(0.2)
        record = records.encode(frame_video(np.random.default_rng(1), 4))
        instance = {"b64": base64.b64encode(record).decode()}
        answer = fetch(f"http://127.0.0.1:{port}/answer", {"instances": [instance]})
        (prediction,) = answer["predictions"]
        assert len(prediction["classes"]) == 3
        assert prediction["scores"] == sorted(prediction["scores"], reverse=True)
        container.stop(timeout=20)
        container.reload()
        assert container.attrs["State"]["ExitCode"] == 0, container.logs().decode()
        assert not container.attrs["State"]["OOMKilled"]
    finally:
        container.remove(force=True)
