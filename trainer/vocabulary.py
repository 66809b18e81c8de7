"""Class names and verticals, from YouTube-8M's `vocabulary.csv`.

Columns and quirks (rows out of order, empty names, fields with commas and line breaks, up to three
verticals a class): https://research.google.com/youtube8m/download.html.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import os
from pathlib import Path

from trainer.errors import InputError

COLUMNS = (
    "Index", "TrainVideoCount", "KnowledgeGraphId", "Name", "WikiUrl",
    "Vertical1", "Vertical2", "Vertical3", "WikiDescription",
)  # fmt: skip
UNKNOWN_VERTICAL = "(Unknown)"


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Names [C] and verticals [C], by class index."""

    names: tuple[str, ...]
    verticals: tuple[tuple[str, ...], ...]

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """Of the names in their order: models of equal digests mean the same by class i."""
        return hashlib.sha256("\0".join(self.names).encode()).hexdigest()[:16]

    def vertical_indices(self) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
        """Names [V] of the verticals in use, sorted, and for each class the indices of its own."""
        verticals = tuple(sorted({name for row in self.verticals for name in row}))
        place = {name: index for index, name in enumerate(verticals)}
        # A class may name a vertical twice in the public file.
        rows = tuple(tuple(sorted({place[name] for name in row})) for row in self.verticals)
        return verticals, rows

    @classmethod
    def of_indices(cls, num_classes: int) -> Vocabulary:
        """What stands in for an absent vocabulary: each class is named by its index."""
        return cls(
            tuple(f"class {index}" for index in range(num_classes)),
            ((UNKNOWN_VERTICAL,),) * num_classes,
        )


def read_vocabulary(path: str | os.PathLike[str]) -> Vocabulary:
    """Read a `vocabulary.csv`; rows may stand in any order.

    Raises:
        InputError: no such file, a column is missing, an index is no number, out of range or
            there twice.
    """
    name = os.fspath(path)
    try:
        content = Path(path).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{name}: no such file") from None
    return parse_vocabulary(content, name)


def parse_vocabulary(content: bytes, name: str) -> Vocabulary:
    """A vocabulary of its file's content; `name`: the file's, for messages.

    Raises:
        InputError: as `read_vocabulary`.
    """
    try:
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
        missing = [c for c in ("Index", "Name", "Vertical1") if c not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"{name}: has no column {missing[0]}, expected {', '.join(COLUMNS)}")
        rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{name}: expected a CSV file in UTF-8 ({error})") from None
    names: list[str | None] = [None] * len(rows)
    verticals: list[tuple[str, ...]] = [()] * len(rows)
    for row in rows:
        text = row["Index"] or ""
        if not text.isdecimal() or int(text) >= len(rows):
            raise InputError(
                f"{name}: index {text!r} is out of range, expected 0 to {len(rows) - 1}"
            )
        index = int(text)
        if names[index] is not None:
            raise InputError(f"{name}: index {index} stands there twice")
        names[index] = row["Name"] or f"class {index}"
        found = (row.get(f"Vertical{number}") or "" for number in (1, 2, 3))
        verticals[index] = tuple(filter(None, found)) or (UNKNOWN_VERTICAL,)
    return Vocabulary(tuple(n for n in names if n is not None), tuple(verticals))
