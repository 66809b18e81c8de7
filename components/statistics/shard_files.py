"""Shards as files to read: of this machine, of a mounted bucket, or of what Beam reaches."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from apache_beam.io.filesystems import FileSystems

from trainer.files import bucket_is_mounted, local_path


def is_local(uri: str) -> bool:
    """Whether it is a file system's, the mounted buckets' too."""
    return "://" not in uri or bucket_is_mounted(uri)


@contextlib.contextmanager
def opened(uri: str) -> Iterator[tuple[BinaryIO, int]]:
    """A shard to read from its start, and its size: by this machine's files, or by Beam's."""
    if is_local(uri):
        path = local_path(uri)
        with open(path, "rb", buffering=0) as file:
            yield file, os.fstat(file.fileno()).st_size  # type: ignore[misc]
        return
    # Not by `match`, which takes brackets and stars in a name for a pattern.
    size = FileSystems.get_filesystem(uri).size(uri) if FileSystems.exists(uri) else None
    if size is None:
        raise FileNotFoundError(uri)
    with FileSystems.open(uri, compression_type="uncompressed") as remote:
        yield remote, size
