import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.statistics.findings import (
    MOST_NAMED,
    BadRecord,
    BadRecords,
    Duplicates,
    IdBlock,
    find_duplicates,
)


def blocks_of(records):
    """A block for each split and shard: (split, shard, number, id)."""
    by_place = {}
    for split, shard, number, video_id in records:
        by_place.setdefault((split, shard), []).append((number, video_id))
    return [
        IdBlock(split, shard, np.array([n for n, _ in content], np.int64),
                np.array([i for _, i in content], np.bytes_))
        for (split, shard), content in by_place.items()
    ]  # fmt: skip


@settings(deadline=None)
@given(ids=st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcdé")), max_size=30))
def test_ids_that_occur_twice(ids):
    """Against a dictionary; however they are spread over partitions."""
    records = [(split, split, n, i.encode()) for n, (split, i) in enumerate(ids)]
    by_id = {}
    for split, _, _, video_id in records:
        by_id.setdefault(video_id, []).append(split)
    within, across = {}, {}
    for splits in by_id.values():
        for split in set(splits):
            if splits.count(split) > 1:
                within[split] = within.get(split, 0) + splits.count(split) - 1
        for one in set(splits):
            for other in set(splits):
                if one < other:
                    across[one, other] = across.get((one, other), 0) + 1
    found = find_duplicates(blocks_of(records))
    assert found.within == within
    assert found.across == across
    assert [name for name, _ in found.first] == sorted(i for i, s in by_id.items() if len(s) > 1)
    for name, places in found.first:
        expected = sorted((split, shard, n) for split, shard, n, i in records if i == name)
        assert [(place.split, place.shard, place.record) for place in places] == expected
    halves = [
        find_duplicates(blocks_of([one for one in records if (one[3] < b"c") == low]))
        for low in (True, False)
    ]
    assert halves[0].merge(halves[1]) == found
    assert Duplicates.of_json(found.to_json()) == found


@settings(deadline=None)
@given(
    ids=st.lists(st.binary(max_size=9).filter(lambda i: not i.endswith(b"\0")), max_size=30),
    partitions=st.integers(1, 5),
)
def test_ids_by_partition(ids, partitions):
    """Each record with an id once, in the order of the file; an id's partition is its own."""
    (block,) = blocks_of([(1, 7, 2 * n, i) for n, i in enumerate(ids)]) or [None]
    if block is None:
        return
    parts = list(block.partitioned(partitions))
    assert all((part.split, part.shard) == (1, 7) for _, part in parts)
    found = [
        (number, name)
        for _, part in parts
        for number, name in zip(part.records.tolist(), part.ids.tolist(), strict=True)
    ]
    assert sorted(found) == [(2 * n, name) for n, name in enumerate(ids) if name]
    assert all(part.records.tolist() == sorted(part.records.tolist()) for _, part in parts)
    assert [number for number, _ in parts] == sorted({number for number, _ in parts})
    # However wide the array is that they stand in.
    wide = {
        name: number
        for name in filter(None, ids)
        for number, _ in blocks_of([(0, 0, 0, name), (0, 0, 1, b"")])[0].partitioned(partitions)
    }
    assert {name: number for number, part in parts for name in part.ids.tolist()} == wide


def test_ids_are_spread_over_partitions():
    ids = [(0, 0, n, f"{n:04x}".encode()) for n in range(4000)]
    sizes = [len(part.ids) for _, part in blocks_of(ids)[0].partitioned(4)]
    assert len(sizes) == 4
    assert min(sizes) > 800


def test_only_the_first_are_named():
    records = [(0, 0, n, f"{n // 2:04}".encode()) for n in range(4 * MOST_NAMED)]
    found = find_duplicates(blocks_of(records))
    assert found.within == {0: 2 * MOST_NAMED}
    assert [name for name, _ in found.first] == [f"{n:04}".encode() for n in range(MOST_NAMED)]


def bad(number, split="train", lost=1):
    return BadRecord(split, "/shard", number, 10 * number, "damaged", lost)


def test_bad_records_are_counted_and_the_first_kept():
    records = [bad(n) for n in range(500, 0, -1)] + [bad(3, "validate", lost=7)]
    found = BadRecords.of(records)
    assert found.lost == {"train": 500, "validate": 7}
    assert found.total == 507
    assert [one.record for one in found.first] == list(range(1, MOST_NAMED + 1))
    assert BadRecord.of_json(records[-1].to_json()) == records[-1]
    assert str(records[-1]) == "/shard: record 3 (at byte 30): damaged (7 records are lost)"
    assert str(bad(2)) == "/shard: record 2 (at byte 20): damaged"


def test_an_id_of_every_record_is_named_with_its_first_places():
    found = find_duplicates(blocks_of([(0, n % 3, n, b"same") for n in range(3 * MOST_NAMED)]))
    ((name, places),) = found.first
    assert name == b"same"
    assert [(p.shard, p.record) for p in places] == [(0, 3 * n) for n in range(MOST_NAMED)]
    assert found.within == {0: 3 * MOST_NAMED - 1}
