"""Published archives, read in memory: nothing is unpacked to a disk."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path

from trainer.errors import InputError

_BLOCK = 2**20


def read_members(file: Path, names: Collection[str], url: str) -> dict[str, bytes]:
    """The bytes of those files of a .tgz that have one of the names, in whatever folder of it.

    Args:
        url: where the archive is published, for the message.

    Raises:
        InputError: it is no .tgz, or damaged.
    """
    found = {}
    try:
        with gzip.open(file) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                name = Path(member.name).name
                content = archive.extractfile(member) if name in names else None
                if content is not None:
                    found[name] = content.read()
            while stream.read(_BLOCK):  # to the end, where the checksum is
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"{file}: expected the archive at {url}, found another or a damaged file ({error})"
        ) from None
    return found
