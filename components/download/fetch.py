"""Bringing files into a store: those that are not there, and what is missing in the end."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from typing import TextIO

from components.download.downloader import Downloader
from components.download.plan import RemoteFile
from components.download.servers import Rate, Servers
from components.download.store import Store
from trainer.config import DownloadConfig
from trainer.errors import InputError
from trainer.files import json_bytes
from trainer.progress import Progress, say

MISSING = "missing.json"
_MOST_SAID = 100


def fetch(
    source: str,
    files: Sequence[RemoteFile],
    store: Store,
    servers: Servers,
    config: DownloadConfig,
    json_lines: TextIO | None = None,
) -> None:
    """Fetch files; one that is there and right is not fetched.

    Args:
        source: what they are, for messages.
        files: all of which are to be there.
        store: locked by the caller.
        servers: to ask.
        config: how.
        json_lines: where to report as JSON.

    Raises:
        InputError: no room; or files that could not be had: the message counts them, names the
            first and says why. `missing.json` in the store has them all.
    """
    store.prepare(files)
    absent = []
    progress = Progress("download", len(files), "shards looked at")
    with concurrent.futures.ThreadPoolExecutor(config.parallel) as pool:
        for file, is_there in zip(files, pool.map(store.holds, files), strict=True):
            if not is_there:
                absent.append(file)
            if progress.done + 1 < len(files):
                progress.advance(note=file.name)
    there = len(files) - len(absent)
    say("download", f"{source}: {len(files):,} shards, {there:,} are there and right")
    rate = Rate(config.rate_limit * 1e6)
    downloader = Downloader(servers, rate, config.parallel, json_lines)
    try:
        missing = downloader.fetch(absent, store)
    finally:
        store.proofs.write()
    if missing:
        store.write(MISSING, json_bytes(missing))
        for name, reason in list(missing.items())[:_MOST_SAID]:
            say("download", f"missing: {name}: {reason}")
        first, why = next(iter(missing.items()))
        raise InputError(
            f"{source}: {len(missing):,} of {len(files):,} shards are missing (all in "
            f"{store.uri(MISSING)}), the others are there and stay; the first: {first}: {why}"
        )
    store.remove(MISSING)
