"""Files that are either whole or absent, whatever kills the process in between."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainer.errors import InputError

BUCKETS = Path("/gcs")
"""Where Vertex AI mounts Cloud Storage."""


_DISKS = ("btrfs", "ext4", "overlay", "tmpfs", "xfs")


def bucket_is_mounted(uri: str) -> bool:
    """Whether the bucket of a `gs://` URI is a folder below `/gcs`.

    Open-source KFP gives each step an empty `/gcs`, on a disk, to copy artifacts through; a claim
    of the cluster may be mounted in it under a bucket's name.
    """
    folder = BUCKETS / uri.removeprefix("gs://").partition("/")[0]
    if not uri.startswith("gs://") or folder == BUCKETS or not folder.is_dir():
        return False
    kinds = _file_systems()
    return str(folder) in kinds or kinds.get(str(BUCKETS)) not in _DISKS


def _file_systems() -> dict[str, str]:
    """The type of what is mounted, by its place; of several at one place the last.

    https://www.kernel.org/doc/html/latest/filesystems/proc.html#proc-pid-mountinfo
    """
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    mounts = [line.split() for line in lines]
    return {fields[4]: fields[fields.index("-") + 1] for fields in mounts}


def local_path(uri: str) -> Path:
    """Where `uri` can be opened on this machine.

    Vertex AI mounts buckets below `/gcs`, so that `gs://bucket/object` is `/gcs/bucket/object`
    there (https://cloud.google.com/vertex-ai/docs/training/cloud-storage-file-system).

    Raises:
        InputError: for a `gs://` URI whose bucket is not mounted, and for other schemes.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri)
    if scheme == "gs":
        if not bucket_is_mounted(uri):
            raise InputError(f"{uri}: that bucket is not mounted below {BUCKETS} on this machine")
        return BUCKETS / rest
    raise InputError(f"{uri}: expected a local path or gs://, found the scheme {scheme}://")


@contextlib.contextmanager
def _named(target: Path) -> Iterator[None]:
    """Give an error of the system that names no file (a full disk) the one that was being made."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(target)
        raise


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write; the file becomes `path` only if the block ends well."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _workspace(target) as partial, _named(target):
        yield partial
        if _on_bucket(target):
            shutil.copyfile(partial, target)  # an object appears when it is whole
        else:
            partial.replace(target)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new directory to fill; it replaces `path` only if the block ends well.

    A bucket has no rename of directories: there, data is copied first and the JSON files of the top
    level, which every reader opens first, last.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _workspace(target) as partial, _named(target):
        partial.mkdir()
        yield partial
        if target.exists():
            shutil.rmtree(target)
        if _on_bucket(target):
            markers = sorted(partial.glob("*.json"))
            shutil.copytree(partial, target, ignore=lambda folder, _: _names(folder, markers))
            for marker in markers:
                shutil.copyfile(marker, target / marker.name)
        else:
            partial.replace(target)


def _names(folder: str, files: list[Path]) -> list[str]:
    return [file.name for file in files if str(file.parent) == folder]


def _on_bucket(path: Path) -> bool:
    return path.absolute().is_relative_to(BUCKETS)


@contextlib.contextmanager
def _workspace(target: Path) -> Iterator[Path]:
    """A path that does not exist: beside the target, or on the local disk for one on a bucket."""
    if _on_bucket(target):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / target.name
        return
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield partial
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a folder against other processes; `waiting` is called if one holds it already.

    Not on a bucket, which has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if _on_bucket(folder):
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_output(folder: Path, overwrite: bool, mark: str, what: str) -> None:
    """Whether a folder may be written, or replaced.

    Args:
        folder: to write.
        overwrite: whether one that exists is replaced.
        mark: name of a file that such a folder has; without it nothing is replaced.
        what: that file makes of a folder.

    Raises:
        InputError: it may not.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder or nothing there")
    if folder.exists() and not overwrite:
        raise InputError(f"{folder}: exists; give another --output, or --overwrite")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / mark).is_file():
        raise InputError(f"{folder}: has no {mark}, so it is no {what}; it is not replaced")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented, strictly valid JSON (no NaN), atomically."""
    write_file(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Indented, strictly valid JSON (no NaN)."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a small file: it is whole and on the disk, or as it was before."""
    with atomic_file(path) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON.

    Raises:
        InputError: the file is absent, or no JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:
        raise InputError(f"{path}: expected JSON ({error})") from None
