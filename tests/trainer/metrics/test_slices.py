"""Parts of the data against loops over their predictions."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.metrics import MetricsAccumulator
from trainer.metrics.slices import Slice, bounds_named, by_classes, by_videos


def random_case(seed, videos, classes):
    """Scores without ties, and labels."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(videos * classes).reshape(videos, classes).astype(np.float32)
    return scores, rng.random((videos, classes)) < rng.random() / 2


def accumulated(scores, labels, k=20):
    metrics = MetricsAccumulator(np.shape(scores)[1], k)
    metrics.add(scores, labels)
    return metrics


def slow_gap(scores, labels, k, in_part):
    """GAP of the pairs (video, class) of a part; None without labels."""
    videos, classes = scores.shape
    pooled = []
    for v in range(videos):
        best = sorted(range(classes), key=lambda c: -scores[v, c])[:k]
        pooled += [(scores[v, c], labels[v, c]) for c in best if in_part(v, c)]
    found = total = 0
    for place, (_, hit) in enumerate(sorted(pooled, reverse=True), start=1):
        found += hit
        total += hit * found / place
    positives = sum(labels[v, c] for v in range(videos) for c in range(classes) if in_part(v, c))
    return total / positives if positives else None


def check(found, scores, labels, chosen, k, in_part):
    """Of a part of pairs: everything but what only the labels within the top k tell."""
    part = np.where(chosen, labels, False)
    assert found.positives == part.sum()
    expected = slow_gap(scores, labels, k, in_part)
    assert found.gap == (None if expected is None else pytest.approx(expected, abs=1e-9))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    videos=st.integers(1, 15),
    classes=st.integers(1, 12),
    k=st.integers(1, 12),
)
def test_parts_of_the_videos_by_brute_force(seed, videos, classes, k):
    scores, labels = random_case(seed, videos, classes)
    mask = np.random.default_rng(seed).random(videos) < 0.5
    metrics = accumulated(scores, labels, k)
    found = by_videos(metrics, "half", [("one", mask), ("other", ~mask)])
    parts = [(name, chosen) for name, chosen in (("one", mask), ("other", ~mask)) if chosen.any()]
    assert [(part.group, part.name) for part in found] == [("half", name) for name, _ in parts]
    for part, (_, chosen) in zip(found, parts, strict=True):
        check(part, scores, labels, chosen[:, None], k, lambda v, c, own=chosen: own[v])
        assert part.videos == chosen.sum()
        if k >= classes:
            assert part.classes == labels[chosen].any(axis=0).sum()


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    videos=st.integers(1, 15),
    classes=st.integers(1, 12),
    k=st.integers(1, 12),
)
def test_parts_of_the_classes_by_brute_force(seed, videos, classes, k):
    scores, labels = random_case(seed, videos, classes)
    mask = np.random.default_rng(seed).random(classes) < 0.5
    metrics = accumulated(scores, labels, k)
    found = by_classes(metrics, "half", [("one", mask), ("other", ~mask)])
    parts = [(name, chosen) for name, chosen in (("one", mask), ("other", ~mask)) if chosen.any()]
    assert [(part.group, part.name) for part in found] == [("half", name) for name, _ in parts]
    for part, (_, chosen) in zip(found, parts, strict=True):
        check(part, scores, labels, chosen[None], k, lambda v, c, own=chosen: own[c])
        assert part.classes == chosen.sum()
        if k >= classes:
            assert part.videos == labels[:, chosen].any(axis=1).sum()


