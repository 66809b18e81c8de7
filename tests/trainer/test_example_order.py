import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.example_order import ExampleOrder

COUNTS = st.lists(st.integers(0, 9), max_size=12)
ORDERS = st.builds(
    ExampleOrder, COUNTS, st.integers(0, 2**40), st.integers(1, 14), st.integers(1, 11)
)


def whole(order, epoch=0):
    return [tuple(place) for place in order.locate(epoch, 0, order.examples).tolist()]


def by_hand(counts, seed, epoch, shuffle_shards, read_block):
    """The rule in plain Python: shards in a new order, groups of them, blocks of a group mixed.

    What the generators are made of is part of it: a run that goes on with a later version shall
    see the examples that are left, each one once.
    """
    shards = np.random.default_rng([seed, epoch]).permutation(len(counts)).tolist()
    places = []
    for group, first in enumerate(range(0, len(shards), shuffle_shards)):
        blocks = []
        for shard in shards[first : first + shuffle_shards]:
            rest = [(shard, record) for record in range(counts[shard])]
            while rest:
                blocks.append(rest[:read_block])
                rest = rest[read_block:]
        order = np.random.default_rng([seed, epoch, group + 1]).permutation(len(blocks))
        for i in order.tolist():
            places += blocks[i]
    return places


@settings(max_examples=100, deadline=None)
@given(order=ORDERS, epoch=st.integers(0, 1000))
def test_the_order_is_the_rule_s(order, epoch):
    assert whole(order, epoch) == by_hand(
        order.counts.tolist(), order.seed, epoch, order.shuffle_shards, order.read_block
    )


@settings(max_examples=100, deadline=None)
@given(order=ORDERS, epoch=st.integers(0, 1000))
def test_an_epoch_has_every_example_once(order, epoch):
    every = [(s, r) for s, count in enumerate(order.counts.tolist()) for r in range(count)]
    assert order.examples == len(every)
    assert sorted(whole(order, epoch)) == every


@settings(max_examples=100, deadline=None)
@given(order=ORDERS, epoch=st.integers(0, 5), data=st.data())
def test_any_part_is_that_part_of_the_whole(order, epoch, data):
    """Also by an order that has not seen what is before it, and after another epoch's part."""
    expected = whole(order, epoch)
    fresh = ExampleOrder(order.counts.tolist(), order.seed, order.shuffle_shards, order.read_block)
    for _ in range(4):
        start = data.draw(st.integers(0, order.examples))
        count = data.draw(st.integers(0, order.examples - start))
        found = fresh.locate(epoch, start, count)
        assert found.shape == (count, 2)
        assert found.dtype == np.int64
        assert [tuple(place) for place in found.tolist()] == expected[start : start + count]
        fresh.locate(data.draw(st.integers(0, 5)), 0, order.examples // 2)


@settings(max_examples=60, deadline=None)
@given(order=ORDERS, epoch=st.integers(0, 5))
def test_blocks_stay_together_and_groups_do_not_mix(order, epoch):
    places = whole(order, epoch)
    for (shard, record), (next_shard, next_record) in itertools.pairwise(places):
        if (record + 1) % order.read_block and record + 1 < order.counts[shard]:
            assert (next_shard, next_record) == (shard, record + 1)
        else:
            assert next_record % order.read_block == 0
    # A shard is seen within a stretch in which no more than `shuffle_shards` are.
    found = [shard for shard, _ in places]
    spans = [(found.index(shard), len(found) - found[::-1].index(shard)) for shard in set(found)]
    for first, end in spans:
        assert len(set(found[first:end])) <= order.shuffle_shards


@pytest.mark.parametrize("place", [(-1, 1), (0, 11), (10, 1), (11, 0), (5, -1), (-2, 2)])
def test_what_an_epoch_has_not_is_refused(place):
    with pytest.raises(ValueError, match="expected examples within 10"):
        ExampleOrder([4, 6], 0).locate(0, *place)


def test_seeds_and_epochs_differ():
    orders = [
        tuple(whole(ExampleOrder([20, 20, 20], seed, 2), epoch))
        for seed in range(5)
        for epoch in range(5)
    ]
    assert len(set(orders)) == 25


@pytest.mark.parametrize(
    ("counts", "shuffle_shards", "read_block"),
    [
        ([1, 1, 1], 3, 1),  # all in one group
        ([1, 1, 1], 1, 1),  # each one in a group of its own
        ([5, 5, 5], 3, 5),  # a block a shard
        ([5, 5], 16, 8),
        ([3], 1, 1),
    ],
)
def test_every_order_of_blocks_comes_as_often(counts, shuffle_shards, read_block):
    order = ExampleOrder(counts, 3, shuffle_shards, read_block)
    seen = {}
    for epoch in range(600):
        places = tuple(whole(order, epoch))
        seen[places] = seen.get(places, 0) + 1
    possible = 2 if len(counts) == 2 else 6
    assert len(seen) == possible
    expected = 600 / possible
    assert sum((times - expected) ** 2 / expected for times in seen.values()) < 25


def test_a_returned_part_can_be_changed():
    order = ExampleOrder([4, 4], 1)
    before = whole(order)
    order.locate(0, 0, 8)[:] = -1
    assert whole(order) == before
