"""Metrics of rated segments against loops over pairs, and cases worked by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.metrics.segments import MOST, SegmentAccumulator


def slow_metrics(scores, labels, rated, most):
    """Loops over the pairs of each class, straight from the definition; no ties."""

    def ap(pairs, most):
        found = total = 0
        for place, (_, hit) in enumerate(sorted(pairs, reverse=True)[:most], start=1):
            found += hit
            total += hit * found / place
        return total / min(sum(hit for _, hit in pairs), most)

    by_class = [
        [(scores[s, c], labels[s, c]) for s in range(len(scores)) if rated[s, c]]
        for c in range(scores.shape[1])
    ]
    everything = [pair for pairs in by_class for pair in pairs]
    present = [pairs for pairs in by_class if any(hit for _, hit in pairs)]
    return {
        "map": sum(ap(pairs, most) for pairs in present) / len(present),
        "ap": ap(everything, len(everything)),
        "classes": len(present),
        "pairs": len(everything),
        "positives": sum(hit for _, hit in everything),
    }


def random_case(seed, segments, classes, share):
    rng = np.random.default_rng(seed)
    scores = rng.permutation(segments * classes).reshape(segments, classes).astype(np.float32)
    labels = (rng.random((segments, classes)) < 0.5).astype(int)
    rated = rng.random((segments, classes)) < share
    labels[0, 0] = rated[0, 0] = 1
    return scores, labels, rated


def accumulated(scores, labels, rated, most=MOST):
    found = SegmentAccumulator(np.shape(scores)[1], most)
    found.add(scores, labels, rated)
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    segments=st.integers(1, 25),
    classes=st.integers(1, 8),
    share=st.floats(0, 1),
    most=st.sampled_from([1, 2, 3, 5, 10, MOST]),
)
def test_brute_force(seed, segments, classes, share, most):
    case = random_case(seed, segments, classes, share)
    result = accumulated(*case, most).result()._asdict()
    assert result == pytest.approx(slow_metrics(*case, most), abs=1e-9)


def test_by_hand():
    scores = [[0.9, 0.3], [0.8, 0.6], [0.4, 0.5], [0.7, 0.1]]
    labels = [[1, 1], [0, 0], [1, 0], [1, 1]]
    rated = [[1, 1], [1, 1], [1, 0], [0, 0]]
    result = accumulated(scores, labels, rated).result()
    # Class 0: .9 hit (1/1), .8, .4 hit (2/3). Class 1: .6, .3 hit (1/2).
    assert result.map == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    # All: .9 hit (1/1), .8, .6, .4 hit (2/4), .3 hit (3/5).
    assert result.ap == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)
    assert result[2:] == (2, 5, 3)


def test_a_class_counts_its_first_segments_alone():
    # Hits at places 1, 3 and 4; of two places, one hit of the two that could have been.
    accumulator = accumulated(
        [[0.9], [0.8], [0.7], [0.6]], [[1], [0], [1], [1]], np.ones((4, 1)), 2
    )
    assert accumulator.class_average_precision().tolist() == [1 / 2]
    # With fewer positives than places, the positives are what could have been found.
    accumulator = accumulated(
        [[0.9], [0.8], [0.7], [0.6]], [[0], [1], [0], [0]], np.ones((4, 1)), 3
    )
    assert accumulator.class_average_precision().tolist() == [1 / 2]


def test_the_one_list_of_all_pairs_is_not_cut():
    scores, ones = [[0.9], [0.8], [0.7]], np.ones((3, 1))
    result = accumulated(scores, ones, ones, most=1).result()
    assert (result.map, result.ap) == (1, 1), "a list that was cut would have 1/3"


def test_a_tie_at_the_last_place_that_counts_is_chance():
    # Three tie for two places, one is a hit: 1/3 · (1/1 + 1/2).
    accumulator = accumulated(np.ones((3, 1)), [[0], [0], [1]], np.ones((3, 1)), most=2)
    assert accumulator.class_average_precision() == pytest.approx([1 / 2])


def test_what_was_not_rated_does_not_count():
    scores, labels = [[0.5, np.nan], [0.4, 0.99]], [[1, 1], [0, 1]]
    accumulator = accumulated(scores, labels, [[1, 0], [1, 0]])
    assert accumulator.result() == (1, 1, 1, 2, 1)
    assert accumulator.positives.tolist() == [1, 0]
    assert np.isnan(accumulator.class_average_precision()).tolist() == [False, True]


def test_a_class_that_was_only_rated_as_absent_is_not_in_the_mean():
    accumulator = accumulated([[0.1, 0.9]], [[1, 0]], [[1, 1]])
    assert accumulator.result().map == 1
    # It is in the one list of all pairs, above the hit.
    assert accumulator.result().ap == 1 / 2


def test_a_rating_of_minus_1_is_none():
    accumulator = accumulated([[0.1, 0.9]], [[1, -1]], [[1, -1]])
    assert accumulator.result() == (1, 1, 1, 1, 1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    most=st.sampled_from([2, 7, MOST]),
)
def test_any_batching_any_merging_and_ties_give_the_same_bits(seed, cuts, most):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (30, 6)) / 4  # many ties
    labels, rated = rng.random((2, 30, 6)) < 0.5
    labels[0, 0] = rated[0, 0] = True
    case = scores, labels, rated
    whole = accumulated(*case, most)
    parts = [
        accumulated(*(array[start:end] for array in case), most)
        for start, end in itertools.pairwise([0, *sorted(cuts), 30])
    ]
    rng.shuffle(parts)
    while len(parts) > 2:  # a worker that has merged others is merged itself
        parts[-2].merge(parts.pop())
    merged = SegmentAccumulator(6, most)
    for part in parts:
        merged.merge(part)
    assert merged.result() == whole.result()
    rows = [part.arrays() for part in parts]
    one = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    assert SegmentAccumulator.of_arrays(6, one, most).result() == whole.result()


def test_merging_leaves_the_other_as_it_was():
    one, other = (accumulated(*random_case(seed, 9, 4, 0.5)) for seed in (1, 2))
    other.add(*random_case(3, 5, 4, 0.5))
    alone, pairs = other.result(), one.result().pairs
    one.merge(other)
    assert one.result().pairs == pairs + alone.pairs
    one.add(np.ones((1, 4)), np.ones((1, 4)), np.ones((1, 4)))
    assert other.result() == alone


def test_a_pair_takes_9_bytes():
    accumulator = accumulated(np.ones((50, 3), np.float32), np.ones((50, 3), int), np.ones((50, 3)))
    assert sum(array.nbytes for array in accumulator.arrays().values()) == 9 * 150


def test_a_later_change_of_the_batch_changes_nothing():
    scores, labels, rated = random_case(4, 9, 4, 1)
    accumulator = accumulated(scores, labels, rated)
    before = accumulator.result()
    scores[:], labels[:], rated[:] = 0, 0, 0
    assert accumulator.result() == before


def test_nothing_added_has_no_average_precision():
    assert np.isnan(SegmentAccumulator(3).class_average_precision()).all()
    assert SegmentAccumulator(3).positives.tolist() == [0, 0, 0]


def test_what_can_not_be_scored_is_said():
    accumulator = SegmentAccumulator(3)
    fit = np.zeros((2, 3))
    for wrong in range(3):
        batch = [np.zeros((2, 4)) if place == wrong else fit for place in range(3)]
        with pytest.raises(ValueError, match=r"expected .* of shape \[B, 3\].*\(2, 4\)"):
            accumulator.add(*batch)
    with pytest.raises(ValueError, match=r"shape \[B, 3\].*\(3,\), \(3,\), \(3,\)"):
        accumulator.add(fit[0], fit[0], fit[0])
    with pytest.raises(ValueError, match=r"shape \[B, 3\].*\(2, 4\), \(2, 4\), \(2, 4\)"):
        accumulator.add(*np.zeros((3, 2, 4)))
    with pytest.raises(ValueError, match="score of row 1 is NaN"):
        accumulator.add([[0, 0, 0], [0, np.nan, 0]], fit, np.ones((2, 3)))
    assert len(accumulator.arrays()["hits"]) == 0, "what is refused is not added"
    with pytest.raises(ValueError, match="none of 0 rated pairs is a positive"):
        accumulator.result()
    accumulator.add(fit, fit, np.ones((2, 3)))
    with pytest.raises(ValueError, match="none of 6 rated pairs is a positive"):
        accumulator.result()


def test_only_equal_kinds_are_merged():
    with pytest.raises(ValueError, match="can not merge segments of 4 classes, 100000 of each"):
        SegmentAccumulator(3).merge(SegmentAccumulator(4))
    with pytest.raises(ValueError, match="5 of each, into 3 classes, 100000 of each"):
        SegmentAccumulator(3).merge(SegmentAccumulator(3, 5))
