"""Every byte of a manifest's shards again: digests, and the checksums of all records."""

from __future__ import annotations

import concurrent.futures
import os
from pathlib import Path

from components.download.proofs import md5_of
from trainer import tfrecord_scan
from trainer.errors import InputError
from trainer.manifest import Shard, read_manifest
from trainer.progress import Progress, say

_MOST_SAID = 100


def verify_manifest(path: str | os.PathLike[str]) -> int:
    """Read all shards of a manifest; returns how many there are.

    Raises:
        InputError: something is not as the manifest has it; each shard and record was said before.
    """
    manifest = read_manifest(path)
    shards = manifest.shards
    progress = Progress("verify", len(shards), "shards")
    wrong: list[str] = []
    bad_shards = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for shard, found in zip(shards, pool.map(_wrong_with, shards), strict=True):
            bad_shards += bool(found)
            for one in found:
                if len(wrong) < _MOST_SAID:
                    say("verify", one)
                wrong.append(one)
            progress.advance(note=Path(shard.uri).name)
    if wrong:
        raise InputError(
            f"{path}: {bad_shards:,} of {len(shards):,} shards are not as the manifest has them; "
            f"the first: {wrong[0]}"
        )
    return len(shards)


def _wrong_with(shard: Shard) -> list[str]:
    path = shard.path
    if not path.is_file():
        return [f"{path}: no such file"]
    found, count = [], 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for one in tfrecord_scan.scan_chunks(file, str(path), size):
            if isinstance(one, tfrecord_scan.Damage):
                place = f"record {one.record} (at byte {one.offset:,})"
                found.append(f"{path}: {place}: {one.reason}")
            else:
                count += len(one)
    if not found and count != shard.records:
        found.append(f"{path}: has {count:,} records, the manifest has {shard.records:,}")
    if shard.md5 and md5_of(path) != shard.md5:
        found.append(f"{path}: its MD5 is not {shard.md5}")
    return found
