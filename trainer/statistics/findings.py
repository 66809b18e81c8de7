"""What a pass over a data set found beside the numbers: bad records, and ids that occur twice."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.statistics.feature_statistics import FeatureStatistics

MOST_NAMED = 100
"""Bad records, and ids that occur twice, that a message or a report names one by one."""


@dataclasses.dataclass(frozen=True, order=True)
class BadRecord:
    """A record that could not be counted.

    Attributes:
        split: of the shard.
        uri: of the shard.
        record: its number in the shard.
        offset: of its first byte.
        reason: what was found and expected.
        lost: records that this costs: more than one where none after it can be found.
    """

    split: str
    uri: str
    record: int
    offset: int
    reason: str
    lost: int = 1

    def __str__(self) -> str:
        more = f" ({self.lost:,} records are lost)" if self.lost != 1 else ""
        return f"{self.uri}: record {self.record} (at byte {self.offset:,}): {self.reason}{more}"

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of_json(cls, line: str) -> BadRecord:
        return cls(**json.loads(line))


@dataclasses.dataclass(frozen=True)
class BadRecords:
    """All of a pass.

    Attributes:
        lost: by split: records that are not counted.
        by_shard: by URI: the same.
        first: the first by split, shard and number, at most `MOST_NAMED`.
    """

    lost: dict[str, int] = dataclasses.field(default_factory=dict)
    by_shard: dict[str, int] = dataclasses.field(default_factory=dict)
    first: tuple[BadRecord, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.lost.values())

    @classmethod
    def of(cls, found: Iterable[BadRecord]) -> BadRecords:
        """Of any number of them, in memory for `MOST_NAMED` alone."""
        lost: dict[str, int] = {}
        by_shard: dict[str, int] = {}
        first: list[BadRecord] = []
        for one in found:
            lost[one.split] = lost.get(one.split, 0) + one.lost
            by_shard[one.uri] = by_shard.get(one.uri, 0) + one.lost
            first.append(one)
            if len(first) > 2 * MOST_NAMED:
                first = sorted(first)[:MOST_NAMED]
        return cls(dict(sorted(lost.items())), by_shard, tuple(sorted(first)[:MOST_NAMED]))


@dataclasses.dataclass(frozen=True)
class IdBlock:
    """Ids of records of one shard.

    Attributes:
        split, shard: number of the split in the manifest's order, of the shard in the manifest.
        records: int64 [n], numbers in the shard.
        ids: bytes [n], as text in UTF-8.
    """

    split: int
    shard: int
    records: NDArray[np.int64]
    ids: NDArray[np.bytes_]

    def partitioned(self, partitions: int) -> Iterator[tuple[int, IdBlock]]:
        """By partition, so that the records of one id meet in one place; without empty ids."""
        named = np.flatnonzero(self.ids != b"")
        partition = _digests(self.ids[named]) % np.uint64(partitions)
        for number in np.unique(partition).tolist():
            places = named[partition == number]
            part = IdBlock(self.split, self.shard, self.records[places], self.ids[places])
            yield int(number), part


def _digests(ids: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """FNV-1a of each id (http://www.isthe.com/chongo/tech/comp/fnv/), 64 bits."""
    digests = np.full(len(ids), 0xCBF29CE484222325, np.uint64)
    for column in np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), ids.itemsize).T:
        # The zeros after an id are the array's, which may be wider elsewhere.
        digests = np.where(column == 0, digests, (digests ^ column) * np.uint64(0x100000001B3))
    return digests


@dataclasses.dataclass(frozen=True, order=True)
class Place:
    """Of a record: numbers of its split and shard, and its own in the shard."""

    split: int
    shard: int
    record: int


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Ids that occur more than once.

    Attributes:
        within: by split: records whose id an earlier one of the split has.
        across: by two splits: ids that both have; what is learned of one is known of the other.
        first: by id in ascending order, the places of each; of both at most `MOST_NAMED`.
    """

    within: dict[int, int] = dataclasses.field(default_factory=dict)
    across: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    first: tuple[tuple[bytes, tuple[Place, ...]], ...] = ()

    def to_json(self) -> str:
        """On one line."""
        return json.dumps(
            {
                "within": list(self.within.items()),
                "across": [[*pair, count] for pair, count in self.across.items()],
                "first": [
                    [name.decode(), [dataclasses.astuple(place) for place in places]]
                    for name, places in self.first
                ],
            }
        )

    @classmethod
    def of_json(cls, line: str) -> Duplicates:
        content = json.loads(line)
        return cls(
            dict(content["within"]),
            {(one, other): count for one, other, count in content["across"]},
            tuple(
                (name.encode(), tuple(Place(*place) for place in places))
                for name, places in content["first"]
            ),
        )

    def merge(self, other: Duplicates) -> Duplicates:
        """Of both, which have no id in common."""
        within, across = dict(self.within), dict(self.across)
        for split, count in other.within.items():
            within[split] = within.get(split, 0) + count
        for pair, count in other.across.items():
            across[pair] = across.get(pair, 0) + count
        first = sorted([*self.first, *other.first])[:MOST_NAMED]
        return Duplicates(dict(sorted(within.items())), dict(sorted(across.items())), tuple(first))


def find_duplicates(blocks: Sequence[IdBlock]) -> Duplicates:
    """Ids that occur more than once in blocks that hold all records of their ids."""
    if not blocks:
        return Duplicates()
    ids = np.concatenate([block.ids for block in blocks])
    places = np.concatenate(
        [
            np.stack(
                [np.full(len(b.records), b.split), np.full(len(b.records), b.shard), b.records],
                axis=1,
            )
            for b in blocks
        ]
    )
    order = np.argsort(ids, kind="stable")
    ids, places = ids[order], places[order]
    starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    ends = np.append(starts[1:], len(ids))
    # How many of its records each id has in each split.
    group = np.repeat(np.arange(len(starts)), ends - starts)
    counts = np.zeros((len(starts), places[:, 0].max() + 1), np.int64)
    np.add.at(counts, (group, places[:, 0]), 1)
    more = np.maximum(counts - 1, 0).sum(axis=0)
    within = {split: int(count) for split, count in enumerate(more.tolist()) if count}
    across = {}
    for one in range(counts.shape[1]):
        for other in range(one + 1, counts.shape[1]):
            if both := int(((counts[:, one] > 0) & (counts[:, other] > 0)).sum()):
                across[one, other] = both
    first = []
    for repeated in np.flatnonzero(ends - starts > 1)[:MOST_NAMED].tolist():
        start, end = int(starts[repeated]), int(ends[repeated])
        here = places[start:end]
        here = here[np.lexsort(here.T[::-1])][:MOST_NAMED]
        first.append((bytes(ids[start]), tuple(Place(*place) for place in here.tolist())))
    return Duplicates(within, across, tuple(first))


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that a pass found.

    Attributes:
        by_split: the numbers.
        counted: by URI of a shard: records that are in them.
        bad: records that are not in them.
        duplicates: of ids.
    """

    by_split: Mapping[str, FeatureStatistics]
    counted: Mapping[str, int]
    bad: BadRecords = BadRecords()
    duplicates: Duplicates = Duplicates()
