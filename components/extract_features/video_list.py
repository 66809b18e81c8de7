"""Which videos, with which labels, ids and splits: a CSV file, a folder, or one file."""

from __future__ import annotations

import collections
import csv
import dataclasses
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import PurePosixPath

from components.download.bucket_folder import in_bucket
from components.download.cloud_storage import SCHEME, CloudStorage
from trainer.errors import InputError
from trainer.files import local_path
from trainer.manifest import SPLITS
from trainer.parameter import nearest
from trainer.record_format import LONGEST_ID
from trainer.vocabulary import Vocabulary

COLUMNS = ("video", "labels", "split", "id")
"""Of the CSV file; the first alone is needed. Without a header the first two are meant."""
SUFFIXES = (
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".mxf", ".ogv", ".rm", ".ts", ".webm", ".wmv",
)  # fmt: skip
"""What names of videos end with, where a folder is searched for them."""
_DIGITS = 6
"""Of an index of a class: one more would be names of millions of classes."""
TRAIN, VALIDATE, TEST = SPLITS


@dataclasses.dataclass(frozen=True)
class Video:
    """One to be made a record of.

    Attributes:
        uri: path or `gs://` URI.
        video_id: of its record.
        labels: class indices, ascending; empty: not known.
        split: train, validate or test.
    """

    uri: str
    video_id: str
    labels: tuple[int, ...]
    split: str


@dataclasses.dataclass(frozen=True)
class VideoList:
    """Videos, and the names of the classes that their labels are of."""

    videos: tuple[Video, ...]
    vocabulary: Vocabulary


@dataclasses.dataclass(frozen=True)
class _Row:
    where: str
    name: str  # as the source has it, which does not change when others are added
    uri: str
    labels: tuple[str, ...]
    split: str
    video_id: str


def read_video_list(
    source: str, vocabulary: Vocabulary | None = None, validate_share: float = 0.2
) -> VideoList:
    """The videos of a source.

    A CSV file has a row for each: its path or `gs://` URI (from the file's own folder, where it is
    relative), and its labels, joined by `;`: class indices, or names. Further columns, by a header
    of `COLUMNS`, are its split and its id. A folder, or a `gs://` prefix, gives all videos below
    it, without labels; one file gives itself.

    Args:
        source: the CSV file, folder or video.
        vocabulary: names of the classes; None: labels that are names make one, in the order of the
            alphabet, and indices one of as many classes as the greatest needs.
        validate_share: of the labelled videos that have no split, 0 to below 1: which of them
            follows from the ids that are given, or the names as they stand in the list. Of a few
            videos one at least is to train on and one to evaluate on. Those without labels are of
            the test split.

    Raises:
        InputError: no such source, no videos, a row that is none, an unknown label or split, or an
            id twice; the message names the file and the row.
    """
    if not source:
        raise InputError("videos is empty, expected a CSV file, a folder, a video or a gs:// URI")
    if not 0 <= validate_share < 1:
        raise InputError(f"validate_share is {validate_share}, expected 0 to below 1")
    rows = _rows(source)
    if not rows:
        raise InputError(f"{source}: has no videos, expected files that end with one of "
                         f"{', '.join(SUFFIXES)}")  # fmt: skip
    _check_once(rows)
    vocabulary, indices = _labels(rows, vocabulary)
    ids = _ids(rows)
    splits = _splits(rows, validate_share)
    videos = tuple(
        Video(row.uri, video_id, labels, split)
        for row, video_id, labels, split in zip(rows, ids, indices, splits, strict=True)
    )
    return VideoList(videos, vocabulary)


def _rows(source: str) -> list[_Row]:
    if source.lower().endswith(".csv"):
        return list(_of_csv(source))
    if in_bucket(source):
        if source.lower().endswith(SUFFIXES):
            return [_Row(source, source, source, (), "", "")]
        below = CloudStorage().under(f"{source.rstrip('/')}/")
        uris = sorted(uri for uri in below if uri.lower().endswith(SUFFIXES))
        return [_Row(uri, uri, uri, (), "", "") for uri in uris]
    path = local_path(source)
    if path.is_dir():
        found = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        files = sorted(file for file in found if not file.is_dir())
        for file in files:
            if not str(file).isascii() and str(file).encode("utf-8", "ignore") != os.fsencode(file):
                raise InputError(f"{str(file)!r}: its name is not in UTF-8")
        return [_Row(str(file), file.name, str(file.absolute()), (), "", "") for file in files]
    if not path.exists():
        raise InputError(
            f"{source}: no such file or folder; expected a video, a folder of them or a CSV file"
        )
    return [_Row(source, source, str(path.absolute()), (), "", "")]


def _of_csv(source: str) -> list[_Row]:
    content = _content(source)
    try:
        table = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{source}: expected a CSV file in UTF-8 ({error})") from None
    numbered = [(number, row) for number, row in enumerate(table, 1) if any(map(str.strip, row))]
    columns: Sequence[str] = COLUMNS[:2]
    if numbered and numbered[0][1][0].strip().lower() == COLUMNS[0]:
        columns = [name.strip().lower() for name in numbered[0][1]]
        if unknown := [name for name in columns if name not in COLUMNS]:
            raise InputError(
                f"{source}: has a column {unknown[0]!r}, expected some of {', '.join(COLUMNS)}"
                f"{nearest(unknown[0], COLUMNS)}"
            )
        if len(set(columns)) != len(columns):
            raise InputError(f"{source}: has a column twice: {', '.join(columns)}")
        numbered = numbered[1:]
    return [_row(source, number, row, columns) for number, row in numbered]


