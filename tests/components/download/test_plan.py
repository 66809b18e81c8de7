"""Sources, plans, and which files of them are meant."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.download.plan import (
    MOST_PLAN_BYTES,
    chosen,
    is_release,
    parse_plan,
    parse_source,
)
from trainer.errors import InputError

MD5 = "0" * 32


def test_the_official_servers():
    release = parse_source("youtube8m:2/frame", "eu", [])
    assert release.plan_urls("train") == ["http://data.yt8m.org/2/download_plans/frame_train.json"]
    (file,) = release.files("validate", {"validate00.tfrecord": MD5})
    assert file.urls == tuple(
        f"http://{name}.data.yt8m.org/2/frame/validate/validate00.tfrecord"
        for name in ("eu", "us", "asia")
    )


def test_release_3_trains_on_release_2():
    """It has ratings of validate and test alone."""
    release = parse_source("youtube8m:3/frame", "us", [])
    assert release.partition("train") == "2/frame/train"
    assert release.partition("validate") == "3/frame/validate"
    assert release.plan_urls("test") == ["http://data.yt8m.org/3/download_plans/frame_test.json"]


def test_any_other_server():
    release = parse_source("https://host:8443/a/b/2/video/", "us", ["http://more/x/"])
    assert release.plan_urls("test") == [
        "https://host:8443/a/b/2/download_plans/video_test.json",
        "http://more/x/2/download_plans/video_test.json",
    ]
    (file,) = release.files("test", {"t.tfrecord": MD5})
    assert file.urls == (
        "https://host:8443/a/b/2/video/test/t.tfrecord", "http://more/x/2/video/test/t.tfrecord",
    )  # fmt: skip


@pytest.mark.parametrize(
    "source",
    ["youtube8m:2", "youtube8m:4/frame", "youtube8m:2/frames", "youtube8m:x/2/frame",
     "http://host", "http://host/2", "youtube8m:3/video", "youtube8m:"],
)  # fmt: skip
def test_sources_that_are_none(source):
    assert is_release(source)
    with pytest.raises(InputError, match=r"expected youtube8m:RELEASE/LEVEL or http"):
        parse_source(source, "us", [])


def test_paths_are_no_servers():
    assert not any(map(is_release, ("sample", "/a/2/frame", "gs://b/2/frame", "youtube8m/2/frame")))
    for odd in ("host/x", "http://[::1", "ftp://host/x", "http://"):
        with pytest.raises(InputError, match=r"download.mirrors holds '.*', expected http"):
            parse_source("youtube8m:2/frame", "us", [odd])
    with pytest.raises(InputError, match="expected youtube8m:RELEASE/LEVEL"):
        parse_source("http://[::1/2/frame", "us", [])


def test_a_plan():
    content = json.dumps({"files": {"train00.tfrecord": MD5.upper(), "train0-.tfrecord": MD5}})
    assert parse_plan(content.encode(), "u") == {
        "train00.tfrecord": MD5, "train0-.tfrecord": MD5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no plan, expected JSON"),
        (b"<html>sorry</html>", "it starts with '<html>sorry"),
        (b"[" * 100_000, "is no plan, expected JSON"),
        (b"[]", "is no plan, expected {"),
        (b'{"files": {}}', "is no plan, expected {"),
        (b'{"files": ["train00.tfrecord"]}', "is no plan, expected {"),
        (b"\xff\xfe", "is no plan, expected JSON"),
        (b'{"files": {"a.tfrecord": "x", "a.tfrecord": "y"}}', "names 'a.tfrecord' twice"),
        (b'{"files": {"a.tfrecord": "xyz"}}', "a.tfrecord has the MD5 'xyz', expected 32"),
        (b'{"files": {"a.tfrecord": 5}}', "a.tfrecord has the MD5 5, expected 32"),
        (b" " * (MOST_PLAN_BYTES + 1), "has more than 64 MiB"),
    ],
)
def test_plans_that_are_none(content, reason):
    with pytest.raises(InputError, match=r"^the address: ") as raised:
        parse_plan(content, "the address")
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    "name",
    ["../../etc/x.tfrecord", "/etc/x.tfrecord", "a/b.tfrecord", "..", "", ".hidden.tfrecord",
     "a\\b.tfrecord", "a\0.tfrecord", "a b.tfrecord", "x.exe", "x" * 300 + ".tfrecord",
     "é.tfrecord", "a\n.tfrecord"],
)  # fmt: skip
def test_names_that_would_leave_the_folder(name):
    content = json.dumps({"files": {"good.tfrecord": MD5, name: MD5}}).encode()
    with pytest.raises(InputError, match="expected a file's plain name"):
        parse_plan(content, "u")


@given(parts=st.integers(1, 12), count=st.integers(0, 40))
def test_parts_are_the_official_scripts(parts, count):
    """Each file in one part: int(md5(name), 16) % Y == X − 1."""
    release = parse_source("youtube8m:2/frame", "us", [])
    files = release.files("train", {f"train{n:02}.tfrecord": MD5 for n in range(count)})
    by_part = [chosen(files, f"{part},{parts}", 0, []) for part in range(1, parts + 1)]
    assert sorted(f.name for one in by_part for f in one) == [f.name for f in files]
    for part, one in enumerate(by_part):
        for file in one:
            assert int(hashlib.md5(file.name.encode()).hexdigest(), 16) % parts == part


def test_a_part_by_hand():
    """md5('train00.tfrecord') ends in an even digit or not: the halves differ in it."""
    files = parse_source("youtube8m:2/frame", "us", []).files(
        "train", {f"train{n:02}.tfrecord": MD5 for n in range(6)}
    )
    even = [f for f in files if hashlib.md5(f.name.encode()).hexdigest()[-1] in "02468ace"]
    assert chosen(files, "1,2", 0, []) == even
    assert chosen(files, "", 2, []) == files[:2]
    assert chosen(files, "", 0, ["train04.tfrecord"]) == [files[4]]


@pytest.mark.parametrize("shard", ["1", "0,5", "6,5", "a,b", "1,2,3", "1.5,2", "-1,2", ","])
def test_parts_that_are_none(shard):
    with pytest.raises(InputError, match=r"expected X,Y with 1 ≤ X ≤ Y, such as 1,100"):
        chosen([], shard, 0, [])
