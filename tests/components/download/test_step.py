import dataclasses
import os
import re
import shutil
import threading

import numpy as np
import pytest

from components.download import step
from tests.conftest import TINY_SAMPLE, mean_video
from trainer import records
from trainer.config import Config
from trainer.errors import InputError
from trainer.feature_networks.feature_extractor import (
    FEATURE_EXTRACTOR,
    FeatureExtractor,
    NetworkId,
)
from trainer.feature_networks.projection import Projection
from trainer.manifest import read_manifest

CONFIG = Config().updated({"sample": TINY_SAMPLE})


def download(source, destination, config=CONFIG, artifact=""):
    uri, fingerprint = step.run_download(str(source), str(destination), config, artifact, artifact)
    manifest = read_manifest(uri)
    assert manifest.fingerprint == fingerprint
    return uri, manifest


def test_a_folder_is_referenced_not_copied(tiny_sample, tmp_path):
    uri, manifest = download(tiny_sample, tmp_path / "state")
    assert uri == f"{tmp_path}/state/manifests/{manifest.fingerprint}"
    assert [shard.split for shard in manifest.shards] == ["train"] * 5 + ["validate"] * 2
    assert all(shard.path.parent.parent == tiny_sample for shard in manifest.shards)
    assert manifest.records("train") == 48
    assert manifest.num_classes == 12
    assert not manifest.oracle  # only what this run made has a known ceiling


def test_what_made_the_features_comes_with_them(tiny_sample, tmp_path):
    _, plain = download(tiny_sample, tmp_path / "state")
    assert (plain.feature_extractor, plain.features_mark) == ("", "")
    ids = NetworkId("inception-v3-imagenet", "a" * 32), NetworkId("vggish", "b" * 32)
    one = Projection(np.zeros(2), np.eye(2), None, "fitted")
    FeatureExtractor(*ids, one, one, 360, 300).write(tiny_sample)
    _, known = download(tiny_sample, tmp_path / "state")
    assert known.feature_extractor == str(tiny_sample / FEATURE_EXTRACTOR)
    assert known.features_mark == ""
    assert known.fingerprint != plain.fingerprint
    FeatureExtractor(*ids, one, one, 360, 300, seed=2).write(tiny_sample)
    assert download(tiny_sample, tmp_path / "state")[1].features_mark == "random weights (seed 2)"
    (tiny_sample / FEATURE_EXTRACTOR).write_bytes(b"no archive")
    with pytest.raises(InputError, match=f"{FEATURE_EXTRACTOR}: is no {FEATURE_EXTRACTOR}"):
        download(tiny_sample, tmp_path / "state")


def test_records_of_random_networks_say_so_without_a_manifest(tiny_sample, tmp_path):
    shard = next(iter(sorted(tiny_sample.rglob("train*.tfrecord"))))
    marked = [
        records.encode(dataclasses.replace(records.parse(one), mark="random weights (seed 0)"))
        for one in records.read_records(shard)
    ]
    records.write_records(shard, marked)
    for _ in range(2):  # read, and known by its proof
        _, manifest = download(tiny_sample, tmp_path / "state")
        assert manifest.features_mark == "random weights (seed 0)"


def test_records_and_their_extractor_belong_together(tiny_sample, tmp_path):
    ids = NetworkId("inception-v3-imagenet", "a" * 32), NetworkId("vggish", "b" * 32)
    one = Projection(np.zeros(2), np.eye(2), None, "fitted")
    extractor = FeatureExtractor(*ids, one, one, 360, 300)
    shard = next(iter(sorted(tiny_sample.rglob("train*.tfrecord"))))
    made = [
        records.encode(dataclasses.replace(records.parse(one), extractor=extractor.digest))
        for one in records.read_records(shard)
    ]
    records.write_records(shard, made)
    with pytest.raises(InputError, match=rf"made by the feature extractor .*{FEATURE_EXTRACTOR}"):
        download(tiny_sample, tmp_path / "state")
    dataclasses.replace(extractor, seed=1).write(tiny_sample)
    with pytest.raises(InputError, match=rf"made by the feature extractor .*{FEATURE_EXTRACTOR}"):
        download(tiny_sample, tmp_path / "state")
    extractor.write(tiny_sample)
    assert download(tiny_sample, tmp_path / "state")[1].feature_extractor


