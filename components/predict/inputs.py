"""What to predict with, and on what: the model of a run, and shards wherever they lie."""

from __future__ import annotations

import fnmatch
import glob
import json
import re
from pathlib import Path
from typing import Any

from components.download.cloud_storage import SCHEME, CloudStorage
from components.predict.windows import InputShard
from components.statistics.shard_files import is_local
from trainer.errors import InputError
from trainer.evaluation import check_fits
from trainer.exported_model import ExportedModel
from trainer.feature_networks.feature_extractor import FEATURE_EXTRACTOR
from trainer.files import local_path
from trainer.manifest import MANIFEST, Manifest, digest_of_files, parse_manifest, read_manifest
from trainer.newest_run import newest
from trainer.progress import say
from trainer.vocabulary import read_vocabulary

SUFFIX = ".tfrecord"
ALL = "all"
"""In place of a split."""
_VOCABULARY = "vocabulary.csv"
_PATTERN = re.compile(r"[*?\[]")


def find_model(folder: str, runs: str) -> ExportedModel:
    """The model of a folder of the export step; of none, the newest run's.

    Raises:
        InputError: there is none.
    """
    if folder:
        return ExportedModel(folder)
    found = newest(Path(runs), "serving_model")
    say("predict", f"model {found}, of the newest run that has one")
    return ExportedModel(found)


def digest_of_model(folder: Path) -> str:
    """Of all files of a model."""
    return digest_of_files(path for path in sorted(folder.rglob("*")) if path.is_file())


def chosen_top_k(asked: int | None, model: ExportedModel) -> int:
    """How many classes are wanted; None: as many as the model gives.

    Raises:
        InputError: it does not give so many.
    """
    if asked is None:
        return model.top_k
    if not 1 <= asked <= model.top_k:
        raise InputError(
            f"top_k is {asked}, expected 1 to {model.top_k}, which the model gives (export.top_k)"
        )
    return asked


def examples_beside(model: Path) -> str:
    """The examples of the run that made a model.

    Raises:
        InputError: there are none beside it.
    """
    examples = model.parent / "examples"
    if not (examples / MANIFEST).is_file():
        raise InputError(
            f"{model}: has no examples/{MANIFEST} beside it as a run has; give --data: a folder of "
            f"shards, a pattern, a {SUFFIX} file or a manifest"
        )
    return str(examples)


def find_shards(data: str, split: str, model: ExportedModel) -> list[InputShard]:
    """The shards that `data` stands for, in the order of a manifest, or by name.

    Args:
        data: a manifest or its folder, a folder of shards (at any depth), a pattern, or a file; of
            a path or a `gs://` URI.
        split: of a manifest, or `all`.
        model: that must fit the data, as far as is known of it.

    Raises:
        InputError: there are none, or the data is of another level, number of classes or
            vocabulary than the model.
    """
    if is_local(data):
        return _local_shards(str(local_path(data)), split, model)
    if not data.startswith(SCHEME):
        raise InputError(f"{data}: expected a path or {SCHEME}")
    return _shards_in_bucket(data, split, model)


def _local_shards(data: str, split: str, model: ExportedModel) -> list[InputShard]:
    path = Path(data)
    if path.name == MANIFEST or (path / MANIFEST).is_file():
        return _of_manifest(read_manifest(path), split, model)
    if path.is_dir():
        _check_vocabulary(path, model)
        paths = sorted(path.rglob(f"*{SUFFIX}"))
        expected = f"has no *{SUFFIX} files"
    elif path.exists() or not _PATTERN.search(data):
        paths, expected = [path] if path.exists() else [], "no such file or folder"
    else:
        paths = sorted(Path(one) for one in glob.glob(data, recursive=True))  # noqa: PTH207
        expected = "no file has such a name"
    files = [one for one in paths if one.is_file()]
    if not files:
        raise InputError(f"{data}: {expected}; expected shards")
    return [InputShard(str(one.absolute()), one.stat().st_size) for one in files]


def _shards_in_bucket(data: str, split: str, model: ExportedModel) -> list[InputShard]:
    storage = CloudStorage()
    name = data if data.endswith(MANIFEST) else f"{data.rstrip('/')}/{MANIFEST}"
    content = None if _PATTERN.search(data) or data.endswith(SUFFIX) else storage.read(name)
    if content is not None:
        return _of_manifest(parse_manifest(_json(content, name), name), split, model)
    if found := _PATTERN.search(data):
        objects = storage.under(data[: found.start()])
        chosen = {uri for uri in objects if fnmatch.fnmatchcase(uri, data)}
    elif data.endswith(SUFFIX):
        objects = storage.under(data)
        chosen = {data} & objects.keys()
    else:
        objects = storage.under(f"{data.rstrip('/')}/")
        chosen = {uri for uri in objects if uri.endswith(SUFFIX)}
    if not chosen:
        raise InputError(f"{data}: no such object is there; expected shards, *{SUFFIX}")
    return [InputShard(uri, objects[uri].bytes) for uri in sorted(chosen)]


def _json(content: bytes, name: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise InputError(f"{name}: expected JSON ({error})") from None


def _of_manifest(manifest: Manifest, split: str, model: ExportedModel) -> list[InputShard]:
    check_fits(str(model.folder), model.about, manifest)
    shards = manifest.shards if split == ALL else manifest.split(split)
    return [InputShard(shard.uri, shard.bytes) for shard in shards]


def _check_vocabulary(folder: Path, model: ExportedModel) -> None:
    """Refuse a folder with, or below one with, the names of other classes or other features."""
    for path in (folder / _VOCABULARY, folder.parent / _VOCABULARY):
        if path.is_file():
            found = read_vocabulary(path)
            made = path.with_name(FEATURE_EXTRACTOR)
            of_data = Manifest(
                str(folder), model.level, found.num_classes, (), str(path),
                feature_extractor=str(made) if made.is_file() else "",
            )  # fmt: skip
            check_fits(str(model.folder), model.about, of_data)
            return
