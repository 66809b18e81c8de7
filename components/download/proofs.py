"""What was proved of shards, valid while what tells a change of them stays the same."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any

from trainer.errors import InputError
from trainer.progress import say
from trainer.records import Level, VideoRecord

INDEX = "index.json"


@dataclasses.dataclass(frozen=True)
class Proof:
    """What reading a whole shard proved.

    Attributes:
        stamp: what tells a change of it, the size in bytes first.
        md5: hex digest.
        checksum: another one that it was proved by; empty: none.
        records: how many it has.
        level: frame or video.
        mark, extractor: what its first record says is wrong with its features, and the digest of
            what made them.
    """

    stamp: tuple[int, ...]
    md5: str
    checksum: str
    records: int
    level: Level
    mark: str = ""
    extractor: str = ""

    @property
    def bytes(self) -> int:
        return self.stamp[0]


def said_by(first: VideoRecord) -> tuple[Level, str, str]:
    """What a shard's first record says of all of them: level, mark and extractor."""
    return first.level, first.mark, first.extractor


class Proofs:
    """Of shards, by their URI; they are kept in one file.

    One that is absent, damaged or of another form counts as empty: what it said is proved again.

    Args:
        content: of the file.
        save: writes it.
        name: of the file, for messages.
        seconds: between two times that it is written while proofs come.
    """

    def __init__(
        self, content: Any, save: Callable[[Any], None], name: str, seconds: float = 5.0
    ) -> None:
        self._save, self._name, self._seconds = save, name, seconds
        try:
            self._known = {
                uri: Proof(**one | {"stamp": tuple(one["stamp"])}) for uri, one in content.items()
            }
        except (TypeError, AttributeError, KeyError):
            self._known = {}
        self._written = time.monotonic()
        self._lock = threading.Lock()

    def known(self, uri: str, stamp: tuple[int, ...]) -> Proof | None:
        """What is known of a shard that has not changed since."""
        proof = self._known.get(uri)
        return proof if proof and proof.stamp == stamp else None

    def add(self, uri: str, proof: Proof) -> Proof:
        with self._lock:
            self._known[uri] = proof
            due = time.monotonic() - self._written > self._seconds
        if due:
            self.write()
        return proof

    def forget(self, uri: str) -> None:
        with self._lock:
            self._known.pop(uri, None)

    def write(self) -> None:
        """Keep what is known; where that can not be done (a full disk), it is proved again."""
        with self._lock:
            known = {uri: dataclasses.asdict(proof) for uri, proof in self._known.items()}
            try:
                self._save(known)
            except (OSError, InputError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                say("download", f"warning: {self._name}: can not be written: {reason}")
            self._written = time.monotonic()
