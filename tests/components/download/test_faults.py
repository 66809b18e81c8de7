"""Whatever a server does: every byte is right in the end, or what is missing is said."""

import dataclasses
import errno
import subprocess

import pytest

from components.download import local_store, transfer
from tests.components.download.conftest import PARTITION, assert_whole, contents, fetched
from tests.components.download.server import (
    FaultServer,
    chunked,
    drips,
    endless,
    ignores_range,
    odd_length,
    other_range,
    redirect,
    reset,
    send,
    stalls,
    status,
    truncated,
    wrong,
)
from trainer.errors import InputError

SHARD = "train01.tfrecord"
PATH = f"/{PARTITION}/train/{SHARD}"

pytestmark = pytest.mark.usefixtures("quick")


MENDED = {
    # name: (faults of the first requests, ranges of all requests)
    "500": ([status(500)], ["", ""]),
    "503 twice": ([status(503), status(503)], ["", "", ""]),
    "429": ([status(429, Retry_After="0")], ["", ""]),
    "reset before the body": ([reset(0)], ["", ""]),
    "reset": ([reset(700)], ["", "bytes=700-"]),
    "reset twice": ([reset(700), reset(900)], ["", "bytes=700-", "bytes=1600-"]),
    "truncated": ([truncated(5000)], ["", "bytes=5000-"]),
    "truncated, no length": ([endless(5000)], ["", ""]),
    "no length": ([endless()], [""]),
    "chunked, breaks off": ([chunked(5000)], ["", None]),
    "wrong bytes": ([wrong], ["", ""]),
    "stalls": ([stalls(3000, 4.0)], ["", "bytes=3000-"]),
    "stalls at once": ([stalls(0, 4.0)], ["", ""]),
    "drips": ([drips(0.02)], ["", None]),
    "range ignored": ([truncated(800), ignores_range], ["", "bytes=800-"]),
    "a date that is none": ([status(503, Retry_After="Wed, 21 Oct 99999 07:28:00 GMT")], ["", ""]),
    "a wait that is none": ([status(503, Retry_After="soon")], ["", ""]),
    "a wait too long": ([status(503, Retry_After="9" * 5000)], ["", ""]),
    "an address that is none": ([status(302, Location="http://[::1/y")], ["", ""]),
    "a length that is none": ([odd_length], ["", None]),
    "another range": ([truncated(800), other_range], ["", "bytes=800-", ""]),
}


STALLED = ("stalls", "stalls at once", "drips")


@pytest.mark.parametrize("case", MENDED)
def test_what_another_attempt_mends(case, server, shards, tmp_path):
    source = server.release(shards)
    faults, ranges = MENDED[case]
    server.faults[PATH] = list(faults)
    # Long enough for a busy machine where nothing stalls.
    stall = {"stall_seconds": 1.0} if case in STALLED else {}
    assert_whole(fetched(source, tmp_path, **stall), tmp_path, shards)
    got = server.got(PATH)
    assert [a for a, b in zip(got, ranges, strict=True) if b is not None] == [
        b for b in ranges if b is not None
    ]
    for split, name in shards:
        if name != SHARD:
            assert server.got(f"/{PARTITION}/{split}/{name}") == [""]


def test_a_server_is_given_the_time_that_it_asks_for(server, shards, tmp_path, monkeypatch):
    waited = []
    sleep = transfer.Transfer._sleep
    monkeypatch.setattr(
        transfer.Transfer, "_sleep", lambda self, s: (waited.append(s), sleep(self, 0.0))
    )
    server.faults[PATH] = [status(503, Retry_After="7")]
    assert_whole(fetched(server.release(shards), tmp_path), tmp_path, shards)
    assert waited == [7]


@pytest.mark.parametrize("etag", ['"one"', 'W/"weak"', ""])
def test_a_server_without_ranges(etag, server, shards, tmp_path):
    server.ranges = False
    server.etags[PATH] = etag
    server.faults[PATH] = [truncated(700)]
    assert_whole(fetched(server.release(shards), tmp_path), tmp_path, shards)


def test_a_redirect_is_followed(server, shards, tmp_path):
    source = server.release(shards)
    server.files["/elsewhere"] = shards["train", SHARD]
    server.faults[PATH] = [redirect("/elsewhere")]
    assert_whole(fetched(source, tmp_path), tmp_path, shards)