def test_the_sample_is_made_once_and_mended(tmp_path, capsys):
    uri, manifest = download("sample", tmp_path)
    made = "makes the built-in sample"
    assert made in capsys.readouterr().out
    assert manifest.oracle.endswith("/oracle.csv")
    assert download("sample", tmp_path)[0] == uri
    assert made not in capsys.readouterr().out
    manifest.shards[0].path.write_bytes(b"spoiled")
    (tmp_path / ".sample-killed.partial").mkdir()
    assert download("sample", tmp_path)[1] == manifest
    assert "was changed since it was made: made anew" in capsys.readouterr().out
    assert not list(tmp_path.glob(".sample-*"))
    other = dataclasses.replace(CONFIG, sample=dataclasses.replace(CONFIG.sample, seed=9))
    assert download("sample", tmp_path, other)[1].fingerprint != manifest.fingerprint


def test_without_a_destination_all_is_in_the_artifact(tmp_path):
    artifact = str(tmp_path / "artifact")
    uri, manifest = download("sample", "", artifact=artifact)
    assert uri == artifact
    assert all(shard.uri.startswith(artifact) for shard in manifest.shards)


@pytest.mark.parametrize("store", ["minio", "s3"])
def test_in_a_cluster_the_manifest_stays_where_the_cluster_carries_it(store, tmp_path):
    artifact, place = tmp_path / "artifact", tmp_path / "out"
    uri = f"{store}://bucket/run/examples"
    found, fingerprint = step.run_download("sample", str(place), CONFIG, str(artifact), uri)
    assert found == uri
    manifest = read_manifest(artifact)
    assert manifest == read_manifest(place / "manifests" / fingerprint)
    assert all(shard.path.is_relative_to(place) for shard in manifest.shards)


def test_a_change_that_keeps_size_and_time_is_seen(tiny_sample, tmp_path):
    _, manifest = download(tiny_sample, tmp_path / "state")
    path = manifest.shards[1].path
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=times)
    with pytest.raises(InputError, match="the checksum of its"):
        download(tiny_sample, tmp_path / "state")


def test_what_was_proved_before_an_error_stays_proved(tiny_sample, tmp_path, monkeypatch):
    bad = tiny_sample / "validate" / "validate0001.tfrecord"
    content = bad.read_bytes()
    bad.write_bytes(content[:-1])
    with pytest.raises(InputError, match="cut off"):
        download(tiny_sample, tmp_path / "state")
    bad.write_bytes(content)
    read = []
    read_records = records.read_records
    monkeypatch.setattr(records, "read_records", lambda p: read.append(p) or read_records(p))
    download(tiny_sample, tmp_path / "state")
    assert read == [bad]


def test_what_was_verified_is_not_read_again(tiny_sample, tmp_path, monkeypatch):
    _, manifest = download(tiny_sample, tmp_path / "state")
    changed = manifest.shards[1].path
    records.write_records(changed, [r.payload for r in records.read_records(changed)][:-1])
    read = []
    read_records = records.read_records
    monkeypatch.setattr(records, "read_records", lambda p: read.append(p) or read_records(p))
    _, again = download(tiny_sample, tmp_path / "state")
    assert read == [changed]
    assert again.fingerprint != manifest.fingerprint
    assert again.records("train") == 47


def test_a_part_of_a_folder(tiny_sample, tmp_path):
    part = CONFIG.updated({"download": {"max_shards": 1}})
    _, manifest = download(tiny_sample, tmp_path / "state", part)
    assert [shard.path.name for shard in manifest.shards] == [
        "train0000.tfrecord", "validate0000.tfrecord",
    ]  # fmt: skip
    absent = CONFIG.updated({"download": {"names": "x.tfrecord"}})
    with pytest.raises(InputError, match=r"download.names holds 'x.tfrecord'"):
        download(tiny_sample, tmp_path / "state", absent)


