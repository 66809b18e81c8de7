"""Fixtures that more than one test file uses."""

import os
import shutil
from pathlib import Path

# TensorFlow's and Beam's chatter on standard error; set before either is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from gcp_storage_emulator.server import create_server
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from trainer import records, tfrecord_scan
from trainer.config import Config, SampleConfig

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = ROOT.parent / "shared" / "data" / "yt8m"

TINY_SAMPLE = {
    "num_classes": 12, "train_videos": 48, "validate_videos": 20, "shard_videos": 10,
    "min_frames": 6, "max_frames": 12,
}  # fmt: skip
TINY_MODEL = {
    "cluster_size": 4, "groups": 2, "expansion": 1, "hidden_size": 16, "batch_norm_momentum": 0.9,
    "normalization": "scaled_l2", "gating_reduction": 4,
}  # fmt: skip


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def tiny_config():
    return Config().updated(
        {
            "sample": TINY_SAMPLE,
            "data": {"max_frames": 12},
            "model": TINY_MODEL,
            "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.01},
        }
    )


@pytest.fixture(scope="session")
def shared_sample(tmp_path_factory):
    from components.download.sample import write_sample

    folder = tmp_path_factory.mktemp("sample")
    write_sample(SampleConfig(**TINY_SAMPLE), folder)
    return folder


@pytest.fixture
def tiny_sample(shared_sample, tmp_path):
    """A folder with a tiny sample of its own, to spoil at will."""
    return Path(shutil.copytree(shared_sample, tmp_path / "sample"))


@pytest.fixture
def manifest(tiny_sample, tiny_config, tmp_path):
    """The manifest of `tiny_sample`."""
    from components.download.step import run_download
    from trainer.manifest import read_manifest

    uri, _ = run_download(str(tiny_sample), str(tmp_path / "state"), tiny_config, "", "")
    return read_manifest(uri)


@pytest.fixture
def priors(tiny_config):
    """Share of the videos that have each class, made up."""
    return np.full(tiny_config.sample.num_classes, 0.1)


@pytest.fixture
def real_data():
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real YouTube-8M records at {REAL_DATA}")
    return REAL_DATA


def frame_video(rng, num_frames=5, labels=(1, 3), video_id="abcd"):
    codes = rng.integers(0, 256, (num_frames, records.FEATURE_SIZE), dtype=np.uint8)
    return records.VideoRecord(
        video_id,
        np.array(labels, np.int64),
        codes[:, : records.RGB_SIZE],
        codes[:, records.RGB_SIZE :],
    )


def mean_video(rng, labels=(1, 3), video_id="abcd"):
    values = rng.uniform(-2, 2, records.FEATURE_SIZE).astype(np.float32)
    return records.VideoRecord(
        video_id,
        np.array(labels, np.int64),
        values[: records.RGB_SIZE],
        values[records.RGB_SIZE :],
    )


def record_of(payload, path="shard.tfrecord"):
    return records.Record(path, 0, 0, payload)


def chunk_of(payloads, path="shard.tfrecord"):
    """A chunk of a file whose framing is a filler."""
    data, begins, ends = b"", [], []
    for payload in payloads:
        data += b"\x80" * 12
        begins.append(len(data))
        data += payload
        ends.append(len(data))
        data += b"\x80" * 4
    return tfrecord_scan.Chunk(path, 0, 0, data, begins, ends)


@pytest.fixture
def bucket(monkeypatch):
    """The bucket `data` of an emulator of Cloud Storage."""
    emulator = create_server("127.0.0.1", 0, in_memory=True, default_bucket="data")
    emulator.start()
    port = emulator._api._httpd.server_port
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    client = storage.Client(project="test", credentials=AnonymousCredentials())
    yield client.bucket("data")
    emulator.stop()
