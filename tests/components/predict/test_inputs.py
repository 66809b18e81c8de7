"""What to predict with and on is found, or it is said why not."""

import dataclasses
import re
from pathlib import Path

import pytest

from components.predict.inputs import examples_beside, find_shards
from tests.components.predict.conftest import CLASSES
from trainer.errors import InputError
from trainer.manifest import Manifest, Shard


def names(found):
    return [Path(shard.uri).name for shard in found]


def test_a_model_that_no_run_made(tmp_path):
    with pytest.raises(InputError, match=r"has no examples/manifest\.json beside it"):
        examples_beside(tmp_path / "serving_model")


def test_forms_of_data(shards, frame_model):
    (shards / "deep").mkdir()
    (shards / "deep" / "c.tfrecord").write_bytes(b"c")
    (shards / "notes.txt").write_text("no shard")
    assert names(find_shards(str(shards), "", frame_model)) == ["a.tfrecord", "b.tfrecord",
                                                                "c.tfrecord"]  # fmt: skip
    assert names(find_shards(f"{shards}/[ab]*.tfrecord", "", frame_model)) == [
        "a.tfrecord", "b.tfrecord"]  # fmt: skip
    (one,) = find_shards(str(shards / "b.tfrecord"), "", frame_model)
    assert one.bytes == (shards / "b.tfrecord").stat().st_size
    assert Path(one.uri).is_absolute()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("empty", "empty: has no *.tfrecord files; expected shards"),
        ("absent", "absent: no such file or folder; expected shards"),
        ("absent/*.tfrecord", "absent/*.tfrecord: no file has such a name; expected shards"),
        ("s3://bucket/x", "s3://bucket/x: expected a path or gs://"),
    ],
)
def test_no_shards(data, words, frame_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=re.escape(words)):
        find_shards(data, "", frame_model)


@pytest.fixture
def described(shards, tmp_path):
    """A manifest of the shards, one of each split."""
    listed = [
        Shard(split, str(shards / f"{name}.tfrecord"), 9, "", 1)
        for split, name in (("train", "a"), ("validate", "b"))
    ]
    return Manifest("here", "frame", CLASSES, tuple(listed))


def test_a_split_of_a_manifest(described, frame_model, tmp_path):
    described.write(tmp_path / "manifest.json")
    assert names(find_shards(str(tmp_path), "validate", frame_model)) == ["b.tfrecord"]
    file = str(tmp_path / "manifest.json")
    assert names(find_shards(file, "train", frame_model)) == ["a.tfrecord"]
    with pytest.raises(InputError, match=r"no shards of split test"):
        find_shards(file, "test", frame_model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_classes": 9}, "the model's num_classes is 12, the data's 9"),
        ({"level": "video"}, "the model's level is frame, the data's video"),
    ],
)
def test_a_manifest_of_other_data(change, words, described, frame_model, tmp_path):
    dataclasses.replace(described, **change).write(tmp_path / "manifest.json")
    with pytest.raises(InputError, match=words):
        find_shards(str(tmp_path), "validate", frame_model)


def vocabulary(names):
    rows = "".join(f"{i},{name},a\n" for i, name in enumerate(names))
    return f"Index,Name,Vertical1\n{rows}"


@pytest.mark.parametrize("place", ["manifest", "folder", "above"])
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([f"näme {i}" for i in range(CLASSES)], None),
        ([f"other {i}" for i in range(CLASSES)], "was trained with another vocabulary"),
        (["näme 0"] * 9, "the model's num_classes is 12, the data's 9"),
    ],
)
def test_names_of_other_classes(place, rows, words, shards, described, frame_model, tmp_path):
    file = (tmp_path if place == "above" else shards) / "vocabulary.csv"
    file.write_text(vocabulary(rows))
    data = str(shards)
    if place == "manifest":
        dataclasses.replace(described, vocabulary=str(file), num_classes=len(rows)).write(
            tmp_path / "manifest.json"
        )
        data = str(tmp_path)
    if words is None:
        assert find_shards(data, "validate", frame_model)
    else:
        with pytest.raises(InputError, match=words):
            find_shards(data, "validate", frame_model)


def test_shards_in_a_bucket(bucket, shards, described, frame_model, tmp_path):
    for name in ("a", "b"):
        bucket.blob(f"yt/{name}.tfrecord").upload_from_filename(shards / f"{name}.tfrecord")
    assert names(find_shards("gs://data/yt", "", frame_model)) == ["a.tfrecord", "b.tfrecord"]
    assert names(find_shards("gs://data/yt/b*", "", frame_model)) == ["b.tfrecord"]
    (one,) = find_shards("gs://data/yt/a.tfrecord", "", frame_model)
    assert one.bytes == (shards / "a.tfrecord").stat().st_size
    with pytest.raises(InputError, match=r"gs://data/no: no such object is there"):
        find_shards("gs://data/no", "", frame_model)
    described.write(tmp_path / "manifest.json")
    bucket.blob("m/manifest.json").upload_from_filename(tmp_path / "manifest.json")
    assert names(find_shards("gs://data/m", "validate", frame_model)) == ["b.tfrecord"]
