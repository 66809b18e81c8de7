"""Buckets as source and destination, through an emulator of Cloud Storage."""

import base64
import dataclasses
import hashlib
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import urllib3
from google.cloud import storage

from components.download import upload
from components.download.__main__ import main
from components.download.cloud_storage import CloudStorage, StoredObject
from components.download.servers import Servers
from components.download.step import run_download
from tests.components.download.conftest import PARTITION, fetched
from tests.components.download.server import truncated, wrong
from tests.conftest import TINY_SAMPLE
from trainer.config import Config
from trainer.errors import InputError
from trainer.manifest import parse_manifest

pytestmark = pytest.mark.usefixtures("quick")


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


def test_a_bucket_is_a_source(bucket, shards, tmp_path, monkeypatch):
    put_shards(bucket, shards)
    lines = ["Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3,W"]
    lines += [f"{n},5,/m/{n},Class {n},u,Games,,,d" for n in range(9)]
    bucket.blob("vocabulary.csv").upload_from_string("\n".join(lines))
    bucket.blob("in/segment_label_ids.csv").upload_from_string("Index\n3\n8\n")
    manifest = fetched("gs://data/in", tmp_path)
    assert {(s.split, s.path.name): s.path.read_bytes() for s in manifest.shards} == shards
    assert manifest.read_vocabulary().names[8] == "Class 8"
    assert manifest.read_segment_labels() == (3, 8)
    asked = []
    monkeypatch.setattr(Servers, "open", lambda self, url, headers: asked.append(url))
    assert fetched("gs://data/in", tmp_path) == manifest
    assert not asked


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
    assert spans.count("bytes 262144-524287/*") == 1


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


@pytest.mark.parametrize("silent", [0, 2])
def test_another_process_goes_on_with_an_upload(bucket, server, shards, monkeypatch, silent):
    """The run ends when a part is in the bucket; the next one asks for the rest alone.

    `silent`: how often Cloud Storage does not tell the next one what it has.
    """
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
    put, asked = Servers.put, []

    def answers_late(self, url, body, span):
        if span == "bytes */*" and len(asked) < silent:
            asked.append(span)
            raise urllib3.exceptions.ProtocolError("reset")
        return put(self, url, body, span)

    monkeypatch.setattr(Servers, "put", answers_late)
    streamed(source)
    assert len(asked) == silent
    assert in_bucket(bucket, f"out/{PARTITION}") == large
    assert server.got(path) == ["bytes=524288-"]
    assert not list(bucket.client.list_blobs("data", prefix="out/.uploads"))


