"""Digest of source files: cached results and checkpoints depend on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def source_digest(paths: Iterable[Path]) -> str:
    """Hex digest of files and of all `.py`, `.html`, `.css`, `.csv` and `.txt` files below folders.

    A file counts with its name and content, not with its times; folders count in sorted order.
    """
    digest = hashlib.sha256()
    for root in paths:
        files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if _is_source(p))
        for file in files:
            name = file.relative_to(root.parent).as_posix()
            digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()[:16]


def trainer_digest() -> str:
    """Digest of this package."""
    return source_digest([Path(__file__).parent])


def _is_source(path: Path) -> bool:
    return path.suffix in {".py", ".html", ".css", ".csv", ".txt"} and path.is_file()
