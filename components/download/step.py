"""Find the shards (or make the sample), verify every byte once, and write the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from components.download import folders, sample
from components.download.bucket_folder import in_bucket
from components.download.bucket_store import BucketStore
from components.download.cloud_storage import SCHEME, CloudStorage
from components.download.extras import EXTRACTOR, ORACLE, SEGMENT_LABELS, VOCABULARY, Extra, digest
from components.download.fetch import fetch
from components.download.local_store import LocalStore, md5_of
from components.download.plan import RemoteFile, is_release
from components.download.proofs import Proof
from components.download.releases import asked_for, planned, release_extras, release_of
from components.download.servers import Limits, Servers
from components.download.store import Store
from trainer import record_format, records
from trainer.config import Config, DownloadConfig
from trainer.errors import InputError
from trainer.files import (
    atomic_directory,
    json_bytes,
    local_path,
    read_json,
    write_file,
    write_json,
)
from trainer.manifest import MANIFEST, SPLITS, Manifest, Shard
from trainer.progress import say
from trainer.segment_labels import parse_segment_labels
from trainer.source_digest import source_digest

SAMPLE = "sample"
OBJECT_STORES = ("minio://", "s3://")
"""Where KFP on a cluster keeps artifacts."""


@dataclasses.dataclass(frozen=True)
class _Data:
    """What a source turned out to be.

    Attributes:
        where: for messages.
        shards: split, URI and proof of each, in the order of split and name.
        extras: small files by name.
    """

    where: str
    shards: list[tuple[str, str, Proof]]
    extras: Mapping[str, Extra]


def run_download(
    source: str,
    destination: str,
    config: Config,
    artifact: str,
    artifact_uri: str,
    json_lines: TextIO | None = None,
) -> tuple[str, str]:
    """Write `manifest.json` for the data of `source`.

    Args:
        source: `sample`; `youtube8m:RELEASE/LEVEL`, the official servers, or an address of others
            that serve the same; or a folder (a path or `gs://bucket/prefix`) with the splits as
            folders `train/`, `validate/`, `test/`, or as prefixes of the files' names. A folder is
            referenced where this machine can read it, unless `download.copy` says otherwise.
        destination: folder or `gs://bucket/prefix` that outlives the run, for what is fetched or
            made and for what was verified; empty: all goes into the artifact.
        config: `data`, `download` and `sample` are used.
        artifact, artifact_uri: folder of this run's artifact, and its URI.
        json_lines: where to report transfers as JSON.

    Returns:
        The URI of the folder that holds the manifest, and the data's fingerprint. With a
        destination the URI follows from the data alone, so that whatever ran on it is found again
        (but in a cluster's object store, whose cache goes by the fingerprint).

    Raises:
        InputError: no such source, no shards, a damaged one, or shards that could not be had.
    """
    fetching = config.download
    limits = Limits(fetching.attempts, fetching.connect_seconds, fetching.stall_seconds)
    storage = CloudStorage()
    servers = Servers(fetching.parallel, limits, storage)
    store: Store
    if destination.startswith(SCHEME):
        store = BucketStore(destination, storage, servers)
    else:
        store = LocalStore(local_path(destination or artifact))
    # Two runs with one destination take turns, so that neither reads what the other writes.
    with store.locked():
        data = _Source(source, config, store, storage, servers, json_lines).data()
        manifest = _manifest(source, data, config)
        content = json_bytes(manifest.as_dict())
        folder = f"manifests/{manifest.fingerprint}"
        store.write(f"{folder}/{MANIFEST}" if destination else MANIFEST, content)
    uri = f"{destination.rstrip('/')}/{folder}" if destination else artifact_uri
    if destination and artifact_uri.startswith(OBJECT_STORES):
        # The cluster carries artifacts itself, and fails for one that lies elsewhere.
        write_file(Path(artifact) / MANIFEST, content)
        uri = artifact_uri
    counts = ", ".join(
        f"{manifest.records(split):,} {split}" for split in SPLITS if manifest.records(split)
    )
    size = sum(shard.bytes for shard in manifest.shards)
    say(
        "download",
        f"{len(manifest.shards)} {manifest.level}-level shards verified: {counts} videos, "
        f"{manifest.num_classes:,} classes, {size / 1e6:,.1f} MB",
    )
    return uri, manifest.fingerprint


@dataclasses.dataclass(frozen=True)
class _Source:
    """A source, and the store that what comes of it goes to."""

    source: str
    config: Config
    store: Store
    storage: CloudStorage
    servers: Servers
    json_lines: TextIO | None

    def data(self) -> _Data:
        if is_release(self.source):
            return self._of_release()
        if self.source == SAMPLE:
            return self._of_sample()
        # A bucket that is mounted is a folder.
        if in_bucket(self.source):
            return self._of_bucket()
        folder = local_path(self.source).resolve()
        return self._copied(folder) if self.config.download.copy else self._referenced(folder)

    def _of_release(self) -> _Data:
        release = release_of(self.source, self.config.download)
        shards = planned(release, self.config.download, self.servers)
        return self._fetched(shards, lambda: release_extras(release, self.store, self.servers))

    def _of_bucket(self) -> _Data:
        root = self.source.rstrip("/")
        place = folders.place_of(root)
        shards = folders.copies_of_prefix(root, place, self.storage, self.config.download)
        extras = folders.extras_of_prefix(root, self.storage)
        return self._fetched(shards, lambda: folders.kept(extras, place, self.store))

    def _of_sample(self) -> _Data:
        if isinstance(self.store, LocalStore):
            return self._referenced(_sample_folder(self.config, Path(self.store.uri(""))))
        with tempfile.TemporaryDirectory() as scratch:
            folder = _sample_folder(self.config, Path(scratch))
            passing = LocalStore(Path(scratch)).proofs
            shards = folders.copies_of_folder(folder, folder.name, passing, DownloadConfig())
            extras = folders.extras_beside(folder)
            return self._fetched(shards, lambda: folders.kept(extras, folder.name, self.store))

    def _copied(self, folder: Path) -> _Data:
        place = folders.place_of(str(folder))
        config, proofs = self.config.download, self.store.proofs
        shards = folders.copies_of_folder(folder, place, proofs, config)
        extras = folders.extras_beside(folder)
        return self._fetched(shards, lambda: folders.kept(extras, place, self.store))

    def _referenced(self, folder: Path) -> _Data:
        by_split = asked_for(folders.shards_in(folder), self.config.download)
        known = folders.proved(by_split, self.store.proofs)
        shards = [
            (split, str(path), known[path]) for split, paths in by_split.items() for path in paths
        ]
        return _Data(str(folder), shards, folders.extras_beside(folder))

    def _fetched(self, files: list[RemoteFile], extras: Callable[[], dict[str, Extra]]) -> _Data:
        fetch(self.source, files, self.store, self.servers, self.config.download, self.json_lines)
        try:
            shards = [
                (file.split, self.store.uri(file.place), self.store.proof(file)) for file in files
            ]
        finally:
            self.store.proofs.write()
        return _Data(self.source, shards, extras())


def _sample_folder(config: Config, root: Path) -> Path:
    """The built-in sample, made unless it is there, whole and unchanged."""
    parameters = json.dumps(dataclasses.asdict(config.sample), sort_keys=True)
    code = source_digest([Path(str(m.__file__)) for m in (sample, records, record_format)])
    folder = root / f"sample-{hashlib.sha256((parameters + code).encode()).hexdigest()[:16]}"
    sums = folder / "md5.json"
    if folder.exists():
        if sums.is_file() and all(
            (folder / name).is_file() and md5_of(folder / name) == md5
            for name, md5 in read_json(sums).items()
        ):
            return folder
        say("download", f"the sample in {folder} was changed since it was made: made anew")
        shutil.rmtree(folder)
    for left_over in root.glob(".sample-*.partial"):  # of a run that was killed; we hold the lock
        shutil.rmtree(left_over)
    with atomic_directory(folder) as partial:
        spec = config.sample
        total = spec.train_videos + spec.validate_videos
        say("download", f"makes the built-in sample of {total:,} videos (seed {spec.seed})")
        sample.write_sample(spec, partial)
        files = sorted(file for file in partial.rglob("*") if file.is_file())
        write_json(
            partial / sums.name, {str(file.relative_to(partial)): md5_of(file) for file in files}
        )
    return folder


def _check_extractor(data: _Data, extractor: Extra | None) -> None:
    """Raise `InputError` if records say that they were made by another one than is beside them."""
    made = extractor.feature_extractor().digest if extractor else ""
    for _, uri, proof in data.shards:
        if proof.extractor and proof.extractor != made:
            beside = f"that of {extractor.uri} is {made[:12]}" if extractor else "it is not there"
            raise InputError(
                f"{uri}: its records were made by the feature extractor {proof.extractor[:12]}, "
                f"expected {EXTRACTOR} of it in {data.where} or above it; {beside}"
            )


def _manifest(source: str, data: _Data, config: Config) -> Manifest:
    levels = {proof.level: uri.rpartition("/")[2] for _, uri, proof in reversed(data.shards)}
    if len(levels) > 1:
        raise InputError(
            f"{data.where}: holds frame-level shards ({levels['frame']}) and video-level ones "
            f"({levels['video']}), expected one level"
        )
    num_classes = config.data.num_classes
    vocabulary = data.extras.get(VOCABULARY)
    if vocabulary:
        named = vocabulary.vocabulary().num_classes
        if num_classes and num_classes != named:
            say(
                "download",
                f"warning: {vocabulary.uri} names {named:,} classes, data.num_classes is "
                f"{num_classes:,}: it is not used, classes have no names",
            )
            vocabulary = None
        num_classes = num_classes or named
    elif not is_release(source):
        say(
            "download",
            f"warning: no {VOCABULARY} in {data.where} or above it: classes have no names",
        )
    num_classes = num_classes or records.NUM_CLASSES
    rated = data.extras.get(SEGMENT_LABELS)
    if rated and (last := parse_segment_labels(rated.content, rated.uri)[-1]) >= num_classes:
        say(
            "download",
            f"warning: {rated.uri} names class {last:,} of {num_classes:,} classes: it is not used",
        )
        rated = None
    # Only of the sample is it known what its labels were drawn from.
    oracle = data.extras.get(ORACLE) if source == SAMPLE else None
    extractor = data.extras.get(EXTRACTOR)
    _check_extractor(data, extractor)
    marks = {proof.mark for _, _, proof in data.shards} - {""}
    if extractor and (mark := extractor.feature_extractor().mark):
        marks.add(mark)
    used = [extra for extra in (vocabulary, oracle, rated, extractor) if extra]
    return Manifest(
        source=source,
        level=next(iter(levels)),
        num_classes=num_classes,
        shards=tuple(
            Shard(split, uri, proof.bytes, proof.md5, proof.records)
            for split, uri, proof in data.shards
        ),
        vocabulary=vocabulary.uri if vocabulary else "",
        oracle=oracle.uri if oracle else "",
        content=digest(used),
        segment_labels=rated.uri if rated else "",
        feature_extractor=extractor.uri if extractor else "",
        features_mark=", ".join(sorted(marks)),
    )