REFUSED = {
    # what Cloud Storage answers to the next bytes, and how often: what becomes of it
    "503 twice": ((503, 2), ""),
    "429": ((429, 1), ""),
    "410": ((410, 1), ""),  # the upload is gone: it begins anew
    "400": ((400, 1), ""),
    "403": ((403, 1), "Cloud Storage answers 403 no"),
    "always 503": ((503, 99), "can not be written to, 4 attempts; the last: answers 503 no"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cloud_storage_answers_to_an_upload(case, bucket, server, shards, monkeypatch):
    (status, times), words = REFUSED[case]
    left = [status] * times
    put = Servers.put

    def refuses(self, url, body, span):
        if left:
            return SimpleNamespace(status=left.pop(), data=b"no", headers={})
        return put(self, url, body, span)

    monkeypatch.setattr(Servers, "put", refuses)
    source = server.release(shards)
    if words:
        with pytest.raises(InputError, match=words):
            streamed(source)
        left.clear()
        assert in_bucket(bucket, f"out/{PARTITION}").items() <= shards.items()
    streamed(source)
    assert in_bucket(bucket, f"out/{PARTITION}") == shards


def test_an_object_whose_md5_is_not_known(bucket, server, shards, monkeypatch):
    """One that was composed of others has its CRC-32C alone: it is read, once."""
    source = server.release(shards)
    path = f"out/{PARTITION}/train/train01.tfrecord"
    whole, other = shards["train", "train01.tfrecord"], shards["train", "train00.tfrecord"]
    of = StoredObject.of.__func__

    def without_md5(cls, blob):
        found = of(cls, blob)
        return dataclasses.replace(found, md5="") if found.generation in composed else found

    def compose(content):
        blob = bucket.blob(path)
        blob.upload_from_string(content)
        composed.append(int(blob.generation))

    composed = []
    monkeypatch.setattr(StoredObject, "of", classmethod(without_md5))
    compose(whole)
    streamed(source)
    assert server.got(f"/{PARTITION}/train/train01.tfrecord") == []
    for content in (other, whole[:-3]):  # another shard, and none at all: both come anew
        compose(content)
        server.requests.clear()
        streamed(source)
        assert server.got(f"/{PARTITION}/train/train01.tfrecord") == [""]
        assert in_bucket(bucket, f"out/{PARTITION}") == shards


def test_a_source_whose_md5_is_not_known(bucket, shards, tmp_path, monkeypatch):
    put_shards(bucket, shards)
    of = StoredObject.of.__func__
    monkeypatch.setattr(
        StoredObject,
        "of",
        classmethod(lambda cls, blob: dataclasses.replace(of(cls, blob), md5="")),
    )
    manifest = fetched("gs://data/in", tmp_path)
    assert {(s.split, s.path.name): s.path.read_bytes() for s in manifest.shards} == shards


def test_cloud_storage_is_told_what_proves_an_object(bucket, monkeypatch):
    """It refuses another content by that: https://cloud.google.com/storage/docs/data-validation."""
    told = []
    begin = storage.Blob.create_resumable_upload_session
    monkeypatch.setattr(
        storage.Blob, "create_resumable_upload_session",
        lambda blob, *a, **k: told.append((blob.md5_hash, blob.crc32c)) or begin(blob, *a, **k),
    )  # fmt: skip
    CloudStorage().begin_upload("gs://data/x", "md5:" + "0f" * 16)
    CloudStorage().begin_upload("gs://data/x", "crc32c:0000000f")
    assert told == [
        (base64.b64encode(b"\x0f" * 16).decode(), None),
        (None, base64.b64encode(b"\0\0\0\x0f").decode()),
    ]


def test_a_damaged_index_costs_time_and_nothing_else(bucket, server, shards):
    source = server.release(shards)
    manifest = streamed(source)
    for damaged in ("{", "[3]", '{"x": 3}', b"\xff"):
        bucket.blob("out/index.json").upload_from_string(damaged)
        assert streamed(source) == manifest


def test_the_sample_in_a_bucket(bucket):
    config = Config().updated({"sample": TINY_SAMPLE})
    uri, fingerprint = run_download("sample", "gs://data/out", config, "", "")
    assert uri == f"gs://data/out/manifests/{fingerprint}"
    assert run_download("sample", "gs://data/out", config, "", "") == (uri, fingerprint)
    assert len(in_bucket(bucket, "out/")) == 7


def test_a_bucket_that_can_not_be():
    with pytest.raises(InputError, match=r"gs://_/in/: .*Bucket names"):
        CloudStorage().under("gs://_/in/")


def test_killed_in_the_middle_of_an_upload(bucket, server, shards):
    """SIGKILL when a part is in the bucket and noted: the next process goes on with it."""
    large = {key: content for key, content in shards.items() if key[0] == "validate"}
    large["train", "train00.tfrecord"] = shards["train", "train00.tfrecord"] * 3500  # 50 MB
    source = server.release(large)
    path = f"/{PARTITION}/train/train00.tfrecord"
    command = [sys.executable, "-m", "components.download", source,
               "--destination", "gs://data/out", "--rate_limit"]  # fmt: skip
    process = subprocess.Popen([*command, "15"])
    while not list(bucket.client.list_blobs("data", prefix="out/.uploads/")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert ("train", "train00.tfrecord") not in in_bucket(bucket, f"out/{PARTITION}")
    subprocess.run([*command, "0"], check=True)
    assert in_bucket(bucket, f"out/{PARTITION}") == large
    first, second = server.got(path)
    assert first == ""
    assert int(second.removeprefix("bytes=").rstrip("-")) >= upload.NOTED_BYTES
    for split, name in large:
        if split == "validate":
            assert server.got(f"/{PARTITION}/{split}/{name}") == [""]
