"""What the official servers have, or any that serve plans and shards as they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from components.download.extras import (
    MOST_BYTES,
    PARSERS,
    SEGMENT_LABELS,
    VOCABULARY,
    Extra,
)
from components.download.plan import (
    MOST_PLAN_BYTES,
    File,
    Release,
    RemoteFile,
    check_names,
    chosen,
    parse_plan,
    parse_source,
)
from components.download.servers import Servers
from components.download.small_files import get_parsed
from components.download.store import Store
from trainer.config import DownloadConfig
from trainer.errors import InputError
from trainer.manifest import SPLITS
from trainer.progress import say

_OFFICIAL = {
    VOCABULARY: (
        "https://research.google.com/youtube8m/csv/2/vocabulary.csv",
        "http://research.google.com/youtube8m/csv/2/vocabulary.csv",
    ),
    SEGMENT_LABELS: (
        "https://raw.githubusercontent.com/google/youtube-8m/master/segment_label_ids.csv",
        "http://data.yt8m.org/segment_label_ids.csv",
    ),
}
_WITHOUT = {
    VOCABULARY: "classes have no names",
    SEGMENT_LABELS: "the classes that segments are rated for are not known",
}


def release_of(source: str, config: DownloadConfig) -> Release:
    return parse_source(source, config.mirror, listed(config.mirrors))


def planned(release: Release, config: DownloadConfig, servers: Servers) -> list[RemoteFile]:
    """The shards that a release and the configuration mean.

    Raises:
        InputError: a plan can not be had or is none, or nothing is meant.
    """
    by_split: dict[str, list[RemoteFile]] = {}
    for split in asked_splits(config):
        plan = get_parsed(servers, release.plan_urls(split), parse_plan, MOST_PLAN_BYTES)
        by_split[split] = release.files(split, plan)
    return [file for files in asked_for(by_split, config).values() for file in files]


def asked_splits(config: DownloadConfig) -> list[str]:
    """The splits to fetch.

    Raises:
        InputError: one that is none.
    """
    splits = listed(config.splits)
    for split in splits:
        if split not in SPLITS:
            raise InputError(
                f"download.splits holds {split!r}, expected some of {', '.join(SPLITS)}"
            )
    return [split for split in SPLITS if split in splits]


def asked_for(
    by_split: Mapping[str, Sequence[File]], config: DownloadConfig
) -> dict[str, list[File]]:
    """Of the files that there are by split, those that the configuration means.

    Raises:
        InputError: a name that is not there, or nothing is left.
    """
    names = listed(config.names)
    found = {
        split: chosen(files, config.shard, config.max_shards, names)
        for split, files in by_split.items()
    }
    check_names(names, [file for files in by_split.values() for file in files])
    if not any(found.values()):
        raise InputError(
            f"download.shard {config.shard!r}, download.splits {config.splits!r}: no shard is "
            "among them"
        )
    return found


def release_extras(release: Release, store: Store, servers: Servers) -> dict[str, Extra]:
    """The vocabulary, and for release 3 the classes that are rated, by name.

    They are fetched into the store unless they are there; a warning where nobody has them.
    """
    found: dict[str, Extra] = {}
    for name in (VOCABULARY, SEGMENT_LABELS) if release.release == "3" else (VOCABULARY,):
        content = store.read(name)
        if content is None:
            content = _fetched(name, release, servers)
            if content is None:
                continue
            store.write(name, content)
        found[name] = Extra(store.uri(name), content)
    return found


def _fetched(name: str, release: Release, servers: Servers) -> bytes | None:
    urls = (
        _OFFICIAL[name]
        if release.is_official
        else tuple(f"{base}/{name}" for base in release.plans)
    )

    def checked(content: bytes, url: str) -> bytes:
        PARSERS[name](content, url)
        return content

    reasons = []
    for url in urls:
        try:
            return get_parsed(servers, (url,), checked, MOST_BYTES, attempts=1)
        except InputError as error:
            reasons.append(str(error))
    say("download", f"warning: no {name}, {_WITHOUT[name]} ({'; '.join(reasons)})")
    return None


def listed(text: str) -> Sequence[str]:
    return [one.strip() for one in text.split(",") if one.strip()]
