"""Records by shard and number, for several threads at once."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from trainer import records, tfrecord
from trainer.errors import InputError
from trainer.manifest import Shard
from trainer.progress import say


class _OpenShard:
    """An open file and where its records stand; closed when nobody uses it any more."""

    def __init__(self, shard: Shard) -> None:
        self.index = tfrecord.index_file(shard.path)
        self.file: BinaryIO = open(shard.path, "rb", buffering=0)  # noqa: SIM115

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


class ShardReader:
    """Reads, parses and checks records of a list of shards in any order.

    Args:
        shards: files, each with the number of records that it must have.
        level, num_classes: of the data.
        tolerance: damaged records that are passed over.
        keep_open: files that stay open with their index.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        level: records.Level,
        num_classes: int,
        tolerance: int = 0,
        keep_open: int = 64,
    ) -> None:
        self.shards, self.level, self.num_classes = shards, level, num_classes
        self.tolerance, self.keep_open = tolerance, keep_open
        self._open: collections.OrderedDict[int, _OpenShard] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._opening = [threading.Lock() for _ in shards]
        self._damaged: set[tuple[int, int]] = set()

    @property
    def damaged(self) -> int:
        """Records that were passed over."""
        return len(self._damaged)

    def read(self, places: NDArray[np.int64]) -> Iterator[records.VideoRecord]:
        """The records at int64 [n, 2] places (shard, record); neighbours are read as one.

        The place of a damaged record, if some are tolerated, is taken by the nearest sound one
        before it in its shard, or after it: so batches keep their size and order.

        Raises:
            InputError: a record that can not be read, has a label out of range or is of another
                level, or a shard that has not the records that the manifest says; the message names
                the file, the record and its offset.
        """
        first = 0
        while first < len(places):
            shard, start = places[first].tolist()
            count = 1
            while (
                first + count < len(places)
                and (places[first + count] == (shard, start + count)).all()
            ):
                count += 1
            yield from self._read_block(shard, start, count)
            first += count

    def _read_block(self, shard: int, start: int, count: int) -> Iterator[records.VideoRecord]:
        done = 0
        while done < count:
            try:
                opened = self._opened(shard)
                if start + done >= len(opened.index):
                    # A new error each time: one that is raised again keeps every frame it passed.
                    lost = opened.index.damage or self._missing(shard, len(opened.index))
                    raise InputError(str(lost))
                for record in tfrecord.read_block(
                    opened.file.fileno(), opened.index, start + done,
                    min(count - done, len(opened.index) - start - done),
                ):  # fmt: skip
                    yield records.parse_checked(record, self.level, self.num_classes)
                    done += 1
            except InputError as error:
                self._tolerate(shard, start + done, error)
                yield self._replacement(shard, start + done, error)
                done += 1

    def _opened(self, shard: int) -> _OpenShard:
        with self._lock:
            if shard in self._open:
                self._open.move_to_end(shard)
                return self._open[shard]
        with self._opening[shard]:  # two threads shall not index the same file
            with self._lock:
                if shard in self._open:
                    return self._open[shard]
            opened = _OpenShard(self.shards[shard])
            expected = self.shards[shard].records
            if len(opened.index) > expected or (
                len(opened.index) < expected and not opened.index.damage
            ):
                raise self._missing(shard, len(opened.index))
            with self._lock:
                self._open[shard] = opened
                while len(self._open) > self.keep_open:
                    self._open.popitem(last=False)
        return opened

    def _missing(self, shard: int, found: int) -> InputError:
        one = self.shards[shard]
        return InputError(
            f"{one.path}: has {found:,} records, the manifest has {one.records:,}: it has changed"
        )

    def _tolerate(self, shard: int, number: int, error: InputError) -> None:
        """Pass over a damaged record, or raise `error`."""
        if not self.tolerance:
            raise error
        with self._lock:
            if (shard, number) in self._damaged:
                return
            found = len(self._damaged) + 1
            if found > self.tolerance:
                raise InputError(
                    f"{error}; damaged records so far: {found}, data.corrupt_records allows "
                    f"{self.tolerance}"
                )
            self._damaged.add((shard, number))
        where = "" if f"record {number} " in str(error) else f" (record {number} is lost)"
        say("train", f"warning: passed over: {error}{where}")

    def _replacement(self, shard: int, number: int, error: InputError) -> records.VideoRecord:
        others = [*range(number - 1, -1, -1), *range(number + 1, self.shards[shard].records)]
        for other in others:
            try:
                opened = self._opened(shard)
                if other < len(opened.index):
                    block = tfrecord.read_block(opened.file.fileno(), opened.index, other, 1)
                    return records.parse_checked(next(block), self.level, self.num_classes)
            except InputError as wrong:
                self._tolerate(shard, other, wrong)
        raise error