def _row(source: str, number: int, cells: list[str], columns: Sequence[str]) -> _Row:
    where = f"{source}: row {number}"
    if len(cells) > len(columns):
        raise InputError(
            f"{where}: has {len(cells)} columns, expected {len(columns)}: {', '.join(columns)} "
            "(labels are joined by ;)"
        )
    found = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
    if not found[COLUMNS[0]]:
        raise InputError(f"{where}: names no video")
    if any("\0" in cell for cell in found.values()):
        raise InputError(f"{where}: has a zero byte, which no name has")
    split = found.get("split", "")
    if split and split not in SPLITS:
        raise InputError(f"{where}: split is {split!r}, expected {', '.join(SPLITS)}")
    labels = tuple(filter(None, map(str.strip, found.get("labels", "").split(";"))))
    name, video_id = found["video"], found.get("id", "")
    return _Row(where, name, _resolved(name, source), labels, split, video_id)


def _resolved(video: str, source: str) -> str:
    if "://" in video or PurePosixPath(video).is_absolute():
        return video
    if source.startswith(SCHEME):
        return f"{source.rpartition('/')[0]}/{video}"
    return str(local_path(source).absolute().parent / video)


def _content(source: str) -> bytes:
    if in_bucket(source):
        content = CloudStorage().read(source)
        if content is None:
            raise InputError(f"{source}: no such object")
        return content
    path = local_path(source)
    if not path.is_file():
        raise InputError(f"{source}: no such file")
    return path.read_bytes()


def _labels(
    rows: list[_Row], vocabulary: Vocabulary | None
) -> tuple[Vocabulary, list[tuple[int, ...]]]:
    every = {label for row in rows for label in row.labels}
    if all(label.isdecimal() for label in every):
        if too_long := [label for label in every if len(label) > _DIGITS]:
            where = next(row.where for row in rows if too_long[0] in row.labels)
            raise InputError(f"{where}: label {too_long[0][:40]} is no index of a class")
        most = max(map(int, every), default=0)
        vocabulary = vocabulary or Vocabulary.of_indices(most + 1)
        place = {label: int(label) for label in every}
    else:
        if vocabulary is None:
            names = tuple(sorted(every))
            vocabulary = dataclasses.replace(Vocabulary.of_indices(len(names)), names=names)
        counts = collections.Counter(vocabulary.names)
        place = {name: index for index, name in enumerate(vocabulary.names) if counts[name] == 1}
    for row in rows:
        for label in row.labels:
            if place.get(label, len(vocabulary.names)) >= vocabulary.num_classes:
                raise InputError(
                    f"{row.where}: label {label!r} is none of the {vocabulary.num_classes:,} "
                    f"classes{nearest(label, vocabulary.names)}"
                )
    return vocabulary, [tuple(sorted({place[label] for label in row.labels})) for row in rows]


def _check_once(rows: list[_Row]) -> None:
    """A video that is there twice could be trained on and evaluated on."""
    first: dict[str, str] = {}
    for row in rows:
        if (other := first.setdefault(row.uri, row.where)) != row.where:
            raise InputError(f"{row.where}: {row.name} is there already ({other})")


def _ids(rows: list[_Row]) -> list[str]:
    """As given, or the shortest ends of the paths, without suffix, that tell all videos apart."""
    paths = [PurePosixPath(row.uri.partition("://")[2] or row.uri) for row in rows]
    without = [path.with_suffix("") if path.name else path for path in paths]
    forms = without if len(set(without)) == len(set(paths)) else paths
    depth = 1
    deepest = max(len(path.parts) for path in forms)
    while depth < deepest and len({path.parts[-depth:] for path in forms}) < len(set(forms)):
        depth += 1
    ids = [
        row.video_id or "/".join(path.parts[-depth:]) for row, path in zip(rows, forms, strict=True)
    ]
    for video_id, count in collections.Counter(ids).items():
        if count > 1:
            twice = [row.where for row, one in zip(rows, ids, strict=True) if one == video_id]
            raise InputError(
                f"{twice[1]}: {video_id!r} is there already ({twice[0]}); ids must differ"
            )
    for row, video_id in zip(rows, ids, strict=True):
        if row.video_id and len(video_id.encode()) > LONGEST_ID:
            raise InputError(f"{row.where}: id {video_id!r} is longer than {LONGEST_ID} bytes")
    return [short_id(video_id) for video_id in ids]


def short_id(video_id: str) -> str:
    """An id of a path within `LONGEST_ID` bytes: its end, after a digest of the whole."""
    stored = video_id.encode()
    if len(stored) <= LONGEST_ID:
        return video_id
    digest = hashlib.sha256(stored).hexdigest()[:12]
    return f"{digest}-{stored[13 - LONGEST_ID :].decode('utf-8', 'ignore')}"


def _drawn(name: str) -> float:
    """Of a name a number from 0 to 1, any as likely as another."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64


def _splits(rows: list[_Row], share: float) -> list[str]:
    splits = [row.split or ("" if row.labels else TEST) for row in rows]
    open_places = [place for place, split in enumerate(splits) if not split]
    # By the digest, so that a video stays in its split when others are added.
    drawn = {place: _drawn(rows[place].video_id or rows[place].name) for place in open_places}
    chosen = {place for place in open_places if drawn[place] < share}
    if share and len(open_places) > 1 and VALIDATE not in splits:
        # Few videos may all fall on one side; a training needs both.
        order = sorted(open_places, key=drawn.__getitem__)
        chosen = (chosen | {order[0]}) - {order[-1]}
    for place in open_places:
        splits[place] = VALIDATE if place in chosen else TRAIN
    return splits
