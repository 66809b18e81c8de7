"""Records of shards in windows: so many consecutive ones of a shard, by their numbers.

A window is what is scored together. Which records share one follows from the shard alone, so that
any engine, with any number of workers, scores the same batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from components.statistics.shard_files import is_local, opened
from trainer.errors import InputError
from trainer.files import local_path
from trainer.records import Record
from trainer.tfrecord import index_file
from trainer.tfrecord_scan import Damage, scan_records


@dataclasses.dataclass(frozen=True)
class InputShard:
    """A TFRecord file to predict on.

    Attributes:
        uri: path or `gs://` URI.
        bytes: its size.
    """

    uri: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class Refused:
    """A record without an answer.

    Attributes:
        uri: the shard.
        record, offset: its number and first byte.
        reason: what was found and expected.
        whole_rest: whether no record of the shard after it can be found either.
    """

    uri: str
    record: int
    offset: int
    reason: str
    whole_rest: bool = False

    def error(self) -> InputError:
        """The same as an error."""
        return Record(self.uri, self.record, self.offset, b"").error(self.reason)

    @classmethod
    def of_error(cls, record: Record, error: InputError) -> Refused:
        """Of an error that names the record's place, as all of `trainer.records` do."""
        return cls(record.path, record.index, record.offset, str(error).partition("): ")[2])

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass
class Window:
    """Some records of a shard, in order.

    Attributes:
        records: that are sound.
        refused: what is there in place of the others.
        end: the byte of the shard where they end; about, if the last one is damaged.
    """

    records: list[Record] = dataclasses.field(default_factory=list)
    refused: list[Refused] = dataclasses.field(default_factory=list)
    end: int = 0


@dataclasses.dataclass(frozen=True)
class Piece:
    """Part of a shard that a worker reads.

    Attributes:
        shard: its number.
        first, offset: its first record, which begins a window, and that record's first byte.
        end: the byte where it ends; None: with the shard.
    """

    shard: int
    first: int = 0
    offset: int = 0
    end: int | None = None


def read_windows(uri: str, size: int, piece: Piece | None = None) -> Iterator[Window]:
    """The windows of a shard, or of a piece of it; never raises for what is damaged or absent.

    Args:
        uri: path, or what Beam's file systems open.
        size: records of a window.
        piece: of that shard; None: all of it.
    """
    piece = piece or Piece(0)
    number, window = piece.first // size, Window()
    try:
        with opened(uri) as (file, length):
            file.seek(piece.offset)
            for found in scan_records(file, uri, length, piece.first, piece.offset, piece.end):
                index = found.record if isinstance(found, Damage) else found.index
                if index // size != number:
                    yield window
                    number, window = index // size, Window()
                if isinstance(found, Damage):
                    window.refused.append(
                        Refused(uri, index, found.offset, found.reason, found.whole_rest)
                    )
                    window.end = length if found.whole_rest else found.offset
                else:
                    window.records.append(found)
                    window.end = found.offset + len(found.payload)
    except FileNotFoundError:
        window.refused.append(_unread(uri, piece, "no such file"))
    except OSError as error:
        reason = f"can not be opened: {error.strerror or error}"
        window.refused.append(_unread(uri, piece, reason))
    yield window


def _unread(uri: str, piece: Piece, reason: str) -> Refused:
    return Refused(uri, piece.first, piece.offset, reason, whole_rest=True)


def pieces_of(number: int, shard: InputShard, size: int) -> list[Piece]:
    """A shard in pieces of one window each; in one piece if it is not a file of this machine.

    Args:
        number: of the shard.
        shard: the same.
        size: records of a window.
    """
    if not is_local(shard.uri):
        return [Piece(number)]
    try:
        index = index_file(local_path(shard.uri))
    except (InputError, OSError):  # the reader says what is wrong
        return [Piece(number)]
    firsts = range(0, max(len(index), 1), size)
    ends = [*(int(index.offsets[first]) for first in firsts[1:]), None]
    return [
        Piece(number, first, int(index.offsets[first]), end)
        for first, end in zip(firsts, ends, strict=True)
    ]
