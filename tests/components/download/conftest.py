"""Small shards, a server of them, and a run against it."""

import functools
import hashlib

import numpy as np
import pytest

from components.download import step
from components.download.servers import Limits
from components.download.step import run_download
from tests.components.download.server import FaultServer
from tests.conftest import frame_video
from trainer import records
from trainer.config import Config
from trainer.manifest import read_manifest

PARTITION = "2/frame"


@pytest.fixture
def server():
    found = FaultServer()
    yield found
    found.close()


@pytest.fixture
def quick(monkeypatch):
    """Attempts follow each other at once."""
    monkeypatch.setattr(step, "Limits", functools.partial(Limits, first_wait=0.01))


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """Bytes by (split, name): three of train, two of validate, some kilobytes each."""
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("shards") / "one.tfrecord"
    found = {}
    for split, count in (("train", 3), ("validate", 2)):
        for number in range(count):
            videos = [frame_video(rng, 3, [number], f"{split[0]}{number}{i}") for i in range(4)]
            records.write_records(path, map(records.encode, videos))
            found[split, f"{split}{number:02}.tfrecord"] = path.read_bytes()
    return found


def fetched(source, folder, **download):
    """The manifest of a run."""
    values = {"attempts": 4, "connect_seconds": 2.0, "stall_seconds": 10.0, "parallel": 4}
    config = Config().updated({"download": values | download})
    uri, _ = run_download(source, str(folder), config, "", "")
    return read_manifest(uri)


def contents(folder):
    """Bytes of the files under their final names, by (split, name)."""
    found = (folder / PARTITION).glob("*/*.tfrecord")
    return {(path.parent.name, path.name): path.read_bytes() for path in found}


def assert_whole(manifest, folder, shards):
    assert contents(folder) == shards
    assert {(s.split, s.path.name): s.md5 for s in manifest.shards} == {
        key: hashlib.md5(content).hexdigest() for key, content in shards.items()
    }
    assert all(shard.records == 4 for shard in manifest.shards)
    assert not list((folder / PARTITION).glob("*/.*"))
