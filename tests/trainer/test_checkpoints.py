"""Checkpoints: whole or ignored, of this training or refused, the newest and the best kept."""

import json
import os
import re
import shutil

import numpy as np
import pytest

from trainer import checkpoints, files
from trainer.checkpoints import Checkpoints, first_difference
from trainer.errors import InputError

FACTS = {"model": {"name": "nextvlad", "groups": 8}, "data": {"max_frames": 300}}


def tensors(step):
    rng = np.random.default_rng(step)
    return {
        "model/a/kernel": rng.standard_normal((30, 7)).astype(np.float32),
        "optimizer/000/iterations": np.array(step, np.int64),
        "random/000": rng.integers(0, 99, 2),
    }


def store(folder, **arguments):
    found = Checkpoints(folder, FACTS, **arguments)
    found.claim()
    return found


def save(found, *steps, best=()):
    for step in steps:
        found.save(step, tensors(step), {"epoch": step, "loss": 0.1 + 0.2}, step in best)
    found.wait()


def names(folder, pattern="checkpoint-*"):
    return sorted(path.name for path in folder.glob(pattern))


def same(found, step):
    expected = tensors(step)
    return (
        found.step == step
        and found.tensors.keys() == expected.keys()
        and all(
            np.array_equal(found.tensors[name], value) and found.tensors[name].dtype == value.dtype
            for name, value in expected.items()
        )
    )


def test_what_was_saved_comes_back_to_the_bit(tmp_path):
    save(store(tmp_path), 3, 7)
    found = store(tmp_path).newest()
    assert same(found, 7)
    assert found.position == {"epoch": 7, "loss": 0.1 + 0.2}


def test_there_is_none_at_first(tmp_path):
    assert store(tmp_path / "new").newest() is None
    assert store(tmp_path / "new").best() is None
    assert store(tmp_path / "new").path_of_newest() is None


def test_the_newest_and_the_best_are_kept(tmp_path):
    found = store(tmp_path, keep=2)
    save(found, 1, 2, 3, 4, 5, best=(1, 2))
    assert names(tmp_path, "*.json") == [f"checkpoint-{step:010}.json" for step in (2, 4, 5)] + [
        "owner.json"
    ]
    assert names(tmp_path, "*.npz") == [f"checkpoint-{step:010}.npz" for step in (2, 4, 5)]
    assert same(found.best(), 2)
    assert same(found.newest(), 5)
    save(found, 6, best=(6,))
    assert same(found.best(), 6)
    assert not (tmp_path / "checkpoint-0000000002.npz").exists()


def torn(path):
    path.write_bytes(path.read_bytes()[:-40])


def flipped(path):
    content = bytearray(path.read_bytes())
    content[200] ^= 4
    path.write_bytes(content)


def garbled(path):
    path.with_suffix(".json").write_text("{")


def of_other_size(path):
    marker = path.with_suffix(".json")
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"bytes": 1}))


def without_archive(path):
    path.unlink()


@pytest.mark.parametrize("spoil", [torn, flipped, garbled, of_other_size, without_archive])
def test_one_that_can_not_be_read_is_passed_over_with_a_warning(spoil, tmp_path, capsys):
    save(store(tmp_path), 3, 7)
    spoil(tmp_path / "checkpoint-0000000007.npz")
    assert same(store(tmp_path).newest(), 3)
    assert re.search(
        r"\[train\] warning: .*checkpoint-0000000007.json can not be read, passed over: .+",
        capsys.readouterr().out,
    )


def test_none_that_can_be_read_is_an_error(tmp_path):
    save(store(tmp_path), 3, 7)
    for path in tmp_path.glob("*.npz"):
        torn(path)
    with pytest.raises(InputError, match="none of its 2 checkpoints can be read"):
        store(tmp_path).newest()
    assert len(names(tmp_path)) == 4  # nothing is taken away


def test_one_without_its_marker_does_not_count(tmp_path, capsys):
    save(store(tmp_path), 3)
    shutil.copy(tmp_path / "checkpoint-0000000003.npz", tmp_path / "checkpoint-0000000009.npz")
    (tmp_path / ".checkpoint-0000000009.npz.1a2b3c4d.partial").write_bytes(b"PK")
    assert same(store(tmp_path).newest(sweep=False), 3)
    assert (tmp_path / "checkpoint-0000000009.npz").exists()
    assert same(store(tmp_path).newest(), 3)
    assert "checkpoint-0000000009.npz was not finished" in capsys.readouterr().out
    assert names(tmp_path, ".checkpoint*") == []
    assert not (tmp_path / "checkpoint-0000000009.npz").exists()


