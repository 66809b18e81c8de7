"""Whole or absent; one line or a traceback."""

import errno
import json
import sys

import pytest

from trainer import files
from trainer.errors import InputError, reported
from trainer.progress import Progress, duration
from trainer.source_digest import source_digest


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "deep" / "file"
    with files.atomic_file(path) as partial:
        partial.write_text("one")
    with pytest.raises(KeyError), files.atomic_file(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "folder"
    for text in ("one", "two"):
        with files.atomic_directory(path) as partial:
            (partial / text).touch()
    with pytest.raises(KeyError), files.atomic_directory(path) as partial:
        (partial / "half").touch()
        raise KeyError
    assert [child.name for child in path.iterdir()] == ["two"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_by_what_was_being_written(tmp_path):
    for write in (files.atomic_file, files.atomic_directory):
        with pytest.raises(OSError, match="No space") as caught, write(tmp_path / "x"):
            raise OSError(errno.ENOSPC, "No space left on device")
        assert caught.value.filename == str(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_json_is_strict(tmp_path):
    files.write_json(tmp_path / "x.json", {"a": 1.5})
    assert files.read_json(tmp_path / "x.json") == {"a": 1.5}
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1.5}


def test_uris():
    assert str(files.local_path("/a/b")) == "/a/b"
    with pytest.raises(InputError, match="found the scheme s3://"):
        files.local_path("s3://bucket/x")


@pytest.mark.parametrize(
    ("mounts", "mounted"),
    [
        ({}, True),  # a part of what is mounted further up
        ({"": "fuse.gcsfuse"}, True),  # Vertex AI
        ({"": "ext4"}, False),  # KFP's own folder for artifacts
        ({"": "ext4", "/bucket": "fuse.gcsfuse"}, True),  # a claim in it
        ({"": "ext4", "/bucket": "nfs4"}, True),
        ({"": "ext4", "/other": "nfs4"}, False),
    ],
)
def test_bucket_uris_are_read_through_the_mount(mounts, mounted, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BUCKETS", tmp_path)
    found = {f"{tmp_path}{place}": kind for place, kind in mounts.items()}
    monkeypatch.setattr(files, "_file_systems", lambda: found)
    (tmp_path / "bucket").mkdir()
    assert files.bucket_is_mounted("gs://bucket/x") == mounted
    if mounted:
        assert files.local_path("gs://bucket/x") == tmp_path / "bucket" / "x"
    else:
        with pytest.raises(InputError, match="gs://bucket/x: that bucket is not mounted below"):
            files.local_path("gs://bucket/x")
    for uri in ("gs://absent/x", "gs://", "s3://bucket/x", "/bucket"):
        assert not files.bucket_is_mounted(uri)


def test_what_is_mounted_on_this_machine():
    kinds = files._file_systems()
    assert kinds["/proc"] == "proc"
    assert "/" in kinds


def test_on_a_bucket_the_marker_comes_last_and_nothing_is_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BUCKETS", tmp_path)
    monkeypatch.setattr(files.Path, "replace", lambda *_: pytest.fail("renamed on a bucket"))
    copied = []
    copyfile = files.shutil.copyfile

    def noting(source, target, **options):
        copied.append(files.Path(target).name)
        return copyfile(source, target, **options)

    monkeypatch.setattr(files.shutil, "copyfile", noting)
    with files.atomic_directory(tmp_path / "model") as partial:
        assert not partial.is_relative_to(tmp_path)
        (partial / "config.json").write_text("{}")
        (partial / "logs").mkdir()
        (partial / "logs" / "x.json").write_text("1")
        (partial / "model.keras").write_text("2")
    assert copied[-1] == "config.json"
    assert (tmp_path / "model" / "logs" / "x.json").read_text() == "1"
    files.write_json(tmp_path / "y.json", 3)
    assert files.read_json(tmp_path / "y.json") == 3
    with pytest.raises(KeyError), files.atomic_directory(tmp_path / "torn") as partial:
        raise KeyError
    assert not (tmp_path / "torn").exists()
    with files.locked(tmp_path / "folder", lambda: pytest.fail("no locks there")):
        assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("file x:\n  is bad"), "error: file x: is bad\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            "error: /x: No space left on device\n",
        ),
    ],
)
def test_what_a_user_got_wrong_is_one_line(error, line, capsys):
    with pytest.raises(SystemExit) as exit_, reported():
        raise error
    assert exit_.value.code == 1
    assert capsys.readouterr().err == line


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), reported():
        _ = 1 / 0


def test_progress_says_the_last_line_and_keeps_quiet_between(capsys):
    progress = Progress("train", 1000, "videos")
    for _ in range(10):
        progress.advance(100, "loss 1.0")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("[train] 1,000/1,000 videos  loss 1.0  ")
    assert line.endswith("done")


def test_progress_estimates_what_is_left(capsys, monkeypatch):
    now = iter([0.0, 10.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    Progress("train", 100, "videos", interval=5.0, done=20).advance(20)
    assert capsys.readouterr().out == "[train] 40/100 videos  2 videos/s  ETA 0:30\n"


@pytest.mark.parametrize(
    ("variable", "terminal", "seconds"),
    [(None, True, 5), (None, False, 60), ("7.5", True, 7.5), ("7.5", False, 7.5), ("x", True, 5)],
)
def test_a_log_gets_a_line_a_minute(variable, terminal, seconds, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.delenv("PROGRESS_SECONDS", raising=False)
    if variable:
        monkeypatch.setenv("PROGRESS_SECONDS", variable)
    assert Progress("train", 1, "videos").interval == seconds


def test_durations():
    assert [duration(s) for s in (0.4, 7, 750, 11100)] == ["0:00", "0:07", "12:30", "3:05:00"]


def test_a_digest_sees_content_and_names_but_no_times(tmp_path):
    (tmp_path / "p").mkdir()
    file = tmp_path / "p" / "a.py"
    file.write_text("x = 1")
    digests = [source_digest([tmp_path / "p"])]
    file.touch()
    (tmp_path / "p" / "a.pyc").write_text("not a source")
    assert source_digest([tmp_path / "p"]) == digests[0]
    file.write_text("x = 2")
    digests.append(source_digest([tmp_path / "p"]))
    file.rename(tmp_path / "p" / "b.py")
    digests.append(source_digest([tmp_path / "p"]))
    assert len(set(digests)) == 3
