"""The manifest of a data set: which shards there are, where they lie, what proves them.

It is what the steps hand to each other in place of the data: terabytes stay where they are and
travel as URIs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainer.errors import InputError
from trainer.files import local_path, read_json, write_json
from trainer.records import Level
from trainer.segment_labels import parse_segment_labels
from trainer.vocabulary import Vocabulary, read_vocabulary

MANIFEST = "manifest.json"
VERSION = 1
SPLITS = ("train", "validate", "test")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One TFRecord file.

    Attributes:
        split: train, validate or test.
        uri: absolute path or `gs://` URI.
        bytes: its size.
        md5: hex digest of its content.
        records: how many it holds.
    """

    split: str
    uri: str
    bytes: int
    md5: str
    records: int

    @property
    def path(self) -> Path:
        return local_path(self.uri)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A data set.

    Attributes:
        source: what it was made of, for a person to read.
        level: frame or video.
        num_classes: C.
        shards: in the order of split and name.
        vocabulary: URI of `vocabulary.csv`, or empty.
        segment_labels: URI of `segment_label_ids.csv`, or empty.
        feature_extractor: URI of the file that says what made the features, and holds the
            projections (`trainer.feature_networks.feature_extractor`); empty: not known, as of
            YouTube-8M's own.
        features_mark: what its records say is wrong with their features; empty: nothing.
        oracle: URI of predictions that bound what the data allows, or empty.
        content: digest of these files.
    """

    source: str
    level: Level
    num_classes: int
    shards: tuple[Shard, ...]
    vocabulary: str = ""
    oracle: str = ""
    content: str = ""
    segment_labels: str = ""
    feature_extractor: str = ""
    features_mark: str = ""

    def split(self, name: str) -> tuple[Shard, ...]:
        """The shards of one split.

        Raises:
            InputError: there are none.
        """
        found = tuple(shard for shard in self.shards if shard.split == name)
        if not found:
            there = sorted({shard.split for shard in self.shards})
            raise InputError(
                f"{self.source}: no shards of split {name} (found: {', '.join(there)})"
            )
        return found

    def records(self, split: str) -> int:
        return sum(shard.records for shard in self.shards if shard.split == split)

    @property
    def fingerprint(self) -> str:
        """Digest of what the data is, wherever it lies: equal content, equal fingerprint."""
        content = [(s.split, Path(s.uri).name, s.bytes, s.md5, s.records) for s in self.shards]
        facts: list[Any] = [VERSION, self.level, self.num_classes, self.content, content]
        if self.features_mark:
            facts.append(self.features_mark)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def read_vocabulary(self) -> Vocabulary:
        """Names of the classes; by index where no vocabulary came with the data."""
        if not self.vocabulary:
            return Vocabulary.of_indices(self.num_classes)
        return read_vocabulary(local_path(self.vocabulary))

    def vocabulary_digest(self) -> str:
        """Digest of the classes' names; empty where no vocabulary came with the data."""
        return self.read_vocabulary().digest if self.vocabulary else ""

    def read_segment_labels(self) -> tuple[int, ...]:
        """The classes that segments are rated for, ascending; empty: they are not known.

        Raises:
            InputError: the file is not there, is none, or names a class that there is not.
        """
        if not self.segment_labels:
            return ()
        try:
            content = local_path(self.segment_labels).read_bytes()
        except FileNotFoundError:
            raise InputError(f"{self.segment_labels}: no such file") from None
        classes = parse_segment_labels(content, self.segment_labels)
        if classes[-1] >= self.num_classes:
            raise InputError(
                f"{self.segment_labels}: names class {classes[-1]:,}, expected 0 to "
                f"{self.num_classes - 1:,}"
            )
        return classes

    def as_dict(self) -> dict[str, Any]:
        return {"version": VERSION, "fingerprint": self.fingerprint} | dataclasses.asdict(self)

    def write(self, path: str | os.PathLike[str]) -> None:
        write_json(path, self.as_dict())


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest, or the one in a folder.

    Raises:
        InputError: absent, of another version, a field is missing or unknown, or the fingerprint
            is not that of its content.
    """
    file = Path(path) / MANIFEST if Path(path).is_dir() else Path(path)
    return parse_manifest(read_json(file), str(file))


def parse_manifest(content: Any, file: str) -> Manifest:
    """A manifest of its JSON; `file`: its name, for messages. Errors as of `read_manifest`."""
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise InputError(f"{file}: expected a manifest of version {VERSION}")
    stated = content.pop("fingerprint", None)
    del content["version"]
    try:
        shards = tuple(Shard(**shard) for shard in content.pop("shards"))
        manifest = Manifest(shards=shards, **content)
    except (TypeError, KeyError) as error:
        raise InputError(f"{file}: is no manifest: {error}") from None
    for shard in shards:
        if shard.split not in SPLITS:
            raise InputError(
                f"{file}: {shard.uri} is of split {shard.split!r}, expected {', '.join(SPLITS)}"
            )
    if manifest.fingerprint != stated:
        raise InputError(
            f"{file}: its fingerprint is {stated}, but its content has {manifest.fingerprint}"
        )
    return manifest


def digest_of_files(paths: Iterable[Path]) -> str:
    """Digest of the content of small files, in the order given."""
    return digest_of_contents(path.read_bytes() for path in paths)


def digest_of_contents(contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:32]
