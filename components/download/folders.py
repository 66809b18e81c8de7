"""Shards that lie somewhere already: in a local folder, or below a prefix of a bucket."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from components.download.cloud_storage import CloudStorage, StoredObject
from components.download.extras import EXTRACTOR, ORACLE, SEGMENT_LABELS, VOCABULARY, Extra
from components.download.local_store import prove_file
from components.download.plan import RemoteFile, is_plain_name
from components.download.proofs import Proof, Proofs
from components.download.releases import asked_for, asked_splits
from components.download.servers import FILE
from components.download.sink import MD5
from components.download.store import Store
from trainer.config import DownloadConfig
from trainer.errors import InputError
from trainer.manifest import SPLITS
from trainer.progress import Progress

SUFFIX = ".tfrecord"
EXTRAS = (VOCABULARY, SEGMENT_LABELS, ORACLE, EXTRACTOR)


def shards_in(folder: Path, needed: Sequence[str] = ("train", "validate")) -> dict[str, list[Path]]:
    """Shards by split, sorted by name.

    Raises:
        InputError: no such folder, or a split that is needed has no shards.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}; expected `sample` or a folder of shards")
    found = {}
    for split in SPLITS:
        if (folder / split).is_dir():
            paths = sorted((folder / split).glob(f"*{SUFFIX}"))
        else:
            paths = sorted(folder.glob(f"{split}*{SUFFIX}"))
        if not paths and split in needed:
            raise _no_shards(folder, split)
        if paths:
            found[split] = paths
    return found


def proved(files: dict[str, list[Path]], proofs: Proofs) -> dict[Path, Proof]:
    """Every shard, read whole unless it is known.

    Raises:
        InputError: one is damaged; the message names the file and the record.
    """
    paths = [path for of_split in files.values() for path in of_split]
    progress = Progress("download", len(paths), "shards")
    found = {}
    try:
        for path in paths:
            found[path] = prove_file(path, proofs)
            progress.advance(note=path.name)
    finally:
        proofs.write()  # what was proved stays proved, whatever ends this loop
    return found


def extras_beside(folder: Path) -> dict[str, Extra]:
    """Small files in a folder, or in the one above (the data set's root), by name."""
    found = {}
    for name in EXTRAS:
        for path in (folder / name, folder.parent / name):
            if path.is_file():
                found[name] = Extra(str(path), path.read_bytes())
                break
    return found


def copies_of_folder(
    folder: Path, place: str, proofs: Proofs, config: DownloadConfig
) -> list[RemoteFile]:
    """The shards of a folder that are to be copied: each is read and proved first.

    Raises:
        InputError: no such folder, no shards, a damaged one.
    """
    splits = asked_splits(config)
    there = shards_in(folder, splits)
    files = asked_for({split: there[split] for split in splits}, config)
    known = proved(files, proofs)
    return [
        RemoteFile(
            split, f"{place}/{split}", path.name, f"{MD5}{known[path].md5}",
            (f"{FILE}{path}",), known[path].bytes,
        )
        for split, paths in files.items() for path in paths
    ]  # fmt: skip


def copies_of_prefix(
    root: str, place: str, storage: CloudStorage, config: DownloadConfig
) -> list[RemoteFile]:
    """The shards below a prefix of a bucket that are to be copied.

    Raises:
        InputError: the bucket can not be read, there are no shards, or one with a name that can be
            none of a file.
    """
    there = storage.under(f"{root}/")
    by_split: dict[str, list[RemoteFile]] = {}
    for split in asked_splits(config):
        below = f"{root}/{split}/"
        found = [uri for uri in there if uri.startswith(below)]
        if not found:  # all in one folder, by their names
            below = f"{root}/"
            found = [uri for uri in there if uri.startswith(f"{root}/{split}")]
        names = {uri.removeprefix(below): there[uri] for uri in sorted(found)}
        by_split[split] = [
            _remote(split, f"{place}/{split}", name, stored)
            for name, stored in names.items()
            if name.endswith(SUFFIX) and "/" not in name
        ]
        if not by_split[split]:
            raise _no_shards(root, split)
    return [file for files in asked_for(by_split, config).values() for file in files]


def extras_of_prefix(root: str, storage: CloudStorage) -> dict[str, Extra]:
    """Small files below a prefix of a bucket, or in the one above, by name."""
    above, _, last = root.rpartition("/")
    found = {}
    for name in EXTRAS:
        for folder in (root, above) if last and above != "gs:/" else (root,):
            content = storage.read(f"{folder}/{name}")
            if content is not None:
                found[name] = Extra(f"{folder}/{name}", content)
                break
    return found


def kept(extras: dict[str, Extra], place: str, store: Store) -> dict[str, Extra]:
    """Small files, copied to where the shards of a source are copied to."""
    found = {}
    for name, extra in extras.items():
        file = f"{place}/{name}"
        if store.read(file) != extra.content:
            store.write(file, extra.content)
        found[name] = Extra(store.uri(file), extra.content)
    return found


def _remote(split: str, folder: str, name: str, stored: StoredObject) -> RemoteFile:
    if not is_plain_name(name):
        raise InputError(f"{stored.uri}: expected a plain name, such as train00{SUFFIX}")
    return RemoteFile(split, folder, name, stored.checksum, (stored.uri,), stored.bytes)


def place_of(source: str) -> str:
    """The folder that copies go to: two sources never share one."""
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in source.rpartition("/")[2])
    return f"copies/{name}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def _no_shards(folder: Path | str, split: str) -> InputError:
    return InputError(
        f"{folder}: no shards of {split}, expected {split}/*{SUFFIX} or {split}*{SUFFIX}"
    )
