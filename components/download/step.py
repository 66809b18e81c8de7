"""Find the shards (or make the sample), verify every byte once, and write the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import TextIO

from components.download import sample
from components.download.plan import is_remote
from components.download.proofs import Proofs, md5_of
from components.download.remote import fetch_release, fetch_vocabulary
from trainer import record_format, records
from trainer.config import Config
from trainer.errors import InputError
from trainer.files import atomic_directory, local_path, locked, read_json, write_json
from trainer.manifest import MANIFEST, SPLITS, Manifest, Shard, digest_of_files
from trainer.progress import Progress, say
from trainer.records import Level
from trainer.source_digest import source_digest
from trainer.vocabulary import read_vocabulary

SAMPLE = "sample"
SUFFIX = ".tfrecord"
VOCABULARY, ORACLE = "vocabulary.csv", "oracle.csv"


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
            that serve the same; or a folder (a path, or `gs://` where /gcs is mounted) with the
            splits as folders `train/`, `validate/`, `test/`, or as prefixes of the files' names.
        destination: folder that outlives the run, for what is made and for what was verified;
            empty: all goes into the artifact.
        config: `data`, `download` and `sample` are used.
        artifact, artifact_uri: folder of this run's artifact, and its URI.
        json_lines: where to report transfers as JSON.

    Returns:
        The URI of the folder that holds the manifest, and the data's fingerprint. With a
        destination the URI follows from the data alone, so that whatever ran on it is found again.

    Raises:
        InputError: no such source, no shards, or a damaged one.
    """
    root = local_path(destination) if destination else Path(artifact)
    # Two runs with one destination take turns, so that neither reads what the other writes.
    with locked(root, lambda: say("download", f"waits for another run that prepares {root}")):
        proofs = Proofs(root)
        if is_remote(source):
            files = fetch_release(source, root.resolve(), config.download, proofs, json_lines)
            folder = root.resolve()
            fetch_vocabulary(source, folder / VOCABULARY, config.download)
        else:
            made = source == SAMPLE
            folder = _sample_folder(config, root) if made else local_path(source).resolve()
            files = _find_shards(folder)
        manifest = _manifest(source, folder, files, config, proofs)
        if destination:
            uri = f"{destination.rstrip('/')}/manifests/{manifest.fingerprint}"
        else:
            uri = artifact_uri
        manifest.write((local_path(uri) if destination else Path(artifact)) / MANIFEST)
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


def _manifest(
    source: str, folder: Path, files: dict[str, list[Path]], config: Config, proofs: Proofs
) -> Manifest:
    shards: list[Shard] = []
    levels: dict[Level, Path] = {}
    progress = Progress("download", sum(len(paths) for paths in files.values()), "shards")
    try:
        for split, paths in files.items():
            for path in paths:
                proof = proofs.prove(path)
                levels.setdefault(proof.level, path)
                shards.append(Shard(split, str(path), proof.bytes, proof.md5, proof.records))
                progress.advance(note=path.name)
    finally:
        proofs.write()  # what was proved stays proved, whatever ends this loop
    if len(levels) > 1:
        raise InputError(
            f"{folder}: holds frame-level shards ({levels['frame'].name}) and video-level ones "
            f"({levels['video'].name}), expected one level"
        )
    vocabulary = _beside(folder, VOCABULARY)
    num_classes = config.data.num_classes
    if not vocabulary:
        say("download", f"warning: no {VOCABULARY} in {folder} or above it: classes have no names")
    else:
        named = read_vocabulary(vocabulary).num_classes
        if num_classes and num_classes != named:
            say(
                "download",
                f"warning: {vocabulary} names {named:,} classes, data.num_classes is "
                f"{num_classes:,}: it is not used, classes have no names",
            )
            vocabulary = None
        num_classes = num_classes or named
    # Only of the sample is it known what its labels were drawn from.
    oracle = folder / ORACLE if source == SAMPLE else None
    extras = [path for path in (vocabulary, oracle) if path]
    return Manifest(
        source=source,
        level=next(iter(levels)),
        num_classes=num_classes or records.NUM_CLASSES,
        shards=tuple(shards),
        vocabulary=str(vocabulary or ""),
        oracle=str(oracle or ""),
        content=digest_of_files(extras),
    )


def _find_shards(folder: Path) -> dict[str, list[Path]]:
    """Shards by split, sorted by name.

    Raises:
        InputError: no such folder, or train or validate has no shards.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}; expected `{SAMPLE}` or a folder of shards")
    found = {}
    for split in SPLITS:
        if (folder / split).is_dir():
            paths = sorted((folder / split).glob(f"*{SUFFIX}"))
        else:
            paths = sorted(folder.glob(f"{split}*{SUFFIX}"))
        if not paths and split != "test":
            raise InputError(
                f"{folder}: no shards of {split}, expected {split}/*{SUFFIX} or {split}*{SUFFIX}"
            )
        if paths:
            found[split] = paths
    return found


def _beside(folder: Path, name: str) -> Path | None:
    """The file in the folder, or in the one above (the data set's root)."""
    return next((p for p in (folder / name, folder.parent / name) if p.is_file()), None)
