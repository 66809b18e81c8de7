"""Checkpoints that are whole or ignored: on a folder, and on a bucket that is mounted as one.

A checkpoint is two files: `checkpoint-<step>.npz`, the tensors (a zip archive, which has a CRC-32
of each), and then `checkpoint-<step>.json`, the marker, with the archive's size, what the
checkpoint is of and where the training stood. Without its marker an archive does not count. NumPy
reads it. The archive is written in the background, from a copy of the tensors in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError
from trainer.files import atomic_file, read_json, write_json
from trainer.progress import say

VERSION = 1
OWNER = "owner.json"
_PATTERN = "checkpoint-*.json"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes:
        path: of its marker.
        step: updates of the weights before it.
        best: whether it had the best GAP on the held-out shards when it was written.
        position: where the training stood, as it was given to `save`.
        tensors: by name.
    """

    path: Path
    step: int
    best: bool
    position: dict[str, Any]
    tensors: dict[str, NDArray[Any]]


class Checkpoints:
    """The checkpoints of one training in a folder.

    Args:
        folder: of this training alone; made if absent.
        facts: what a checkpoint depends on, as nested dictionaries of JSON; a checkpoint of other
            facts is refused.
        keep: newest checkpoints that are kept, beside the best one.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        self.facts: dict[str, Any] = json.loads(json.dumps(facts))
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._token = uuid.uuid4().hex

    def claim(self) -> None:
        """Take the folder over from whoever wrote here before.

        Where a lock can not be had, as on a bucket, this is what keeps two trainings from writing
        over each other: the later one goes on, the earlier one stops at its next checkpoint.
        """
        with _reported(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / OWNER, {"token": self._token})

    def path_of_newest(self) -> Path | None:
        """The marker of the newest checkpoint, without reading it."""
        return max(self._markers(), key=_order, default=None)

    def _markers(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob(_PATTERN), key=_order)

    def newest(self, sweep: bool = True) -> Checkpoint | None:
        """The newest whole checkpoint, None if there was never one.

        Args:
            sweep: remove what a killed writer left; only one worker may.

        Raises:
            InputError: one of other facts (the first difference is named), or there are some and
                none can be read.
        """
        if sweep:
            self._sweep()
        whole = 0
        for path in reversed(self._markers()):
            # A marker that is no JSON was not finished: it vouches for nothing.
            whole += bool(_marker(path))
            checkpoint = self._read(path)
            if checkpoint:
                return checkpoint
        if whole:
            raise InputError(
                f"{self.folder}: none of its {whole} checkpoints can be read, expected one; "
                "remove the folder to start over"
            )
        return None

    def best(self) -> Checkpoint | None:
        """The checkpoint with the best GAP, if one was marked as such and can be read."""
        self.wait()
        for path in reversed(self._markers()):
            if _marker(path).get("best") and (found := self._read(path)):
                return found
        return None

    def save(
        self,
        step: int,
        tensors: Mapping[str, NDArray[Any]],
        position: Mapping[str, Any],
        best: bool = False,
    ) -> None:
        """Write a checkpoint in the background; the ones before stay until it is whole.

        Args:
            step: updates of the weights so far.
            tensors: by name; must not change any more.
            position: of JSON.
            best: keep it until another one is the best.

        Raises:
            InputError: this checkpoint or the one before could not be written, or another training
                has taken over the folder; no earlier checkpoint is touched then.
        """
        self.wait()
        owner = self.folder / OWNER
        with _reported(self.folder):
            if owner.is_file() and read_json(owner)["token"] != self._token:
                raise InputError(
                    f"{self.folder}: another training has taken over this folder; this one stops "
                    f"at step {step:,} and has written nothing over it"
                )
        arguments = (step, dict(tensors), json.loads(json.dumps(position)), best)
        self._writer = threading.Thread(target=self._write_guarded, args=arguments, daemon=True)
        self._writer.start()

    def join(self) -> None:
        """Let what is being written be finished; an error of it is left to `wait`."""
        if self._writer:
            self._writer.join()
            self._writer = None

    def wait(self) -> None:
        """Wait until what was saved is on disk.

        Raises:
            InputError: it could not be written.
        """
        self.join()
        if self._failure:
            failure, self._failure = self._failure, None
            raise failure

    def _write_guarded(self, *arguments: Any) -> None:
        try:
            with _reported(self.folder):
                self._write(*arguments)
        except BaseException as failure:  # a thread has nobody above it to raise to
            self._failure = failure

    def _write(
        self, step: int, tensors: dict[str, NDArray[Any]], position: dict[str, Any], best: bool
    ) -> None:
        stem = f"checkpoint-{step:010}"
        # A step that is saved again gets another name: nothing is written over.
        again = len({path.stem for path in self.folder.glob(f"{stem}*")})
        marker = self.folder / (f"{stem}-{again + 1:02}.json" if again else f"{stem}.json")
        archive = marker.with_suffix(".npz")
        with atomic_file(archive) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **tensors)
            file.flush()
            # A machine that is taken away must not leave a marker on disk and no archive.
            os.fsync(file.fileno())
        content = {
            "version": VERSION,
            "step": step,
            "best": best,
            "bytes": archive.stat().st_size,
            "tensors": sorted(tensors),
            "position": position,
            "facts": self.facts,
        }
        write_json(marker, content)
        self._forget(marker)

    def _forget(self, newest: Path) -> None:
        """Remove what is older than the newest ones, but for the best.

        Those beyond the newest were passed over when the training went on: they do not count.
        """
        markers = [path for path in self._markers() if _order(path) <= _order(newest)]
        best = [path for path in markers if _marker(path).get("best")]
        kept = {*markers[-self.keep :], *best[-1:]}
        for path in markers:
            if path not in kept:
                path.unlink()
                path.with_suffix(".npz").unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a killed writer left."""
        for archive in sorted(self.folder.glob("checkpoint-*.npz")):
            if not archive.with_suffix(".json").is_file():
                say("train", f"warning: {archive} was not finished, passed over and removed")
                archive.unlink()
        for partial in self.folder.glob(".checkpoint-*.partial"):
            partial.unlink()

    def _read(self, path: Path) -> Checkpoint | None:
        """The checkpoint of a marker; None, with a warning, if it can not be read."""
        marker, archive = _marker(path), path.with_suffix(".npz")
        try:
            if marker.get("version") != VERSION:
                raise ValueError(f"expected a marker of version {VERSION}")
            size = archive.stat().st_size
            if size != marker["bytes"]:
                raise ValueError(f"{archive.name} has {size:,} bytes, expected {marker['bytes']:,}")
            # NumPy leaves a file open that it opened and can not read.
            with archive.open("rb") as file, np.load(file, allow_pickle=False) as content:
                tensors = {name: content[name] for name in content.files}
            if sorted(tensors) != marker["tensors"]:
                raise ValueError(f"{archive.name} has not the tensors that were written")
            found = Checkpoint(path, marker["step"], marker["best"], marker["position"], tensors)
        except _UNREADABLE as error:
            say("train", f"warning: {path} can not be read, passed over: {error}")
            return None
        if difference := first_difference(marker["facts"], self.facts):
            raise InputError(f"{path}: is a checkpoint of another training: {difference}")
        return found


def first_difference(there: Any, here: Any, name: str = "") -> str:
    """Words for the first difference of two nested dictionaries; empty if they are equal."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*there, *(key for key in here if key not in there)]:
            inner = f"{name}.{key}" if name else str(key)
            found = first_difference(there.get(key), here.get(key), inner)
            if found:
                return found
        return ""
    return "" if there == here else f"{name} is {there!r} there, {here!r} here"


def _order(path: Path) -> str:
    return path.stem


_UNREADABLE = (
    OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error,
    # What a zip archive says whose flags or versions are damaged.
    RuntimeError, MemoryError,
)  # fmt: skip


def _marker(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Turn an error of the system into one line about the checkpoint."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: a checkpoint could not be written: {error.strerror or error}"
        ) from error