def test_an_object_that_was_changed_between_attempts_starts_over(server, shards, tmp_path):
    """The server has another version of it now: no part of the first one is kept."""
    source = server.release(shards)
    right = shards["train", SHARD]
    server.files[PATH] = bytes(len(right))

    def first(handler, content):
        send(handler, content, '"old"', cut=3000)
        server.files[PATH] = right
        server.etags[PATH] = '"new"'

    server.faults[PATH] = [first]
    assert_whole(fetched(source, tmp_path), tmp_path, shards)
    assert server.got(PATH) == ["", "bytes=3000-"]


def missing(server, shards, folder, reason, **download):
    """A run that ends without SHARD and with all others."""
    source = server.release(shards)
    with pytest.raises(InputError, match="1 of 5 shards are missing") as raised:
        fetched(source, folder, **download)
    assert f"{server.url}{PATH}" in str(raised.value)
    assert reason in str(raised.value)
    others = {key: content for key, content in shards.items() if key[1] != SHARD}
    assert contents(folder) == others
    assert not (folder / "manifests").exists()
    return source


LOST = {
    "404": (status(404), "answers 404", 1),
    "403": (status(403), "answers 403", 1),
    "always 500": (status(500), "4 attempts brought nothing; the last: ", 4),
    "always wrong": (wrong, "with the MD5", 2),
    "416 to the whole": (status(416), "answers 416", 1),
    "always resets": (reset(0), "4 attempts brought nothing", 4),
    "redirects to itself": (redirect(PATH), "4 attempts brought nothing", None),
}


@pytest.mark.parametrize("case", LOST)
def test_what_stays_missing_is_said_and_had_later(case, server, shards, tmp_path):
    fault, reason, requests = LOST[case]
    server.faults[PATH] = fault
    source = missing(server, shards, tmp_path, reason)
    if requests:
        assert len(server.got(PATH)) == requests
    server.faults.clear()
    server.requests.clear()
    assert_whole(fetched(source, tmp_path), tmp_path, shards)
    assert [path for method, path, _ in server.requests if "/train/" in path] == [PATH, PATH]
    assert not any("/validate/" in path for _, path, _ in server.requests)


def test_a_second_run_fetches_nothing(server, shards, tmp_path):
    source = server.release(shards)
    first = fetched(source, tmp_path)
    server.requests.clear()
    assert fetched(source, tmp_path) == first
    assert not [path for _, path, _ in server.requests if path.endswith(".tfrecord")]


def test_a_file_that_was_changed_is_fetched_anew(server, shards, tmp_path, capsys):
    source = server.release(shards)
    fetched(source, tmp_path)
    path = tmp_path / PARTITION / "train" / SHARD
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert_whole(fetched(source, tmp_path), tmp_path, shards)
    assert f"{path}: is not what the plan has: fetched anew" in capsys.readouterr().out
    assert server.got(PATH) == ["", ""]


def test_what_was_not_noted_is_proved_not_fetched(server, shards, tmp_path):
    """As after a run that was killed between a file's name and its note."""
    source = server.release(shards)
    fetched(source, tmp_path)
    (tmp_path / "index.json").unlink()
    assert_whole(fetched(source, tmp_path), tmp_path, shards)
    assert server.got(PATH) == [""]


def test_another_server_serves_what_one_does_not(server, shards, tmp_path):
    """A mirror that lacks a shard, one that sends wrong bytes, one that is dead."""
    other = FaultServer()
    try:
        other.release(shards)
        server.faults[PATH] = status(404)
        two = f"/{PARTITION}/train/train02.tfrecord"
        server.faults[two] = wrong
        source = server.release(shards)
        assert_whole(fetched(source, tmp_path / "a", mirrors=other.url), tmp_path / "a", shards)
        assert other.got(PATH) == [""]
        assert len(server.got(two)) + len(other.got(two)) in (2, 3)
        dead = FaultServer()
        dead.close()
        source = f"{dead.url}/{PARTITION}"
        assert_whole(fetched(source, tmp_path / "b", mirrors=other.url), tmp_path / "b", shards)
        empty = FaultServer()
        source = f"{empty.url}/{PARTITION}"
        assert_whole(fetched(source, tmp_path / "c", mirrors=other.url), tmp_path / "c", shards)
        empty.close()
    finally:
        other.close()


def test_parts_of_another_plan_are_not_used(server, shards, tmp_path):
    """The server has a new version of a shard, and a plan of it."""
    source = server.release(shards)
    server.faults[PATH] = truncated(5000)
    with pytest.raises(InputError, match="1 of 5 shards are missing"):
        fetched(source, tmp_path, attempts=1)
    assert list((tmp_path / PARTITION / "train").glob(".*.part"))
    new = shards | {("train", SHARD): shards["train", SHARD] * 2}
    server.faults.clear()
    server.requests.clear()
    source = server.release(new)
    fetched(source, tmp_path)
    assert contents(tmp_path) == new
    assert server.got(PATH) == [""]


