"""Shards in a local folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.download.partial_file import PartialFile
from components.download.plan import RemoteFile
from components.download.proofs import INDEX, Proof, Proofs, said_by
from components.download.sink import CRC32C, MD5, Digests, Sink
from trainer import records, tfrecord
from trainer.errors import InputError
from trainer.files import locked, read_json, write_file, write_json
from trainer.progress import say

_SPARE = 64 << 20
"""Bytes of the disk that a download leaves free."""
_BLOCK = 1 << 20


class LocalStore:
    """A `components.download.store.Store` in a folder."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._folder = root.resolve()
        self.root = str(root)
        index = self._folder / INDEX
        known: Any = None
        with contextlib.suppress(InputError):
            known = read_json(index)
        self.proofs = Proofs(known, lambda known: write_json(index, known), str(index))

    def locked(self) -> contextlib.AbstractContextManager[None]:
        def waiting() -> None:
            say("download", f"waits for another run that prepares {self.root}")

        return locked(self._folder, waiting)

    def uri(self, name: str) -> str:
        return str(self._folder / name)

    def read(self, name: str) -> bytes | None:
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        write_file(self._folder / name, content)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def prepare(self, files: Sequence[RemoteFile]) -> None:
        wanted = {self._path(file) for file in files}
        others = count = 0
        for folder in {path.parent for path in wanted}:
            folder.mkdir(parents=True, exist_ok=True)
            for note in folder.glob(".*.part.json"):
                if not note.with_suffix("").is_file():
                    note.unlink()
            for part in folder.glob(".*.part"):
                if folder / part.name[1 : -len(".part")] not in wanted:
                    others += part.stat().st_size
                    count += 1
        if count:
            say(
                "download",
                f"{count:,} partial files ({others / 1e6:,.1f} MB) of shards that are not asked "
                "for now stay: they go on when they are",
            )

    def holds(self, file: RemoteFile) -> bool:
        path = self._path(file)
        known = known_file(path, self.proofs)
        if known:
            right = file.checksum in (f"{MD5}{known.md5}", known.checksum)
            if right or file.checksum.startswith(MD5):
                return right or self._spoiled(path)
        if not path.is_file():
            return False
        # Of a run that ended before it could note it, or changed since.
        digests = Digests(file.checksum)
        with path.open("rb", buffering=0) as opened:
            while block := opened.read(_BLOCK):
                digests.update(block)
            os.fsync(opened.fileno())  # no note outlives a power failure without its file
        if digests.checksum != file.checksum:
            return self._spoiled(path)
        self._trust(path, digests.md5, file.checksum)
        return True

    def _spoiled(self, path: Path) -> bool:
        say("download", f"{path}: is not what the plan has: fetched anew")
        self.proofs.forget(str(path))
        path.unlink()
        return False

    def check_room(self, files: Sequence[RemoteFile], expected: int) -> None:
        parts = [self._path(file) for file in files]
        parts = [path.with_name(f".{path.name}.part") for path in parts]
        there = sum(part.stat().st_size for part in parts if part.is_file())
        free = shutil.disk_usage(self._folder).free
        if max(0, expected - there) + _SPARE > free:
            raise InputError(
                f"{self._folder}: {len(files):,} files of about {expected / 1e9:,.2f} GB are to "
                f"come, {free / 1e9:,.2f} GB are free; nothing was fetched"
            )

    def sink(self, file: RemoteFile, stop: threading.Event) -> PartialFile:  # noqa: ARG002
        return PartialFile(self._path(file), file.checksum)

    def trust(self, file: RemoteFile, sink: Sink) -> None:
        assert isinstance(sink, PartialFile)
        self._trust(self._path(file), sink.md5, file.checksum)

    def proof(self, file: RemoteFile) -> Proof:
        return prove_file(self._path(file), self.proofs)

    def _path(self, file: RemoteFile) -> Path:
        return self._folder / file.place

    def _trust(self, path: Path, md5: str, checksum: str) -> None:
        """Note a shard whose bytes are right: only its headers are read."""
        descriptor = tfrecord.open_file(str(path))
        try:
            stamp = _stamp(path)
            index = tfrecord.index_open(str(path), descriptor)
            if index.damage:
                raise index.damage
            (first,) = tfrecord.read_block(descriptor, index, 0, 1)
        finally:
            os.close(descriptor)
        video = records.parse(first)
        other = checksum if checksum.startswith(CRC32C) else ""
        self.proofs.add(str(path), Proof(stamp, md5, other, len(index), *said_by(video)))


def known_file(path: Path, proofs: Proofs) -> Proof | None:
    """What is known of a file, if it has not changed since."""
    try:
        return proofs.known(str(path), _stamp(path))
    except FileNotFoundError:
        return None


def prove_file(path: Path, proofs: Proofs) -> Proof:
    """Read a whole shard, unless it is known.

    Raises:
        InputError: it is damaged; the message names the file and the record.
    """
    known = known_file(path, proofs)
    if known:
        return known
    stamp = _stamp(path)
    count, said = 0, (records.FRAME, "", "")
    for record in records.read_records(path):
        if not count:
            said = said_by(records.parse(record))
        count += 1
    return proofs.add(str(path), Proof(stamp, md5_of(path), "", count, *said))


def md5_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _stamp(path: Path) -> tuple[int, ...]:
    """Size, times and inode: tools that copy with times set that of the last modification, but
    never that of the last change of its status.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
