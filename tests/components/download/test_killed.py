"""Killed at any moment and started again: no wrong bytes under a final name, none fetched twice."""

import hashlib
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.components.download.conftest import PARTITION, contents
from trainer.manifest import read_manifest

KILLS = 30


def start(source, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "components.download", source, "--destination", str(folder),
         "--parallel", "3", "--rate_limit", "0.3"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def clear(folder):
    for path in (folder / PARTITION).glob("*/*"):
        path.unlink()


@pytest.mark.slow
def test_killed_again_and_again(server, shards, tmp_path):
    """At random moments of its start and of its transfers, which a limit makes last."""
    rng = random.Random(3)
    large = {
        ("train", f"train{n:02}.tfrecord"): shards["train", "train00.tfrecord"] * (4 + n)
        for n in range(8)
    } | {("validate", "validate00.tfrecord"): shards["validate", "validate00.tfrecord"]}
    source = server.release(large)
    complete = {}
    killed = 0
    while killed < KILLS:
        process = start(source, tmp_path)
        before = len(server.requests)
        # The first ones while it starts, the others while it transfers.
        if killed % 3:
            while len(server.requests) == before and process.poll() is None:
                time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.35))
        process.kill()
        code = process.wait()
        if code != -signal.SIGKILL:  # it was done before
            assert code == 0
            clear(tmp_path)
            complete.clear()
            continue
        killed += 1
        found = contents(tmp_path)
        for key, content in found.items():
            assert content == large[key]
        for key in found:
            path = f"/{PARTITION}/{key[0]}/{key[1]}"
            requests = len(server.got(path))
            assert complete.setdefault(key, requests) == requests, f"{path} was fetched again"
        if len(found) == len(large):  # all there: once more from the start
            clear(tmp_path)
            complete.clear()
    assert start(source, tmp_path).wait() == 0
    assert contents(tmp_path) == large
    assert start(source, tmp_path).wait() == 0
    assert not list((tmp_path / PARTITION).glob("*/.*"))
    (path,) = (tmp_path / "manifests").iterdir()
    manifest = read_manifest(path)
    assert {shard.path.name: shard.md5 for shard in manifest.shards} == {
        name: hashlib.md5(content).hexdigest() for (_, name), content in large.items()
    }
    assert killed == KILLS


def test_a_wish_to_end_is_heard(server, shards, tmp_path):
    """SIGTERM: what is there stays, the exit code says how it ended, and it ends soon."""
    source = server.release(shards)
    process = subprocess.Popen(
        [sys.executable, "-m", "components.download", source, "--destination", str(tmp_path),
         "--rate_limit", "0.001"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while not any("/train/" in path for method, path, _ in server.requests if method == "GET"):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 143, output
    assert "Traceback" not in output


def test_two_runs_at_once_take_turns(server, shards, tmp_path):
    source = server.release(shards)
    processes = [start(source, tmp_path) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert contents(tmp_path) == shards
    for split, name in shards:
        assert server.got(f"/{PARTITION}/{split}/{name}") == [""]
