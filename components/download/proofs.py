"""What was proved of files, valid while their status stays the same."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import threading
import time
from pathlib import Path

from trainer import records, tfrecord
from trainer.errors import InputError
from trainer.files import read_json, write_json
from trainer.progress import say
from trainer.records import Level

INDEX = "index.json"
_WRITE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Proof:
    """What reading a whole shard proved.

    The time of the last change of its status and the inode are part of it: tools that copy with
    times set the time of modification, but never these.
    """

    bytes: int
    modified_ns: int
    changed_ns: int
    inode: int
    md5: str
    records: int
    level: Level


class Proofs:
    """Of the files that a folder's runs have read; kept there, in `index.json`.

    One that is absent, damaged or of another form counts as empty: what it said is proved again.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / INDEX
        try:
            self._known = {name: Proof(**one) for name, one in read_json(self._file).items()}
        except (InputError, TypeError, AttributeError):
            self._known = {}
        self._written = time.monotonic()
        self._lock = threading.Lock()

    def known(self, path: Path) -> Proof | None:
        """What is known of a file that has not changed since."""
        proof = self._known.get(str(path))
        if proof is None:
            return None
        try:
            stamp = _stamp(path)
        except FileNotFoundError:
            return None
        same = (proof.bytes, proof.modified_ns, proof.changed_ns, proof.inode) == stamp
        return proof if same else None

    def prove(self, path: Path) -> Proof:
        """Read the whole shard, unless it is known.

        Raises:
            InputError: it is damaged; the message names the file and the record.
        """
        known = self.known(path)
        if known:
            return known
        stamp = _stamp(path)
        count, level = 0, records.FRAME
        for record in records.read_records(path):
            if not count:
                level = records.parse(record).level
            count += 1
        return self._add(path, Proof(*stamp, md5_of(path), count, level))

    def trust(self, path: Path, md5: str) -> Proof:
        """Note a shard whose MD5 was proved while it came: only its headers are read.

        Raises:
            InputError: it is no whole TFRecord file.
        """
        descriptor = tfrecord.open_file(str(path))
        try:
            os.fsync(descriptor)  # no note outlives a power failure without its file
            stamp = _stamp(path)
            index = tfrecord.index_file(path)
            if index.damage:
                raise index.damage
            (first,) = tfrecord.read_block(descriptor, index, 0, 1)
        finally:
            os.close(descriptor)
        level = records.parse(first).level
        with self._lock:
            proof = self._add(path, Proof(*stamp, md5, len(index), level))
            if time.monotonic() - self._written > _WRITE_SECONDS:
                self.write()
        return proof

    def forget(self, path: Path) -> None:
        self._known.pop(str(path), None)

    def write(self) -> None:
        """Keep what is known; where that can not be done (a full disk), it is proved again."""
        known = {name: dataclasses.asdict(proof) for name, proof in self._known.items()}
        try:
            write_json(self._file, known)
        except OSError as error:
            say("download", f"warning: {self._file}: can not be written: {error.strerror}")
        self._written = time.monotonic()

    def _add(self, path: Path, proof: Proof) -> Proof:
        self._known[str(path)] = proof
        return proof


def md5_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
