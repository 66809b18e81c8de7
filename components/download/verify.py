"""Every byte of a manifest's shards again: digests, and the checksums of all records."""

from __future__ import annotations

import concurrent.futures
import json
import os
from collections.abc import Iterable

from components.download.cloud_storage import SCHEME, CloudStorage
from components.download.local_store import md5_of
from components.download.object_reader import read_object
from components.download.servers import Limits, Servers
from trainer import tfrecord_scan
from trainer.errors import InputError
from trainer.manifest import MANIFEST, Manifest, Shard, parse_manifest, read_manifest
from trainer.progress import Progress, say
from trainer.tfrecord_scan import Damage

_MOST_SAID = 100


def verify_manifest(uri: str) -> int:
    """Read all shards of a manifest; returns how many there are.

    Args:
        uri: of the manifest, or of its folder: a path, or `gs://`.

    Raises:
        InputError: something is not as the manifest has it; each shard and record was said before.
    """
    reader = _Reader()
    shards = reader.manifest(uri).shards
    progress = Progress("verify", len(shards), "shards")
    wrong: list[str] = []
    bad_shards = 0
    with concurrent.futures.ThreadPoolExecutor(reader.parallel) as pool:
        for shard, found in zip(shards, pool.map(reader.wrong_with, shards), strict=True):
            bad_shards += bool(found)
            for one in found:
                if len(wrong) < _MOST_SAID:
                    say("verify", one)
                wrong.append(one)
            progress.advance(note=shard.uri.rpartition("/")[2])
    if wrong:
        raise InputError(
            f"{uri}: {bad_shards:,} of {len(shards):,} shards are not as the manifest has them; "
            f"the first: {wrong[0]}"
        )
    return len(shards)


class _Reader:
    def __init__(self) -> None:
        self.parallel = os.cpu_count() or 1
        self._storage = CloudStorage()
        self._servers = Servers(self.parallel, Limits(), self._storage)

    def manifest(self, uri: str) -> Manifest:
        if not uri.startswith(SCHEME):
            return read_manifest(uri)
        for file in (uri, f"{uri.rstrip('/')}/{MANIFEST}"):
            content = self._storage.read(file)
            if content is not None:
                try:
                    return parse_manifest(json.loads(content), file)
                except ValueError as error:
                    if isinstance(error, InputError):
                        raise
                    raise InputError(f"{file}: expected JSON ({error})") from None
        raise InputError(f"{uri}: no such object, and no {MANIFEST} below it")

    def wrong_with(self, shard: Shard) -> list[str]:
        """What is not as a manifest has it."""
        if shard.uri.startswith(SCHEME):
            return self._wrong_in_bucket(shard)
        path = shard.path
        if not path.is_file():
            return [f"{path}: no such file"]
        count, damages = 0, []
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            for one in tfrecord_scan.scan_chunks(file, str(path), size):
                if isinstance(one, Damage):
                    damages.append(one)
                else:
                    count += len(one)
        return _compared(shard, str(path), count, damages, md5_of(path) if shard.md5 else "")

    def _wrong_in_bucket(self, shard: Shard) -> list[str]:
        stored = self._storage.stat(shard.uri)
        if stored is None:
            return [f"{shard.uri}: no such object"]
        try:
            seen = read_object(stored, self._servers)
        except InputError as error:
            return [str(error)]
        return _compared(shard, shard.uri, seen.records.count, seen.records.damages, seen.md5)


def _compared(
    shard: Shard, name: str, count: int, damages: Iterable[Damage], md5: str
) -> list[str]:
    found = [f"{name}: record {d.record} (at byte {d.offset:,}): {d.reason}" for d in damages]
    if not found and count != shard.records:
        found.append(f"{name}: has {count:,} records, the manifest has {shard.records:,}")
    if shard.md5 and md5 != shard.md5:
        found.append(f"{name}: its MD5 is not {shard.md5}")
    return found
