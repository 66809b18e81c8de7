"""The order in which training sees the examples: a function of seed and epoch, from any place on.

Nothing of it is state. Shards are permuted anew every epoch and taken in groups; within a group all
records are permuted. So an epoch can be entered anywhere by reckoning one group, and a shuffle over
many shards holds no record in memory: records are read one by one where they stand.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class ExampleOrder:
    """Where the n-th example of an epoch stands.

    Args:
        counts: records of each shard.
        seed: of the order.
        shuffle_shards: shards whose records are permuted together.
        read_block: consecutive records that stay together.
    """

    def __init__(
        self, counts: Sequence[int], seed: int, shuffle_shards: int = 16, read_block: int = 1
    ) -> None:
        self.counts = np.array(counts, np.int64)
        self.seed = seed
        self.shuffle_shards = shuffle_shards
        self.read_block = read_block
        self._shards_of = functools.lru_cache(2)(self._permuted_shards)
        # A batch can lie across two groups, and readers are a few batches ahead.
        self._group_of = functools.lru_cache(4)(self._permuted_group)

    @property
    def examples(self) -> int:
        """Of one epoch."""
        return int(self.counts.sum())

    def locate(self, epoch: int, start: int, count: int) -> NDArray[np.int64]:
        """int64 [count, 2]: shard and record of the examples from the `start`-th of an epoch on.

        Raises:
            ValueError: the epoch has not as many.
        """
        if not 0 <= start <= start + count <= self.examples:
            raise ValueError(
                f"expected examples within {self.examples}, received {start} and {count} more"
            )
        _, group_starts = self._shards_of(epoch)
        parts = [np.empty((0, 2), np.int64)]
        while count:
            group = int(np.searchsorted(group_starts, start, side="right")) - 1
            within = start - int(group_starts[group])
            part = self._group_of(epoch, group)[within : within + count]
            parts.append(part)
            start += len(part)
            count -= len(part)
        return np.concatenate(parts)

    def _permuted_shards(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Shards in the order of an epoch, and the first example of each group."""
        shards = np.random.default_rng([self.seed, epoch]).permutation(len(self.counts))
        sizes = np.add.reduceat(
            self.counts[shards], np.arange(0, len(shards), self.shuffle_shards), dtype=np.int64
        )
        return shards, np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def _permuted_group(self, epoch: int, group: int) -> NDArray[np.int64]:
        """int64 [n, 2]: shard and record of every example of a group."""
        shards, _ = self._shards_of(epoch)
        members = shards[group * self.shuffle_shards : (group + 1) * self.shuffle_shards]
        blocks = -(-self.counts[members] // self.read_block)
        shard = np.repeat(members, blocks)
        block_in_shard = np.arange(blocks.sum()) - np.repeat(np.cumsum(blocks) - blocks, blocks)
        # From 1: a seed sequence takes what is not there for 0, and group 0 would be in the same
        # order as the shards.
        order = np.random.default_rng([self.seed, epoch, group + 1]).permutation(len(shard))
        shard, first = shard[order], block_in_shard[order] * self.read_block
        size = np.minimum(self.read_block, self.counts[shard] - first)
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        return np.stack([np.repeat(shard, size), np.repeat(first, size) + within], axis=1)
