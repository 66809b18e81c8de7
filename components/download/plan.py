"""Where the shards of a release lie, and the plan that proves them.

A plan is JSON: `{"files": {"train00.tfrecord": "<MD5 in hex>", …}}`, one for each level and split,
as https://research.google.com/youtube8m/download.html publishes them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import urllib3

from trainer.errors import InputError
from trainer.record_format import FRAME, VIDEO, Level

OFFICIAL = "youtube8m:"
"""How a source starts that means the official servers, such as `youtube8m:2/frame`."""
PLANS = "http://data.yt8m.org"
MIRRORS = {name: f"http://{name}.data.yt8m.org" for name in ("us", "eu", "asia")}
RELEASES = ("1", "2", "3")
MOST_PLAN_BYTES = 64 << 20
"""The largest official plan names 3,844 files in 200 kB."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


File = TypeVar("File", bound=_Named)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_SOURCE = re.compile(r"(?P<base>.*?)/?(?P<release>[^/]*)/(?P<level>[^/]*)/?")


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        split: train, validate or test.
        folder: where it goes below the destination.
        name: of the file.
        checksum: `md5:` or `crc32c:` and hexadecimal digits; proves its content.
        urls: where it can be had, the one to prefer first.
        bytes: its size; None: not known before it is asked for.
    """

    split: str
    folder: str
    name: str
    checksum: str
    urls: tuple[str, ...]
    bytes: int | None = None

    @property
    def place(self) -> str:
        return f"{self.folder}/{self.name}"


@dataclasses.dataclass(frozen=True)
class Release:
    """Frame-level or video-level shards of a release on some servers.

    Attributes:
        plans: base URLs of the plans, the one to prefer first.
        mirrors: base URLs of the shards, the one to prefer first.
        release: 1, 2 or 3.
        level: frame or video.
    """

    plans: tuple[str, ...]
    mirrors: tuple[str, ...]
    release: str
    level: Level

    @property
    def is_official(self) -> bool:
        return self.plans[0] == PLANS

    def partition(self, split: str) -> str:
        """Such as `2/frame/train`. Release 3 rates segments of validate and test alone."""
        release = "2" if (self.release, split) == ("3", "train") else self.release
        return f"{release}/{self.level}/{split}"

    def plan_urls(self, split: str) -> list[str]:
        release, level, _ = self.partition(split).split("/")
        return [f"{base}/{release}/download_plans/{level}_{split}.json" for base in self.plans]

    def files(self, split: str, plan: dict[str, str]) -> list[RemoteFile]:
        """What a plan names, by name."""
        folder = self.partition(split)
        return [
            RemoteFile(
                split,
                folder,
                name,
                f"md5:{md5}",
                tuple(f"{base}/{folder}/{name}" for base in self.mirrors),
            )
            for name, md5 in sorted(plan.items())
        ]


def is_release(source: str) -> bool:
    return source.startswith((OFFICIAL, "http://", "https://"))


def parse_source(source: str, mirror: str, more_mirrors: Sequence[str]) -> Release:
    """The release that a source means.

    Args:
        source: `youtube8m:RELEASE/LEVEL`, or `http(s)://…/RELEASE/LEVEL` with plans and shards
            below the same address.
        mirror: us, eu or asia: the official one to prefer.
        more_mirrors: base URLs that hold the same shards.

    Raises:
        InputError: another form, an unknown release or level.
    """
    official = source.startswith(OFFICIAL)
    found = _SOURCE.fullmatch(source.removeprefix(OFFICIAL))
    release, level = (found["release"], found["level"]) if found else ("", "")
    base = found["base"] if found else ""
    known = release in RELEASES and level in (FRAME, VIDEO) and (official or _is_address(base))
    if not known or (official and base) or (release, level) == ("3", VIDEO):
        raise InputError(
            f"{source}: expected {OFFICIAL}RELEASE/LEVEL or http(s)://HOST/…/RELEASE/LEVEL with "
            f"release {', '.join(RELEASES)} and level frame or video (release 3: frame), such as "
            f"{OFFICIAL}2/frame"
        )
    for one in more_mirrors:
        if not _is_address(one):
            raise InputError(f"download.mirrors holds {one!r}, expected http(s)://HOST/…")
    more = tuple(one.rstrip("/") for one in more_mirrors)
    if official:
        preferred = [MIRRORS[mirror], *(url for url in MIRRORS.values() if url != MIRRORS[mirror])]
        return Release((PLANS, *more), (*preferred, *more), release, level)  # type: ignore[arg-type]
    return Release((base, *more), (base, *more), release, level)  # type: ignore[arg-type]


def _is_address(text: str) -> bool:
    try:
        parsed = urllib3.util.parse_url(text)
    except urllib3.exceptions.LocationParseError:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def parse_plan(content: bytes, url: str) -> dict[str, str]:
    """MD5s by name.

    Raises:
        InputError: no such JSON, or an entry that is no plain file name with an MD5; the message
            names it.
    """
    if len(content) > MOST_PLAN_BYTES:
        raise InputError(f"{url}: the plan has more than {MOST_PLAN_BYTES >> 20} MiB")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in pairs:
            if name in found:
                raise InputError(f"{url}: the plan names {name!r} twice")
            found[name] = value
        return found

    try:
        plan = json.loads(content, object_pairs_hook=unique)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        start = content[:60].decode(errors="replace")
        raise InputError(
            f"{url}: is no plan, expected JSON ({error}); it starts with {start!r}"
        ) from None
    files = plan.get("files") if isinstance(plan, dict) else None
    if not isinstance(files, dict) or not files:
        raise InputError(f'{url}: is no plan, expected {{"files": {{NAME: MD5, …}}}}')
    for name, md5 in files.items():
        if not is_plain_name(name):
            raise InputError(
                f"{url}: the plan names {name[:120]!r}, expected a file's plain name, such as "
                "train00.tfrecord"
            )
        if not isinstance(md5, str) or not _MD5.fullmatch(md5.lower()):
            raise InputError(f"{url}: {name} has the MD5 {md5!r}, expected 32 hexadecimal digits")
    return {name: md5.lower() for name, md5 in files.items()}


def is_plain_name(name: str) -> bool:
    """Whether a shard may be called so: it becomes a name in a folder of ours."""
    return bool(_NAME.fullmatch(name)) and name.endswith(".tfrecord")


def chosen(files: Iterable[File], shard: str, max_shards: int, names: Sequence[str]) -> list[File]:
    """The files that were asked for.

    Args:
        files: of one split, by name.
        shard: `X,Y`: the X-th of Y parts, chosen as the official script does; empty: all.
        max_shards: at most so many, the first; 0: all.
        names: only these; empty: all.

    Raises:
        InputError: `shard` is of another form, or a name is not there.
    """
    found = list(files)
    if shard:
        part, parts = _parsed_shard(shard)
        found = [
            file
            for file in found
            if int(hashlib.md5(file.name.encode(), usedforsecurity=False).hexdigest(), 16) % parts
            == part - 1
        ]
    if names:
        wanted = set(names)
        found = [file for file in found if file.name in wanted]
    return found[:max_shards] if max_shards else found


def check_names(names: Sequence[str], files: Iterable[_Named]) -> None:
    """Raise `InputError` unless some plan has each name."""
    known = {file.name for file in files}
    for name in names:
        if name not in known:
            raise InputError(
                f"download.names holds {name!r}, which is no shard of the splits that were asked "
                "for"
            )


def _parsed_shard(shard: str) -> tuple[int, int]:
    part, comma, parts = shard.partition(",")
    if comma and part.strip().isdecimal() and parts.strip().isdecimal():
        numbers = int(part), int(parts)
        if 1 <= numbers[0] <= numbers[1]:
            return numbers
    raise InputError(f"download.shard is {shard!r}, expected X,Y with 1 ≤ X ≤ Y, such as 1,100")
