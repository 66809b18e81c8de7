"""Confusions against loops over the videos, and cases worked by hand."""

import itertools
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.metrics.mistakes import Mistakes
from trainer.metrics.ranking import rank


def slow_mistakes(scores, labels):
    """What each video misses and what it has in its place, classes in order."""
    for score, label in zip(scores, labels, strict=True):
        own = {c for c in range(len(label)) if label[c]}
        best = set(sorted(range(len(score)), key=lambda c: (-score[c], c))[: len(own)])
        yield sorted(own - best), sorted(best - own)


def slow_confusions(scores, labels):
    """All pairs with their exact counts, the most first."""
    counts = defaultdict(Fraction)
    for missed, wrong in slow_mistakes(scores, labels):
        for pair in itertools.product(missed[:20], wrong[:20]):
            counts[pair] += Fraction(1, len(wrong[:20]))
    return sorted(((*pair, count) for pair, count in counts.items()), key=lambda c: (-c[2], c[:2]))


def accumulated(scores, labels, k=20):
    found = Mistakes(np.shape(scores)[1])
    found.add(rank(np.asarray(scores), np.asarray(labels, bool), k))
    return found


def check(found, expected):
    """The same pairs in the same order, and counts but for rounding."""
    assert [c[:2] for c in found] == [c[:2] for c in expected]
    assert [c.times for c in found] == pytest.approx([float(c[2]) for c in expected])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    videos=st.integers(0, 15),
    classes=st.integers(1, 60),
    density=st.floats(0, 0.7),
    most=st.integers(0, 30),
    k=st.sampled_from([1, 5, 20]),
)
def test_brute_force(seed, videos, classes, density, most, k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-25, 25, (videos, classes)) / 50  # also below 0, and ties
    labels = rng.random((videos, classes)) < density
    found = accumulated(scores, labels, k)
    check(found.confusions(most), slow_confusions(scores, labels)[:most])
    assert found.videos == videos
    mistakes = list(slow_mistakes(scores, labels))
    for c in range(classes):
        assert found.missed_of(c).tolist() == [v for v in range(videos) if c in mistakes[v][0]]
        assert found.wrong_of(c).tolist() == [v for v in range(videos) if c in mistakes[v][1]]


def test_by_hand():
    scores = [[0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.9, 0.8], [0.9, 0.1, 0.3, 0.2]]
    labels = [[0, 0, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0]]
    found = accumulated(scores, labels)
    # Video 0 has 0 for 2; video 1 has 2 and 3 for 0 and 1, a half each; video 2 is right.
    assert found.confusions(9) == [(2, 0, 1), (0, 2, 0.5), (0, 3, 0.5), (1, 2, 0.5), (1, 3, 0.5)]
    assert found.missed_of(0).tolist() == found.missed_of(1).tolist() == [1]
    assert found.missed_of(2).tolist() == [0]
    assert found.wrong_of(0).tolist() == [0]
    assert found.wrong_of(2).tolist() == found.wrong_of(3).tolist() == [1]
    assert len(found.missed_of(3)) == len(found.wrong_of(1)) == 0


def test_equal_counts_go_by_class_also_where_rounding_parts_them():
    assert sum([1 / 6] * 6) < 1, "or the six would be first without rounding"
    scores, labels = np.zeros((7, 14)), np.zeros((7, 14), bool)
    labels[:6, :6], scores[:6, 6:12] = True, 1  # six videos, a sixth each
    labels[6, 12], scores[6, 13] = True, 1
    pairs = [*itertools.product(range(6), range(6, 12)), (12, 13)]
    check(accumulated(scores, labels).confusions(50), [(*pair, 1) for pair in pairs])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), videos=st.integers(1, 12), classes=st.integers(1, 20))
def test_the_counts_add_up_to_the_misses(seed, videos, classes):
    rng = np.random.default_rng(seed)
    found = accumulated(rng.random((videos, classes)), rng.random((videos, classes)) < 0.3)
    pairs = found.confusions(classes**2)
    for c in range(classes):
        count = sum(pair.times for pair in pairs if pair.missed == c)
        assert count == pytest.approx(len(found.missed_of(c)))
        # A wrong prediction stands for as many misses: there are equally many in a video.
        count = sum(pair.times for pair in pairs if pair.predicted == c)
        assert count == pytest.approx(len(found.wrong_of(c)))