def test_a_server_that_completes_another_ones_wrong_part_is_not_blamed(server, shards, tmp_path):
    other = FaultServer()
    try:
        other.release(shards)
        zeros = bytes(len(shards["train", SHARD]))
        server.faults[PATH] = lambda handler, _: send(handler, zeros, cut=3000)
        source = server.release(shards)
        manifest = fetched(source, tmp_path, mirrors=other.url, attempts=9)
        assert_whole(manifest, tmp_path, shards)
    finally:
        other.close()


def test_one_byte_more_each_time_is_no_way_forward(server, shards, tmp_path):
    """From the start each time: it would take as many attempts as there are bytes."""
    sent = []

    def creeps(handler, content):
        sent.append(len(sent) + 1)
        send(handler, content, ranges=False, cut=sent[-1])

    server.faults[PATH] = creeps
    missing(server, shards, tmp_path, "4 attempts brought nothing")


def test_a_page_in_place_of_the_vocabulary(server, shards, tmp_path, capsys):
    server.files["/vocabulary.csv"] = b"<html>busy</html>"
    assert_whole(fetched(server.release(shards), tmp_path), tmp_path, shards)
    assert "warning: no vocabulary" in capsys.readouterr().out
    assert not (tmp_path / "vocabulary.csv").exists()


def test_a_plan_that_is_not_there_is_not_asked_for_again(server, tmp_path):
    with pytest.raises(InputError, match=r"frame_train.json: answers 404"):
        fetched(f"{server.url}/2/frame", tmp_path)
    assert len(server.requests) == 1


def test_a_shard_that_the_plan_has_and_is_none(server, shards, tmp_path):
    """Its bytes are the plan's: it counts as missing, and the others are there."""
    source = server.release(shards | {("train", SHARD): b"no shard at all"})
    with pytest.raises(InputError, match=rf"1 of 5 .* train/{SHARD}: .*is no TFRecord file"):
        fetched(source, tmp_path)
    assert len(contents(tmp_path)) == 5


def test_a_server_that_is_not_there(tmp_path):
    dead = FaultServer()
    dead.close()
    with pytest.raises(InputError, match=r"frame_train.json: could not be reached"):
        fetched(f"{dead.url}/2/frame", tmp_path, attempts=2)


def test_no_room_is_said_before_the_first_byte(server, shards, tmp_path, monkeypatch):
    source = server.release(shards)
    usage = dataclasses.make_dataclass("Usage", ["free"])
    monkeypatch.setattr(local_store.shutil, "disk_usage", lambda _: usage(5000))
    with pytest.raises(InputError, match=r"5 files of about 0.00 GB are to come.*nothing was fet"):
        fetched(source, tmp_path)
    assert not server.got(PATH)


def test_a_disk_that_fills_up(server, shards, tmp_path, monkeypatch):
    """What is there stays; no file is there with fewer bytes."""
    source = server.release(shards)

    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    copy = transfer.Transfer._copy
    monkeypatch.setattr(
        transfer.Transfer, "_copy",
        lambda self, *given: (full if self.file.name == SHARD else copy)(self, *given),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"No space left on device; .* of 5 files were fetched"):
        fetched(source, tmp_path, parallel=1)
    first = "train", "train00.tfrecord"
    assert contents(tmp_path) == {first: shards[first]}
    monkeypatch.undo()
    assert_whole(fetched(source, tmp_path), tmp_path, shards)


def test_a_place_that_can_not_be_written_to(server, shards, tmp_path):
    folder = tmp_path / PARTITION / "train" / SHARD
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=rf"{folder}: can not be written: Is a directory"):
        fetched(server.release(shards), tmp_path)


def test_a_bad_line_after_wrong_bytes_gets_there(server, shards, tmp_path):
    """More attempts than are allowed in a row, each of which brings a tenth."""
    size = len(shards["train", SHARD])
    server.faults[PATH] = [wrong, *(truncated(size // 10) for _ in range(8))]
    server.etags[PATH] = ""
    assert_whole(fetched(server.release(shards), tmp_path), tmp_path, shards)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "none", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_real_disk_that_is_full(small_disk, server, shards, monkeypatch):
    monkeypatch.setattr(local_store, "_SPARE", -(1 << 20))
    source = server.release(shards)
    with pytest.raises(InputError, match=r"No space left on device|bytes to come"):
        fetched(source, small_disk)
    assert contents(small_disk).items() <= shards.items()