def test_by_hand():
    scores = [[0.9, 0.5, 0.1], [0.2, 0.6, 0.8], [0.3, 0.7, 0.4]]
    labels = [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    metrics = accumulated(scores, labels)
    first = np.array([True, False, False])
    one, rest = by_videos(metrics, "videos", [("first", first), ("rest", ~first)])
    assert one == Slice("videos", "first", 1, 1, 1, 1)
    # .8, .7, .6 hit (1/3), .4, .3, .2 hit (2/6)
    assert rest[:5] == ("videos", "rest", 2, 2, 2)
    assert rest.gap == pytest.approx((1 / 3 + 2 / 6) / 2)
    one, rest = by_classes(metrics, "classes", [("first", first), ("rest", ~first)])
    # .9 hit (1/1), .3, .2 hit (2/3); then .8, .7, .6 hit (1/3), .5, .4, .1
    assert one[:5] == ("classes", "first", 2, 1, 2)
    assert one.gap == pytest.approx((1 + 2 / 3) / 2)
    assert rest[:5] == ("classes", "rest", 1, 2, 1)
    assert rest.gap == pytest.approx(1 / 3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 8))
def test_the_part_that_is_everything_has_the_gap_of_all(seed, k):
    rng = np.random.default_rng(seed)
    labels = rng.random((20, 8)) < 0.3
    labels[0, 0] = True
    metrics = accumulated(rng.integers(0, 4, (20, 8)) / 4, labels, k)  # many ties
    (all_videos,) = by_videos(metrics, "all", [("all", np.ones(20, bool))])
    (all_classes,) = by_classes(metrics, "all", [("all", np.ones(8, bool))])
    assert all_videos.gap == all_classes.gap == metrics.gap()
    assert all_videos.positives == all_classes.positives == labels.sum()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 20), max_size=4))
def test_any_batching_gives_the_same_parts(seed, cuts):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 4, (20, 8)) / 4, rng.random((20, 8)) < 0.2
    merged = MetricsAccumulator(8, 3)
    for start, end in itertools.pairwise([0, *sorted(cuts), 20]):
        merged.merge(accumulated(scores[start:end], labels[start:end], 3))
    whole = accumulated(scores, labels, 3)
    videos = [("some", rng.random(20) < 0.5), ("more", rng.random(20) < 0.8)]
    classes = [("some", rng.random(8) < 0.5), ("more", rng.random(8) < 0.8)]
    assert by_videos(merged, "v", videos) == by_videos(whole, "v", videos)
    assert by_classes(merged, "c", classes) == by_classes(whole, "c", classes)


def test_empty_parts_are_left_out_and_the_order_stays():
    metrics = accumulated(*random_case(1, 4, 4))
    none, some, every = np.zeros(4, bool), np.arange(4) < 2, np.ones(4, bool)
    for parted in (by_videos, by_classes):
        found = parted(metrics, "group", [("b", some), ("empty", none), ("a", every)])
        assert [part.name for part in found] == ["b", "a"]
        assert parted(metrics, "group", []) == []


def test_without_labels_there_is_no_gap_and_without_hits_it_is_0():
    # The label of the second video is not its best class, and only that one counts.
    metrics = accumulated([[0.9, 0.1], [0.9, 0.1]], [[0, 0], [0, 1]], k=1)
    parts = [("first", np.array([True, False])), ("second", np.array([False, True]))]
    assert [part.gap for part in by_videos(metrics, "videos", parts)] == [None, 0]
    assert [part.positives for part in by_videos(metrics, "videos", parts)] == [0, 1]
    # Of the second class there is not even a prediction.
    assert [part.gap for part in by_classes(metrics, "classes", parts)] == [None, 0]
    assert [part.positives for part in by_classes(metrics, "classes", parts)] == [0, 1]


def test_bounds_are_named_by_what_lies_between():
    parts = bounds_named([1, 10, 11, 1_000, 20_000], "videos")
    assert [name for _, _, name in parts] == [
        "0 videos",
        "1–9 videos",
        "10 videos",
        "11–999 videos",
        "1,000–19,999 videos",
        "20,000 videos or more",
    ]


@settings(max_examples=40, deadline=None)
@given(
    bounds=st.lists(st.integers(1, 50), unique=True, max_size=6).map(sorted),
    count=st.integers(0, 60),
)
def test_each_count_is_in_one_part(bounds, count):
    parts = bounds_named(bounds, "videos")
    assert len(parts) == len(bounds) + 1
    inside = [place for place, (low, high, _) in enumerate(parts) if low <= count < high]
    assert inside == [sum(bound <= count for bound in bounds)]
