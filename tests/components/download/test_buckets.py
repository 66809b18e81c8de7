"""Buckets as source and destination, through an emulator of Cloud Storage."""

import hashlib
import json

import pytest
import urllib3
from gcp_storage_emulator.server import create_server
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from components.download import upload
from components.download.__main__ import main
from components.download.cloud_storage import CloudStorage
from components.download.servers import Servers
from components.download.step import run_download
from tests.components.download.conftest import PARTITION, fetched
from tests.components.download.server import truncated, wrong
from trainer.config import Config
from trainer.errors import InputError
from trainer.manifest import parse_manifest

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def bucket(monkeypatch):
    emulator = create_server("127.0.0.1", 0, in_memory=True, default_bucket="data")
    emulator.start()
    port = emulator._api._httpd.server_port
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    client = storage.Client(project="test", credentials=AnonymousCredentials())
    yield client.bucket("data")
    emulator.stop()


def put_shards(bucket, shards, prefix="in"):
    for (split, name), content in shards.items():
        bucket.blob(f"{prefix}/{split}/{name}").upload_from_string(content)


def in_bucket(bucket, prefix):
    return {
        tuple(blob.name.split("/")[-2:]): blob.download_as_bytes()
        for blob in bucket.client.list_blobs("data", prefix=prefix)
        if blob.name.endswith(".tfrecord")
    }


def streamed(source, destination="gs://data/out", attempts=4):
    config = Config().updated({"download": {"attempts": attempts, "stall_seconds": 10.0}})
    uri, _ = run_download(source, destination, config, "", "")
    content = CloudStorage().read(f"{uri}/manifest.json")
    return parse_manifest(json.loads(content), uri)


def test_a_bucket_is_a_source(bucket, shards, tmp_path):
    put_shards(bucket, shards)
    manifest = fetched("gs://data/in", tmp_path)
    assert {(s.split, s.path.name): s.path.read_bytes() for s in manifest.shards} == shards
    assert fetched("gs://data/in", tmp_path) == manifest


def test_a_bucket_that_is_not_there(bucket, tmp_path):
    with pytest.raises(InputError, match="gs://absent"):
        fetched("gs://absent/in", tmp_path)


def test_a_release_streams_into_a_bucket(bucket, server, shards, capsys):
    source = server.release(shards)
    manifest = streamed(source)
    assert in_bucket(bucket, f"out/{PARTITION}") == shards
    assert {(s.split, s.uri.rpartition("/")[2]): s.md5 for s in manifest.shards} == {
        key: hashlib.md5(content).hexdigest() for key, content in shards.items()
    }
    server.requests.clear()
    assert streamed(source) == manifest
    assert not [path for _, path, _ in server.requests if path.endswith(".tfrecord")]
    main(["--verify", f"gs://data/out/manifests/{manifest.fingerprint}"])
    assert "5 shards are as the manifest has them" in capsys.readouterr().out


def test_an_interrupted_upload_goes_on(bucket, server, shards, monkeypatch):
    """The connection breaks once after Cloud Storage has some bytes: they are not sent again."""
    monkeypatch.setattr(upload, "CHUNK", 1 << 18)
    large = dict(shards)
    large["train", "train00.tfrecord"] = shards["train", "train00.tfrecord"] * 60
    spans = []
    put = Servers.put

    def breaks(self, url, body, span):
        spans.append(span)
        answer = put(self, url, body, span)
        if span.startswith("bytes 262144-") and spans.count(span) == 1:
            raise urllib3.exceptions.ProtocolError("reset")
        return answer

    monkeypatch.setattr(Servers, "put", breaks)
    streamed(server.release(large))
    assert in_bucket(bucket, f"out/{PARTITION}") == large
    assert "bytes */*" in spans


def test_copies_of_a_folder(shards, tmp_path):
    for (split, name), content in shards.items():
        (tmp_path / "in" / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / split / name).write_bytes(content)
    manifest = fetched(str(tmp_path / "in"), tmp_path / "out", copy=True)
    assert all(shard.path.is_relative_to(tmp_path / "out") for shard in manifest.shards)
    assert {(s.split, s.path.name): s.path.read_bytes() for s in manifest.shards} == shards


def test_wrong_bytes_never_have_a_name_in_the_bucket(bucket, server, shards):
    source = server.release(shards)
    path = f"/{PARTITION}/train/train01.tfrecord"
    server.faults[path] = [wrong]
    streamed(source, "gs://data/a")
    assert in_bucket(bucket, "a/") == shards
    server.faults[path] = wrong
    with pytest.raises(InputError, match="1 of 5 shards are missing"):
        streamed(source, "gs://data/b")
    others = {key: content for key, content in shards.items() if key[1] != "train01.tfrecord"}
    assert in_bucket(bucket, "b/") == others
    missing = json.loads(CloudStorage().read("gs://data/b/missing.json"))
    assert list(missing) == ["train/train01.tfrecord"]


def test_another_process_goes_on_with_an_upload(bucket, server, shards, monkeypatch):
    """The run ends when a part is in the bucket; the next one asks for the rest alone."""
    monkeypatch.setattr(upload, "CHUNK", 1 << 18)
    monkeypatch.setattr(upload, "NOTED_BYTES", 1 << 18)
    large = dict(shards)
    large["train", "train00.tfrecord"] = shards["train", "train00.tfrecord"] * 80
    source = server.release(large)
    path = f"/{PARTITION}/train/train00.tfrecord"
    server.faults[path] = truncated(700_000, server.etag(path, large["train", "train00.tfrecord"]))
    with pytest.raises(InputError, match="1 of 5 shards are missing"):
        streamed(source, attempts=1)
    assert ("train", "train00.tfrecord") not in in_bucket(bucket, f"out/{PARTITION}")
    server.faults.clear()
    server.requests.clear()
    streamed(source)
    assert in_bucket(bucket, f"out/{PARTITION}") == large
    assert server.got(path) == ["bytes=524288-"]
    assert not list(bucket.client.list_blobs("data", prefix="out/.uploads"))