def test_a_copy_reads_and_needs_what_is_asked_for_alone(tiny_sample, tmp_path):
    (tiny_sample / "train" / "train0001.tfrecord").write_bytes(b"damaged")
    shutil.rmtree(tiny_sample / "validate")
    values = {"copy": True, "splits": "train", "max_shards": 1}
    _, manifest = download(tiny_sample, tmp_path / "to", CONFIG.updated({"download": values}))
    (shard,) = manifest.shards
    assert shard.path.is_relative_to(tmp_path / "to")
    values["max_shards"] = 2
    with pytest.raises(InputError, match=r"train0001.tfrecord: is no TFRecord file"):
        download(tiny_sample, tmp_path / "to", CONFIG.updated({"download": values}))


def test_official_names_in_one_folder_and_a_vocabulary_above(tiny_sample, tmp_path):
    flat = tmp_path / "root" / "flat"
    flat.mkdir(parents=True)
    for path in tiny_sample.glob("*/*.tfrecord"):
        shutil.copy(path, flat)
    shutil.copy(tiny_sample / "vocabulary.csv", flat.parent)
    _, manifest = download(flat, tmp_path / "state")
    assert (manifest.records("train"), manifest.records("validate")) == (48, 20)
    assert manifest.vocabulary == str(flat.parent / "vocabulary.csv")


def test_without_a_vocabulary_classes_are_numbers(tiny_sample, tmp_path, capsys):
    (tiny_sample / "vocabulary.csv").unlink()
    _, manifest = download(tiny_sample, tmp_path / "state")
    assert "warning: no vocabulary.csv" in capsys.readouterr().out
    assert manifest.num_classes == 3862
    assert manifest.read_vocabulary().names[11] == "class 11"
    release_1 = CONFIG.updated({"data": {"num_classes": 4716}})
    assert download(tiny_sample, tmp_path / "state", release_1)[1].num_classes == 4716


def test_a_vocabulary_of_other_classes_is_not_used(tiny_sample, tmp_path, capsys):
    release_1 = CONFIG.updated({"data": {"num_classes": 4716}})
    _, manifest = download(tiny_sample, tmp_path / "state", release_1)
    assert "names 12 classes, data.num_classes is 4,716: it is not used" in capsys.readouterr().out
    assert manifest.read_vocabulary().names[3] == "class 3"


def test_two_downloads_at_once_make_one_sample(tmp_path):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(download("sample", tmp_path)[0]))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert len(set(results)) == 1


def test_a_damaged_index_costs_time_and_nothing_else(tiny_sample, tmp_path):
    _, manifest = download(tiny_sample, tmp_path / "state")
    (tmp_path / "state" / "index.json").write_text('{"x": 3}')
    assert download(tiny_sample, tmp_path / "state")[1] == manifest


def test_what_is_wrong_is_said(tiny_sample, tmp_path, rng):
    def fails(words):
        with pytest.raises(InputError, match=re.escape(words)):
            download(tiny_sample, tmp_path / "state")
        assert not (tmp_path / "state" / "manifests").exists()

    with pytest.raises(InputError, match="no such folder; expected `sample` or a folder"):
        download(tmp_path / "absent", tmp_path / "state")
    path = tiny_sample / "train" / "train0001.tfrecord"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    fails(f"{path}: record 9 (at byte ")
    path.write_bytes(b"some text that is no TFRecord file at all")
    fails(f"{path}: is no TFRecord file")
    path.write_bytes(b"")
    fails(f"{path}: is empty")
    records.write_records(path, [records.encode(mean_video(rng))])
    fails("holds frame-level shards (train0000.tfrecord) and video-level ones (train0001.tfrecord)")
    for shard in (tiny_sample / "train").iterdir():
        shard.unlink()
    fails(f"{tiny_sample}: no shards of train, expected train/*.tfrecord or train*.tfrecord")


def test_the_real_records(real_data, tmp_path):
    _, manifest = download(real_data / "video", tmp_path)
    assert manifest.level == "video"
    assert (manifest.records("train"), manifest.records("validate")) == (13998, 3501)
    assert manifest.read_vocabulary().names[0] == "Game"
