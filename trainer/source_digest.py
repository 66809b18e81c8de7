"""Digest of source files: cached results and checkpoints depend on it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
REVISION = "REVISION"
"""File of an image beside the code: the commit that it was built from."""


def source_digest(paths: Iterable[Path]) -> str:
    """Hex digest of files and of all `.py`, `.html`, `.css`, `.csv` and `.txt` files below folders.

    A file counts with its name and content, not with its times; folders count in sorted order.
    """
    digest = hashlib.sha256()
    for root in paths:
        for file in source_files(root):
            name = file.relative_to(root.parent).as_posix()
            digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return digest.hexdigest()[:16]


def source_files(root: Path) -> list[Path]:
    """A file, or the files below a folder that count, sorted."""
    return [root] if root.is_file() else sorted(p for p in root.rglob("*") if _is_source(p))


def trainer_digest() -> str:
    """Digest of this package."""
    return source_digest([Path(__file__).parent])


def code_version(root: Path = _ROOT) -> str:
    """The commit of this code where it is known, and its digest in any case.

    A container has no checkout: its image wrote the commit into the file `REVISION`. Where neither
    tells, the digest stands alone.

    Args:
        root: folder of the code.
    """
    commit = commit_of(root)
    revision = root / REVISION
    if not commit and revision.is_file():
        commit = revision.read_text(encoding="utf-8").strip()
    digest = f"code digest {trainer_digest()} (trainer/)"
    return f"commit {commit}, {digest}" if commit else digest


def commit_of(root: Path = _ROOT) -> str:
    """The commit of a Git checkout, and whether it has changes; empty where Git does not tell.

    A foreign checkout is not Git's to read, and one further up is another project's.
    """
    if not (root / ".git").exists() or not shutil.which("git"):
        return ""
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return ""
    changed = _git(root, "status", "--porcelain", "--", "trainer", "components", "pipeline")
    return f"{commit}{' with changes' if changed else ''}"


def _git(root: Path, *arguments: str) -> str:
    """What Git prints; empty if it does not do it."""
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
    )
    return "" if done.returncode else done.stdout.strip()


def _is_source(path: Path) -> bool:
    return path.suffix in {".py", ".html", ".css", ".csv", ".txt"} and path.is_file()
