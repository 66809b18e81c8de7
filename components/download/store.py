"""Where shards go, are found again and are noted: a local folder, or a prefix of a bucket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Protocol

from components.download.plan import RemoteFile
from components.download.proofs import Proof, Proofs
from components.download.sink import Sink


class Store(Protocol):
    """A place for many files; a name in it is a path with `/` below its root.

    Attributes:
        root: the folder or the `gs://` prefix, for messages.
        proofs: of what lies here, and of what was proved elsewhere.
    """

    root: str
    proofs: Proofs

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other runs away while the block runs, where that can be done."""

    def uri(self, name: str) -> str:
        """Of a file; absolute."""

    def read(self, name: str) -> bytes | None:
        """A small file; None: it is not there."""

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a small file; it is whole or not there."""

    def remove(self, name: str) -> None:
        """Remove a small file, if it is there."""

    def prepare(self, files: Sequence[RemoteFile]) -> None:
        """Make ready for these; what a run that was killed left in the way goes."""

    def holds(self, file: RemoteFile) -> bool:
        """Whether a file is there and right; one that is not right has to come anew.

        May be called by several threads.
        """

    def check_room(self, files: Sequence[RemoteFile], expected: int) -> None:
        """Raise `InputError` unless so many bytes of these files fit."""

    def sink(self, file: RemoteFile, stop: threading.Event) -> Sink:
        """What takes the bytes of a file."""

    def trust(self, file: RemoteFile, sink: Sink) -> None:
        """Note a file that the sink has proved.

        Raises:
            InputError: its bytes are right, and yet it is no whole TFRecord file of videos.
        """

    def proof(self, file: RemoteFile) -> Proof:
        """Of a file that is there.

        Raises:
            InputError: it is damaged; the message names the file and the record.
        """
