"""Shards of the official servers, or of any that serve plans and shards as they do."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import tenacity

from components.download.downloader import Downloader
from components.download.plan import (
    MOST_PLAN_BYTES,
    Release,
    RemoteFile,
    check_names,
    chosen,
    parse_plan,
    parse_source,
)
from components.download.proofs import Proofs, md5_of
from components.download.servers import ANSWER_ERRORS, RETRIED, Limits, Rate, Servers, in_words
from trainer.config import DownloadConfig
from trainer.errors import InputError
from trainer.files import atomic_file
from trainer.manifest import SPLITS
from trainer.progress import say
from trainer.vocabulary import read_vocabulary

_MOST_SAID = 100
_VOCABULARY_URLS = (
    "https://research.google.com/youtube8m/csv/2/vocabulary.csv",
    "http://research.google.com/youtube8m/csv/2/vocabulary.csv",
)


class _RefusedError(InputError):
    """An answer that another attempt does not change."""


def fetch_release(
    source: str,
    root: Path,
    config: DownloadConfig,
    proofs: Proofs,
    json_lines: TextIO | None = None,
) -> dict[str, list[Path]]:
    """Fetch the shards that a source and the configuration mean.

    A shard lies at `root/RELEASE/LEVEL/SPLIT/NAME`; one that is there and right is not fetched.

    Args:
        source: see `components.download.plan.parse_source`.
        root: folder, locked by the caller.
        config: what to fetch, and how.
        proofs: of the folder; what is fetched is added.
        json_lines: where to report as JSON.

    Returns:
        The shards by split, by name: all of them are there and have the MD5 of the plan.

    Raises:
        InputError: a source or a plan that can not be, no room; or files that could not be had:
            the message counts them, names the first and says why.
    """
    release = parse_source(source, config.mirror, _listed(config.mirrors))
    limits = Limits(config.attempts, config.connect_seconds, config.stall_seconds)
    servers = Servers(config.parallel, limits)
    files = _planned(release, config, servers, limits)
    folders = {split: root / release.partition(split) for split in SPLITS}

    def path_of(file: RemoteFile) -> Path:
        return folders[file.split] / file.name

    for folder in folders.values():
        _tidy(folder)
    with concurrent.futures.ThreadPoolExecutor(config.parallel) as pool:
        found = list(pool.map(lambda file: _is_there(path_of(file), file, proofs), files))
    absent = [file for file, is_there in zip(files, found, strict=True) if not is_there]
    there = len(files) - len(absent)
    say("download", f"{source}: {len(files):,} shards by the plan, {there:,} are there and right")
    downloader = Downloader(
        servers, limits, Rate(config.rate_limit * 1e6), config.parallel, json_lines
    )
    try:
        missing = downloader.fetch(
            absent,
            lambda file: folders[file.split],
            lambda file: proofs.trust(path_of(file), file.md5),
        )
    finally:
        proofs.write()
    if missing:
        for name, reason in list(missing.items())[:_MOST_SAID]:
            say("download", f"missing: {name}: {reason}")
        first, why = next(iter(missing.items()))
        raise InputError(
            f"{source}: {len(missing):,} of {len(files):,} shards are missing, the others are "
            f"there and stay; the first: {first}: {why}"
        )
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(file.split, []).append(path_of(file))
    return by_split


def fetch_vocabulary(source: str, target: Path, config: DownloadConfig) -> None:
    """Fetch the names of the classes, unless they are there; a warning where nobody has them."""
    if target.is_file():
        return
    release = parse_source(source, config.mirror, _listed(config.mirrors))
    urls = (
        _VOCABULARY_URLS
        if release.is_official
        else tuple(f"{base}/vocabulary.csv" for base in release.plans)
    )
    limits = Limits(1, config.connect_seconds, config.stall_seconds)
    reasons = []
    for url in urls:
        try:
            content = _get(Servers(1, limits), url, MOST_PLAN_BYTES)
        except InputError as error:
            reasons.append(str(error))
            continue
        try:
            with atomic_file(target) as partial:
                partial.write_bytes(content)
                read_vocabulary(partial)
        except InputError as error:
            reasons.append(f"{url}: {str(error).partition(': ')[2]}")
            continue
        return
    say("download", f"warning: no vocabulary, classes have no names ({'; '.join(reasons)})")


def _planned(
    release: Release, config: DownloadConfig, servers: Servers, limits: Limits
) -> list[RemoteFile]:
    splits, names = _listed(config.splits), _listed(config.names)
    for split in splits:
        if split not in SPLITS:
            raise InputError(
                f"download.splits holds {split!r}, expected some of {', '.join(SPLITS)}"
            )
    everything: list[RemoteFile] = []
    files: list[RemoteFile] = []
    for split in (one for one in SPLITS if one in splits):
        plan = parse_plan(*_get_patiently(servers, release.plan_urls(split), limits))
        of_split = release.files(split, plan)
        everything += of_split
        files += chosen(of_split, config.shard, config.max_shards, names)
    check_names(names, everything)
    if not files:
        raise InputError(
            f"download.shard {config.shard!r}, download.splits {config.splits!r}: no shard of the "
            "plan is among them"
        )
    return files


def _tidy(folder: Path) -> None:
    """Remove what a run that was killed left beside its partial files; the caller has the lock."""
    for half_written in folder.glob(".*.part.json.*.partial"):
        half_written.unlink()
    for note in folder.glob(".*.part.json"):
        if not note.with_suffix("").is_file():
            note.unlink()


def _is_there(path: Path, file: RemoteFile, proofs: Proofs) -> bool:
    known = proofs.known(path)
    if known:
        right = known.md5 == file.md5
    elif path.is_file():  # of a run that ended before it could note it, or changed since
        right = md5_of(path) == file.md5
        if right:
            proofs.trust(path, file.md5)
    else:
        return False
    if not right:
        say("download", f"{path}: is not what the plan has: fetched anew")
        proofs.forget(path)
        path.unlink()
    return right


def _get_patiently(servers: Servers, urls: list[str], limits: Limits) -> tuple[bytes, str]:
    """A small file that one of several servers has, and its URL.

    Raises:
        InputError: none has it, or they can not be reached.
    """
    left = list(urls)

    def once() -> tuple[bytes, str]:
        url = servers.best(left)
        try:
            return _get(servers, url, MOST_PLAN_BYTES), url
        except _RefusedError:
            if left == [url]:
                raise
            left.remove(url)
            return once()
        except InputError:
            servers.note(url, failed=True)
            raise

    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, InputError) and not isinstance(error, _RefusedError)
        ),
        stop=tenacity.stop_after_attempt(limits.attempts),
        wait=tenacity.wait_random_exponential(limits.first_wait, max=30),
        reraise=True,
    )
    found: tuple[bytes, str] = attempts(once)
    return found


def _get(servers: Servers, url: str, most: int) -> bytes:
    """A small file.

    Raises:
        InputError: it can not be had, or is larger than `most` bytes.
    """
    start = time.monotonic()
    try:
        response = servers.open(url, {})
        try:
            if response.status != 200:
                refused = 400 <= response.status < 500 and response.status not in RETRIED
                raise (_RefusedError if refused else InputError)(
                    f"{url}: answers {response.status} {response.reason or ''}".rstrip()
                )
            content = response.read(most + 1, decode_content=False)
        finally:
            response.close()
    except InputError:
        raise
    except ANSWER_ERRORS as error:
        seconds = time.monotonic() - start
        raise InputError(f"{url}: {in_words(error)} (after {seconds:.0f} s)") from None
    if len(content) > most:
        raise InputError(f"{url}: has more than {most >> 20} MiB")
    return content


def _listed(text: str) -> Sequence[str]:
    return [one.strip() for one in text.split(",") if one.strip()]
