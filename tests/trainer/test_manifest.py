import dataclasses
import json
import re

import pytest

from trainer.errors import InputError
from trainer.manifest import Manifest, Shard, read_manifest

SHARDS = (
    Shard("train", "/a/x.tfrecord", 5, "m1", 2),
    Shard("validate", "/a/y.tfrecord", 6, "m2", 3),
)
MANIFEST = Manifest("here", "frame", 9, SHARDS)


def test_a_manifest_survives_a_round_trip(tmp_path):
    MANIFEST.write(tmp_path / "manifest.json")
    assert read_manifest(tmp_path) == MANIFEST
    assert read_manifest(tmp_path / "manifest.json") == MANIFEST
    assert MANIFEST.records("train") == 2
    assert MANIFEST.split("validate") == SHARDS[1:]
    assert MANIFEST.read_vocabulary().names[8] == "class 8"


def test_the_classes_that_are_rated(tmp_path):
    path = tmp_path / "segment_label_ids.csv"
    assert MANIFEST.read_segment_labels() == ()
    rated = dataclasses.replace(MANIFEST, segment_labels=str(path))
    with pytest.raises(InputError, match=f"{path}: no such file"):
        rated.read_segment_labels()
    path.write_text("Index\n8\n2\n")
    assert rated.read_segment_labels() == (2, 8)
    path.write_text("9")
    with pytest.raises(InputError, match=f"{path}: names class 9, expected 0 to 8"):
        rated.read_segment_labels()


def test_the_fingerprint_is_of_the_content_not_of_the_place():
    def fingerprint(**changes):
        return dataclasses.replace(MANIFEST, **changes).fingerprint

    elsewhere = tuple(dataclasses.replace(s, uri=s.uri.replace("/a/", "gs://b/")) for s in SHARDS)
    assert fingerprint(shards=elsewhere, source="there") == MANIFEST.fingerprint
    changed = (dataclasses.replace(SHARDS[0], md5="m3"), SHARDS[1])
    different = {
        fingerprint(shards=changed),
        fingerprint(shards=SHARDS[:1]),
        fingerprint(num_classes=10),
        fingerprint(content="other vocabulary"),
        fingerprint(features_mark="random weights"),
    }
    assert len(different | {MANIFEST.fingerprint}) == 6


def test_what_is_wrong_is_said(tmp_path):
    path = tmp_path / "manifest.json"
    with pytest.raises(InputError, match="no such file"):
        read_manifest(path)
    content = MANIFEST.as_dict()
    for changed, words in (
        ("no json", "expected JSON"),
        ([], "expected a manifest of version 1"),
        (content | {"version": 2}, "expected a manifest of version 1"),
        (content | {"fingerprint": "x"}, "its fingerprint is x, but its content has"),
        (content | {"more": 1}, "is no manifest"),
        ({k: v for k, v in content.items() if k != "shards"}, "is no manifest"),
    ):
        path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
        with pytest.raises(InputError, match=re.escape(f"{path}: {words}")):
            read_manifest(path)
    with pytest.raises(InputError, match=r"no shards of split test \(found: train, validate\)"):
        MANIFEST.split("test")


def test_a_split_that_is_none(tmp_path):
    shards = (SHARDS[0], dataclasses.replace(SHARDS[1], split="validation"))
    dataclasses.replace(MANIFEST, shards=shards).write(tmp_path / "manifest.json")
    words = "/a/y.tfrecord is of split 'validation', expected train, validate, test"
    with pytest.raises(InputError, match=words):
        read_manifest(tmp_path)
