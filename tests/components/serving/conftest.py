"""A tiny exported model, and a server around it."""

import contextlib
import socket
import threading
import time

import pytest
import uvicorn

from components.serving.app import Service
from components.serving.http import guarded
from components.serving.settings import ServingSettings
from tests.exported_models import write_export
from trainer.exported_model import ExportedModel

CLASSES, TOP_K, FRAMES = 7, 3, 6


def exported(folder, level):
    write_export(folder, level, CLASSES, TOP_K, FRAMES)
    return folder


@pytest.fixture(scope="session")
def frame_export(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("frame"), "frame")


@pytest.fixture(scope="session")
def frame_model(frame_export):
    return ExportedModel(frame_export)


@pytest.fixture(scope="session")
def video_model(tmp_path_factory):
    return ExportedModel(exported(tmp_path_factory.mktemp("video"), "video"))


@contextlib.contextmanager
def running(load, **settings):
    """(port, service, what went wrong) of a server in a thread of this process."""
    settings = ServingSettings(**settings)
    problems = []
    service = Service(load, settings, problems.append)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            service.app, log_config=None, access_log=False, lifespan="on", ws="none",
            http=guarded(settings.header_seconds),
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1], service, problems
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