def test_one_of_another_training_is_refused(tmp_path):
    save(store(tmp_path), 3)
    other = {"model": FACTS["model"] | {"groups": 4}, "data": FACTS["data"]}
    words = f"{tmp_path}/checkpoint-0000000003.json: is a checkpoint of another training: "
    with pytest.raises(InputError, match=re.escape(words + "model.groups is 8 there, 4 here")):
        Checkpoints(tmp_path, other).newest()


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, "a.c is 2 there, 3 here"),
        ({"a": 1}, {"a": 1, "b": "x"}, "b is None there, 'x' here"),
        ({"a": {"b": 1}}, {"a": 5}, "a is {'b': 1} there, 5 here"),
    ],
)
def test_the_first_difference(there, here, words):
    assert first_difference(there, here) == words


def test_a_disk_that_is_full_leaves_the_older_ones(tmp_path, monkeypatch):
    found = store(tmp_path)
    save(found, 3)

    def full(file, **_):
        file.write(b"PK")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(checkpoints.np, "savez", full)
    found.save(7, tensors(7), {})
    words = f"{tmp_path}: a checkpoint could not be written: No space left on device"
    with pytest.raises(InputError, match=re.escape(words)):
        found.wait()
    monkeypatch.undo()
    assert same(store(tmp_path).newest(), 3)
    assert names(tmp_path) == ["checkpoint-0000000003.json", "checkpoint-0000000003.npz"]
    found.wait()  # told once


def test_who_comes_later_takes_the_folder_over(tmp_path):
    first = store(tmp_path)
    save(first, 3)
    second = store(tmp_path)
    with pytest.raises(InputError, match="another training has taken over this folder; this one"):
        first.save(4, tensors(4), {})
    save(second, 5)
    assert same(second.newest(), 5)
    assert not (tmp_path / "checkpoint-0000000004.npz").exists()


def test_a_bucket_gets_the_archive_first_and_the_marker_last(tmp_path, monkeypatch):
    """A folder stands for the bucket, in which nothing can be renamed."""
    monkeypatch.setattr(files, "BUCKETS", tmp_path)
    monkeypatch.setattr(os, "rename", lambda *_: pytest.fail("renamed"))
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("renamed"))
    written = []
    copy = shutil.copyfile

    def copying(source, target):
        written.append(target.name)
        if target.name == "checkpoint-0000000004.json":
            target.write_text('{"ver')  # the machine is taken away
            raise KeyboardInterrupt
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copying)
    found = store(tmp_path / "bucket")
    save(found, 3)
    assert written == ["owner.json", "checkpoint-0000000003.npz", "checkpoint-0000000003.json"]
    with pytest.raises(KeyboardInterrupt):
        found._write(4, tensors(4), {}, False)
    assert same(store(tmp_path / "bucket").newest(), 3)


def test_a_step_that_is_saved_again_is_not_written_over(tmp_path):
    """As after a validation: a kill in between must leave the one before."""
    found = store(tmp_path, keep=1)
    save(found, 4)
    first = (tmp_path / "checkpoint-0000000004.npz").stat().st_ino
    found.keep = 2
    save(found, 4, best=(4,))
    assert (tmp_path / "checkpoint-0000000004.npz").stat().st_ino == first
    assert found.newest().path.name == "checkpoint-0000000004-02.json"
    assert found.newest().best
    save(found, 5, 6)
    assert names(tmp_path, "*.npz") == [
        f"checkpoint-{name}.npz" for name in ("0000000004-02", "0000000005", "0000000006")
    ]


@pytest.mark.parametrize("keep", [1, 2])
def test_going_on_behind_a_damaged_one_keeps_what_comes(keep, tmp_path):
    save(store(tmp_path, keep=3), 190, 198, 200)
    for step in (198, 200):
        torn(tmp_path / f"checkpoint-{step:010}.npz")
    again = store(tmp_path, keep=keep)
    assert same(again.newest(), 190)
    save(again, 191)
    reader = Checkpoints(tmp_path, FACTS)
    assert same(reader.newest(), 191)
    save(again, 198, 201)
    assert same(reader.newest(), 201)


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path):
    save(store(tmp_path), 3, 7)
    archive = tmp_path / "checkpoint-0000000007.npz"
    sound = archive.read_bytes()
    rng = np.random.default_rng(3)
    places = {*rng.integers(0, len(sound), 150).tolist(), *range(len(sound) - 300, len(sound))}
    for place in places:
        content = bytearray(sound)
        content[place] ^= 1 << int(rng.integers(8))
        archive.write_bytes(content)
        found = store(tmp_path).newest(sweep=False)
        assert same(found, found.step)


def test_an_error_of_the_writer_is_never_lost(tmp_path, monkeypatch):
    found = store(tmp_path)
    monkeypatch.setattr(checkpoints.np, "savez", lambda *_, **__: 1 / 0)
    found.save(7, tensors(7), {})
    found.join()
    with pytest.raises(ZeroDivisionError):
        found.wait()


def test_a_marker_that_was_not_finished_is_no_checkpoint(tmp_path, capsys):
    (tmp_path / "checkpoint-0000000003.json").write_text('{"version": 1, "st')
    assert store(tmp_path).newest() is None
    assert "can not be read, passed over" in capsys.readouterr().out
