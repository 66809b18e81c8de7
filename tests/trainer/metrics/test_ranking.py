"""Ranked lists against every order of their ties, and blocks of any size."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.metrics import ranking
from trainer.metrics.ranking import average_precision, class_lists, precision_sums, rank


def exact_sum(entries, most):
    """Mean over all places that the hits of each tie can take; entries (score, hit), best first."""
    ties = [
        [hit for _, hit in tie] for _, tie in itertools.groupby(entries, lambda entry: entry[0])
    ]
    ways = [itertools.combinations(range(len(tie)), sum(tie)) for tie in ties]
    total, number = Fraction(0), 0
    for way in itertools.product(*ways):
        order = [
            place in places
            for tie, places in zip(ties, way, strict=True)
            for place in range(len(tie))
        ]
        found = 0
        for place, hit in enumerate(order[:most], start=1):
            found += hit
            total += Fraction(found, place) if hit else 0
        number += 1
    return total / number


def joined(lists):
    """Lists of (score, hit), each sorted best first, as `precision_sums` takes them."""
    flat = [entry for one in lists for entry in one]
    scores = np.array([score for score, _ in flat], np.float32)
    hits = np.array([hit for _, hit in flat], bool)
    return scores, hits, np.array([len(one) for one in lists], np.int64)


ranked_list = st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=7).map(
    lambda entries: sorted(entries, key=lambda entry: -entry[0])
)


@pytest.mark.parametrize("block", [1, 2, 3, 4, 5, 1 << 20])
@settings(max_examples=30, deadline=None)
@given(
    lists=st.lists(ranked_list, min_size=1, max_size=5),
    most=st.one_of(st.none(), st.integers(0, 8)),
)
def test_each_list_has_the_mean_over_all_orders_of_its_ties(block, lists, most):
    expected = [float(exact_sum(one, most)) for one in lists]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_BLOCK", block)
        assert precision_sums(*joined(lists), most) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    most=st.one_of(st.none(), st.integers(1, 50)),
    block=st.integers(1, 60),
)
def test_without_ties_it_is_the_loop_over_ranks(seed, lengths, most, block):
    rng = np.random.default_rng(seed)
    lists = [-np.sort(-rng.permutation(n)) for n in lengths]
    hits = [rng.random(n) < 0.4 for n in lengths]
    expected = []
    for one in hits:
        found = total = 0
        for place, hit in enumerate(one[:most], start=1):
            found += hit
            total += hit * found / place
        expected.append(total)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_BLOCK", block)
        sums = precision_sums(np.concatenate(lists), np.concatenate(hits), np.array(lengths), most)
    assert sums == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    levels=st.integers(1, 30),
    block=st.integers(1, 150),
    most=st.one_of(st.none(), st.integers(1, 120)),
)
def test_long_ties_do_not_depend_on_the_block(seed, levels, block, most):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 100, 5)
    scores = np.concatenate([-np.sort(-rng.integers(0, levels, n)) for n in lengths])
    hits = rng.random(len(scores)) < 0.3
    whole = precision_sums(scores, hits, lengths, most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_BLOCK", block)
        assert precision_sums(scores, hits, lengths, most) == pytest.approx(whole, abs=1e-9)


def test_a_tie_that_is_cut_counts_the_places_before_the_cut():
    # One hit at one of three places: 1/3 · (1/1 + 1/2 + 1/3), as far as the cut.
    scores, hits, lengths = np.ones(3), np.array([False, False, True]), np.array([3])
    sums = [precision_sums(scores, hits, lengths, most)[0] for most in (0, 1, 2, 3, None)]
    assert sums == pytest.approx([0, 1 / 3, 1 / 2, 11 / 18, 11 / 18])


def test_equal_scores_of_neighbour_lists_do_not_tie():
    # Each list is one hit at its first place, whatever the list before it ends with.
    scores, hits = np.ones(3), np.array([True, False, True])
    assert precision_sums(scores, hits, np.array([1, 1, 1])).tolist() == [1, 0, 1]
    assert precision_sums(scores, hits, np.array([3])) == pytest.approx(
        [(1 + 3 / 4 + 2 / 3) * 2 / 3]
    )


def test_empty_lists_sum_to_0_wherever_they_are():
    scores, hits = np.array([3.0, 2, 1]), np.array([False, True, True])
    found = precision_sums(scores, hits, np.array([0, 0, 2, 0, 1, 0]))
    assert found.tolist() == [0, 0, 1 / 2, 0, 1, 0]
    nothing = precision_sums(np.zeros(0), np.zeros(0, bool), np.array([0, 0]))
    assert nothing.tolist() == [0, 0]
    assert len(precision_sums(np.zeros(0), np.zeros(0, bool), np.zeros(0, np.int64))) == 0


@settings(max_examples=40, deadline=None)
@given(
    entries=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12),
    seed=st.integers(0, 10**6),
)
def test_average_precision_has_the_same_bits_for_any_order(entries, seed):
    order = np.random.default_rng(seed).permutation(len(entries))
    scores, hits, _ = joined([entries])
    one = average_precision(scores, hits, 5)
    assert one == average_precision(scores[order], hits[order], 5)
    best_first = sorted(entries, key=lambda entry: -entry[0])
    assert one == pytest.approx(float(exact_sum(best_first, None)) / 5, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(0, 40),
    # Above 65,536 classes another way of sorting is taken.
    num_classes=st.sampled_from([1, 5, 1 << 16, (1 << 16) + 1, 100_000]),
)
def test_class_lists_are_sorted_by_class_then_score(seed, size, num_classes):
    rng = np.random.default_rng(seed)
    # The last classes, as they are the ones that too few bits would mix with others.
    classes = (num_classes - 1 - rng.integers(0, 2, size) * rng.integers(0, num_classes, size)) % (
        num_classes
    )
    scores = rng.permutation(size).astype(np.float32)
    order, lengths = class_lists(classes.astype(np.int32), scores, num_classes)
    assert order.tolist() == sorted(range(size), key=lambda i: (classes[i], -scores[i]))
    assert lengths.shape == (num_classes,)
    assert lengths.sum() == size
    assert all(lengths[c] == (classes == c).sum() for c in set(classes.tolist()))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    videos=st.integers(0, 6),
    classes=st.integers(1, 12),
    k=st.integers(1, 14),
)
def test_rank_looks_as_deep_as_k_and_the_most_labels(seed, videos, classes, k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 5, (videos, classes)) / 4  # many ties
    labels = rng.random((videos, classes)) < rng.random()
    ranked = rank(scores, labels, k)
    deep = min(classes, max(k, *(int(row.sum()) for row in labels), 0))
    assert ranked.classes.shape == (videos, deep)
    for v in range(videos):
        order = sorted(range(classes), key=lambda c: (-scores[v, c], c))[:deep]
        assert ranked.classes[v].tolist() == order
        assert ranked.scores[v].tolist() == [scores[v, c] for c in order]
        assert ranked.hits[v].tolist() == [labels[v, c] for c in order]
        assert ranked.counts[v] == labels[v].sum()
        assert ranked.within[v].tolist() == [place < labels[v].sum() for place in range(deep)]


def test_rank_by_hand():
    labels = np.array([[True, True, True, False], [False, False, False, True]])
    ranked = rank(np.array([[0.1, 0.9, 0.4, 0.4], [0.2, 0.2, 0.7, 0.2]]), labels, k=1)
    assert ranked.classes.tolist() == [[1, 2, 3], [2, 0, 1]]
    assert ranked.hits.tolist() == [[True, True, False], [False, False, False]]
    assert ranked.within.tolist() == [[True, True, True], [True, False, False]]


def test_scores_of_answers_that_tell_the_best_classes_alone():
    dense = ranking.dense_scores([[2, 0], [1, 3]], [[0.5, 0.25], [0.75, 0.125]], 4)
    assert dense.dtype == np.float32
    assert dense.tolist() == [[0.25, 0, 0.5, 0], [0, 0.75, 0, 0.125]]
