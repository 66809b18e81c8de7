import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.statistics import labels as module
from trainer.statistics.labels import LabelCounts

VIDEOS = st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=8)


def counts_of(videos, num_classes=7):
    counts = LabelCounts(num_classes)
    rows = np.repeat(np.arange(len(videos)), [len(video) for video in videos])
    flat = np.array([label for video in videos for label in video], np.int64)
    counts.add(flat, rows.astype(np.int64), len(videos))
    return counts


def slowly(videos):
    classes, each, pairs = np.zeros(7, int), np.zeros(65, int), {}
    for video in videos:
        unique = sorted(set(video))
        classes[unique] += 1
        each[len(unique)] += 1
        for pair in itertools.combinations(unique, 2):
            pairs[pair] = pairs.get(pair, 0) + 1
    return classes, each, pairs


def as_dict(counts):
    return {
        tuple(pair): n for pair, n in zip(*(part.tolist() for part in counts.pairs()), strict=True)
    }


@settings(deadline=None)
@given(videos=VIDEOS, more=VIDEOS, pending=st.sampled_from([0, 3, 1 << 20]),
       waiting=st.sampled_from([1, 3, 1 << 20]))  # fmt: skip
def test_classes_and_pairs(videos, more, pending, waiting):
    """A class that a record names twice counts once; whatever waits to be sorted in."""
    before = module._PAIRS, module._VIDEOS
    module._PAIRS, module._VIDEOS = pending, waiting
    try:
        counts = counts_of(videos)
        counts.merge(counts_of(more))
        classes, each, pairs = slowly(videos + more)
        np.testing.assert_array_equal(counts.classes, classes)
        np.testing.assert_array_equal(counts.labels_a_video, each)
        assert as_dict(counts) == pairs
    finally:
        module._PAIRS, module._VIDEOS = before


def test_the_most_frequent_pairs_come_first():
    found = counts_of([[0, 1], [5, 2], [2, 5, 0], [1]]).pairs()
    assert found[0].tolist() == [[2, 5], [0, 1], [0, 2], [0, 5]]
    assert found[1].tolist() == [2, 1, 1, 1]


def test_many_labels_share_a_bin():
    counts = counts_of([list(range(70)), list(range(64))], num_classes=80)
    assert counts.labels_a_video[64] == 2
    assert counts.classes[63] == 2
    assert len(counts.pairs()[0]) == 70 * 69 // 2