def test_of_many_mistakes_of_a_video_the_first_twenty_count():
    scores, labels = np.zeros((2, 60)), np.zeros((2, 60), bool)
    labels[0, :25], scores[0, 30:55] = True, 1
    labels[1, 59], scores[1, 58] = True, 1  # the next video's are not shifted
    found = accumulated(scores, labels)
    pairs = found.confusions(1000)
    assert pairs[0] == (59, 58, 1)
    assert [pair[:2] for pair in pairs[1:]] == list(itertools.product(range(20), range(30, 50)))
    assert {pair.times for pair in pairs[1:]} == {1 / 20}
    assert found.missed_of(24).tolist() == found.wrong_of(54).tolist() == [0], "all are listed"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_any_batching_and_merging_gives_the_same(seed, cuts):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 4, (30, 25)) / 4, rng.random((30, 25)) < 0.2
    whole = accumulated(scores, labels)
    ranges = list(itertools.pairwise([0, *sorted(cuts), 30]))
    batched = Mistakes(25)
    for start, end in ranges:
        # How deep a batch is ranked depends on its labels.
        batched.add(rank(scores[start:end], labels[start:end], 1))
    parts = [accumulated(scores[start:end], labels[start:end]) for start, end in ranges]
    # Neighbours are merged in any order of the merges.
    while len(parts) > 1:
        place = int(rng.integers(len(parts) - 1))
        parts[place].merge(parts.pop(place + 1))
    for found in (batched, parts[0]):
        assert found.videos == 30
        assert found.confusions(50) == whole.confusions(50)
        for c in range(25):
            assert found.missed_of(c).tolist() == whole.missed_of(c).tolist()
            assert found.wrong_of(c).tolist() == whole.wrong_of(c).tolist()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_the_videos_does_not_change_the_confusions(seed):
    rng = np.random.default_rng(seed)
    scores, labels = rng.random((20, 15)), rng.random((20, 15)) < 0.3
    order = rng.permutation(20)
    one, other = accumulated(scores, labels), accumulated(scores[order], labels[order])
    check(other.confusions(400), one.confusions(400))
    for c in range(15):
        assert sorted(order[other.missed_of(c)]) == one.missed_of(c).tolist()


def test_merging_leaves_the_other_as_it_was():
    one = accumulated([[0.9, 0.1], [0.9, 0.1]], [[1, 0], [0, 1]])
    other = accumulated([[0.9, 0.1]], [[0, 1]])
    one.merge(other)
    one.add(rank(np.array([[0.9, 0.1]]), np.array([[False, True]])))
    assert one.missed_of(1).tolist() == one.wrong_of(0).tolist() == [1, 2, 3]
    assert other.missed_of(1).tolist() == other.wrong_of(0).tolist() == [0]
    assert (one.videos, other.videos) == (4, 1)


def test_without_mistakes_there_are_no_confusions():
    assert Mistakes(3).confusions(5) == []
    right = accumulated([[0.9, 0.1, 0.2], [0.1, 0.2, 0.3]], [[1, 0, 1], [0, 0, 0]])
    assert right.confusions(5) == []
    assert right.videos == 2


def test_other_classes_are_not_merged():
    with pytest.raises(ValueError, match="can not merge mistakes of 4 classes into 3"):
        Mistakes(3).merge(Mistakes(4))


def test_another_number_of_classes_is_refused():
    ranked = rank(np.array([[0.1, 0.2, 0.3, 0.9]]), np.array([[True, False, False, False]]))
    with pytest.raises(ValueError, match="expected 3 classes, received 4"):
        Mistakes(3).add(ranked)


def test_groups_are_the_confusions_of_their_classes():
    rng = np.random.default_rng(3)
    scores, labels = rng.random((40, 12)), rng.random((40, 12)) < 0.3
    mistakes = Mistakes(12)
    mistakes.add(rank(scores, labels))
    groups = np.arange(12) % 5
    expected = np.zeros((5, 5))
    for one in mistakes.confusions(10**6):
        expected[groups[one.missed], groups[one.predicted]] += one.times
    np.testing.assert_allclose(mistakes.group_matrix(groups, 5), expected)
    assert (Mistakes(12).group_matrix(groups, 5) == 0).all()
