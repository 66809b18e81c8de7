"""Tiny exported models of 12 classes, and shards to predict on."""

import numpy as np
import pytest

from components.predict import video, video_features
from tests.components.extract_features.clips import even, tone, write_clip
from tests.components.predict.own_video import (
    NETWORKS,
    fake_extractor,
    loaded,
    model_of_own_videos,
)
from tests.conftest import frame_video, mean_video
from tests.exported_models import write_export
from trainer import records
from trainer.exported_model import ExportedModel

CLASSES, FRAMES = 12, 8


def make_model(folder, level):
    write_export(folder, level, CLASSES, CLASSES, FRAMES)
    return folder


@pytest.fixture(scope="session")
def frame_folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("frame_model"), "frame")


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("video_model"), "video")


@pytest.fixture(scope="session")
def frame_model(frame_folder):
    return ExportedModel(frame_folder)


@pytest.fixture(scope="session")
def video_model(video_folder):
    return ExportedModel(video_folder)


def frame_payloads(count, name="v", seed=0):
    rng = np.random.default_rng(seed)
    return [
        records.encode(
            frame_video(
                rng,
                int(rng.integers(1, FRAMES + 3)),
                rng.choice(CLASSES, 2, replace=False),
                f"{name}{i}",
            )
        )
        for i in range(count)
    ]


def video_payloads(count, name="v", labels=(1, 3)):
    rng = np.random.default_rng(1)
    return [records.encode(mean_video(rng, labels, f"{name}{i}")) for i in range(count)]


@pytest.fixture
def shards(tmp_path):
    """A folder of two shards, of 11 and 5 frame-level videos."""
    folder = tmp_path / "shards"
    folder.mkdir()
    records.write_records(folder / "a.tfrecord", frame_payloads(11, "a"))
    records.write_records(folder / "b.tfrecord", frame_payloads(5, "b", 1))
    return folder


def spoil(path, number, at=20):
    """Turn a bit of a record's payload."""
    from trainer import tfrecord

    offset = int(tfrecord.index_file(path).offsets[number])
    data = bytearray(path.read_bytes())
    data[offset + at] ^= 4
    path.write_bytes(data)
    return offset


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Eleven seconds with sound, of 64 × 48 pixels."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, even(2, 11), sound=(tone(11, 16_000), 16_000, "aac"))


@pytest.fixture(scope="session")
def silent(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("silent") / "silent.mkv", even(2, 4))


@pytest.fixture(scope="session")
def own_folder(frame_folder, tmp_path_factory):
    """A frame-level model of features that `NETWORKS` make."""
    folder = tmp_path_factory.mktemp("own") / "model"
    extractor = fake_extractor()
    return model_of_own_videos(frame_folder, folder, extractor, features_mark=extractor.mark)


@pytest.fixture
def cheap(monkeypatch):
    """Networks that cost nothing; what was asked for is listed."""
    asked = []
    monkeypatch.setattr(
        video_features, "load_networks", lambda source: asked.append(source) or NETWORKS
    )
    monkeypatch.setattr(video, "find_model", lambda folder, _: loaded(folder))
    return asked
