"""The files below a `gs://` prefix, on this machine for as long as they are needed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.download.cloud_storage import SCHEME, CloudStorage
from trainer.errors import InputError
from trainer.files import bucket_is_mounted, local_path


def in_bucket(uri: str) -> bool:
    """Whether it has to be fetched: in a bucket that is not mounted."""
    return uri.startswith(SCHEME) and not bucket_is_mounted(uri)


def objects_under(uri: str, what: str) -> dict[str, Any]:
    """Names and descriptions of the objects below a prefix.

    Args:
        uri: `gs://bucket/prefix`.
        what: they are, for the error.

    Raises:
        InputError: there are none.
    """
    found = CloudStorage().under(f"{uri.rstrip('/')}/")
    files = {name: one for name, one in sorted(found.items()) if not name.endswith("/")}
    if not files:
        raise InputError(f"{what} {uri}: nothing is there")
    return files


@contextlib.contextmanager
def local_folder(uri: str, what: str) -> Iterator[Path]:
    """A folder's path on this machine: its own, or that of a copy which goes with the context.

    Args:
        uri: a path or `gs://bucket/prefix`.
        what: it is, for errors.

    Raises:
        InputError: nothing is there, or it went away meanwhile.
    """
    if not in_bucket(uri):
        yield local_path(uri)
        return
    with tempfile.TemporaryDirectory() as scratch:
        storage = CloudStorage()
        prefix = f"{uri.rstrip('/')}/"
        for one in objects_under(uri, what):
            target = Path(scratch) / one.removeprefix(prefix)
            if Path(scratch) not in target.resolve().parents:
                raise InputError(f"{what} {uri}: has an object with the name {one!r}")
            content = storage.read(one)
            if content is None:
                raise InputError(f"{what} {uri}: {one} went away while it was read")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield Path(scratch)
