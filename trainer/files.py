"""Files that are either whole or absent, whatever kills the process in between."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainer.errors import InputError


def local_path(uri: str) -> Path:
    """Where `uri` can be opened on this machine.

    Vertex AI and KFP mount buckets below `/gcs` (https://cloud.google.com/vertex-ai/docs/training/
    cloud-storage-file-system), so that `gs://bucket/object` is `/gcs/bucket/object` there.

    Raises:
        InputError: for a `gs://` URI where `/gcs` is not mounted, and for other schemes.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri)
    if scheme == "gs":
        if not Path("/gcs").is_dir():
            raise InputError(f"{uri}: no /gcs is mounted on this machine to read buckets through")
        return Path("/gcs") / rest
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
    """Yield a sibling path to write; it becomes `path` only if the block ends well."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with _named(target):
            yield partial
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new sibling directory; it replaces `path` only if the block ends well."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        with _named(target):
            yield partial
            if target.exists():
                shutil.rmtree(target)
            partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a folder against other processes; `waiting` is called if one holds it already."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented, strictly valid JSON (no NaN), atomically."""
    text = json.dumps(content, indent=2, sort_keys=False, allow_nan=False) + "\n"
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


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
