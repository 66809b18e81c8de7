"""Shards below a prefix of a bucket, put there without a copy on this machine."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from components.download.cloud_storage import CloudStorage, StoredObject
from components.download.object_reader import read_object
from components.download.plan import RemoteFile
from components.download.proofs import INDEX, Proof, Proofs, said_by
from components.download.servers import Servers
from components.download.sink import CRC32C, MD5, Sink
from components.download.upload import Place, Upload
from trainer import records
from trainer.errors import InputError
from trainer.passing_records import PassingRecords
from trainer.progress import say

_UPLOADS = ".uploads"
_INDEX_SECONDS = 30.0
"""Each time the index is written, it is written whole, and by one second at most once."""


class BucketStore:
    """A `components.download.store.Store` in a bucket.

    It can not be locked: two runs at once do each other no harm, since an object appears when it is
    whole and proved, but each of them fetches what is not there yet.

    Args:
        root: `gs://bucket/prefix`.
        storage: Cloud Storage.
        servers: to ask by.
    """

    def __init__(self, root: str, storage: CloudStorage, servers: Servers) -> None:
        self.root = root.rstrip("/")
        self._storage, self._servers = storage, servers
        self._there: dict[str, StoredObject] = {}
        self._uploads: dict[str, StoredObject] = {}
        known: Any = None
        with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
            known = json.loads(self.read(INDEX) or b"{}")
        self.proofs = Proofs(
            known,
            lambda known: self.write(INDEX, json.dumps(known).encode()),
            self.uri(INDEX),
            _INDEX_SECONDS,
        )

    def locked(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def uri(self, name: str) -> str:
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes | None:
        return self._storage.read(self.uri(name))

    def write(self, name: str, content: bytes) -> None:
        self._storage.write(self.uri(name), content)

    def remove(self, name: str) -> None:
        self._storage.delete(self.uri(name))

    def prepare(self, files: Sequence[RemoteFile]) -> None:
        for folder in sorted({file.folder for file in files}):
            self._there |= self._storage.under(f"{self.uri(folder)}/")
        self._uploads = self._storage.under(f"{self.uri(_UPLOADS)}/")

    def holds(self, file: RemoteFile) -> bool:
        stored = self._there.get(self.uri(file.place))
        if stored is None:
            return False
        if file.checksum.startswith(MD5) and not stored.md5:  # composed of others
            right = self._read_has(stored, file.checksum)
        else:
            right = stored.has(file.checksum)
        if not right:
            say("download", f"{stored.uri}: is not what the plan has: fetched anew")
        return right

    def check_room(self, files: Sequence[RemoteFile], expected: int) -> None:
        pass

    def sink(self, file: RemoteFile, stop: threading.Event) -> Upload:
        note = self.uri(f"{_UPLOADS}/{file.place}.json")
        known: Mapping[str, Any] = {}
        if note in self._uploads:
            with contextlib.suppress(ValueError, InputError):
                known = json.loads(self._storage.read(note) or b"{}")
        place = Place(self.uri(file.place), note, known if isinstance(known, dict) else {})
        return Upload(file, place, self._storage, self._servers, stop)

    def trust(self, file: RemoteFile, sink: Sink) -> None:
        assert isinstance(sink, Upload)
        made = sink.made
        assert made is not None
        assert made.uri == self.uri(file.place)
        self._there[made.uri] = made
        if sink.records is None:  # another process saw its first bytes
            self._proof(made)
        else:
            self._note(made, sink.records, sink.md5)

    def proof(self, file: RemoteFile) -> Proof:
        return self._proof(self._there[self.uri(file.place)])

    def _read_has(self, stored: StoredObject, checksum: str) -> bool:
        """Whether an object that Cloud Storage knows no MD5 of has one, which is noted then."""
        if known := self.proofs.known(stored.uri, _stamp(stored)):
            return checksum == f"{MD5}{known.md5}"
        seen = read_object(stored, self._servers)
        if checksum != f"{MD5}{seen.md5}":
            return False
        self._note(stored, seen.records, seen.md5)
        return True

    def _proof(self, stored: StoredObject) -> Proof:
        """Of an object, which is read unless it is known."""
        known = self.proofs.known(stored.uri, _stamp(stored))
        if known:
            return known
        seen = read_object(stored, self._servers)
        return self._note(stored, seen.records, seen.md5)

    def _note(self, stored: StoredObject, passed: PassingRecords, md5: str) -> Proof:
        for damage in passed.damages:
            place = f"record {damage.record} (at byte {damage.offset:,})"
            raise InputError(f"{stored.uri}: {place}: {damage.reason}")
        assert passed.first is not None
        video = records.parse(passed.first)
        other = f"{CRC32C}{stored.crc32c}"
        proof = Proof(_stamp(stored), md5, other, passed.count, *said_by(video))
        return self.proofs.add(stored.uri, proof)


def _stamp(stored: StoredObject) -> tuple[int, ...]:
    return stored.bytes, stored.generation
