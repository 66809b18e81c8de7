"""A tiny exported model, and a server around it."""

import contextlib
import json
import socket
import threading
import time

import pytest
import uvicorn

from components.serving.app import Service
from components.serving.http import guarded
from components.serving.settings import ServingSettings
from tests.conftest import TINY_MODEL
from trainer.config import ModelConfig
from trainer.export import export_model
from trainer.exported_model import ExportedModel
from trainer.inference_model import inference_model
from trainer.models import build_model
from trainer.vocabulary import Vocabulary

CLASSES, TOP_K, FRAMES = 7, 3, 6
VOCABULARY = Vocabulary(tuple(f"näme {i}" for i in range(CLASSES)), (("a",),) * CLASSES)


def exported(folder, level, name):
    open_frames = {"frame": None, "video": FRAMES}[level]
    model = build_model(ModelConfig(**TINY_MODEL | {"name": name}), CLASSES, level, open_frames)
    export_model(
        inference_model(model), level, FRAMES, VOCABULARY, TOP_K, folder / "saved_model",
        3 if level == "frame" else None,
    )  # fmt: skip
    facts = {
        "level": level, "top_k": TOP_K, "num_classes": CLASSES, "max_frames": FRAMES,
        "data_fingerprint": "", "vocabulary_digest": "",
    }  # fmt: skip
    (folder / "export.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="session")
def frame_export(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("frame"), "frame", "nextvlad")


@pytest.fixture(scope="session")
def frame_model(frame_export):
    return ExportedModel(frame_export)


@pytest.fixture(scope="session")
def video_model(tmp_path_factory):
    return ExportedModel(exported(tmp_path_factory.mktemp("video"), "video", "mlp"))


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
