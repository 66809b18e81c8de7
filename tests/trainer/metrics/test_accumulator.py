"""Metrics against brute force from the definitions, and cases worked by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.metrics import MetricsAccumulator, average_precision, evaluate, top_k


def slow_metrics(scores, labels, k=20):
    """Loops over videos, classes and ranks, straight from the definitions; no ties."""
    videos, classes = scores.shape
    pooled, by_class = [], {c: [] for c in range(classes)}
    hit_at_1 = perr = 0.0
    for v in range(videos):
        ranking = sorted(range(classes), key=lambda c: -scores[v, c])
        for c in ranking[:k]:
            pooled.append((scores[v, c], labels[v, c]))
            by_class[c].append((scores[v, c], labels[v, c]))
        hit_at_1 += labels[v, ranking[0]]
        n = int(labels[v].sum())
        if n:
            perr += sum(labels[v, c] for c in ranking[:n] if scores[v, c] > 0) / n

    def ap(pairs, positives):
        total = found = 0.0
        for rank, (_, hit) in enumerate(sorted(pairs, key=lambda pair: -pair[0]), start=1):
            found += hit
            total += hit * found / rank
        return total / positives

    positives = labels.sum(axis=0)
    present = [ap(by_class[c], positives[c]) for c in range(classes) if positives[c]]
    return {
        "gap": ap(pooled, labels.sum()),
        "map": sum(present) / len(present),
        "map_all_classes": sum(present) / classes,
        "hit_at_1": hit_at_1 / videos,
        "perr": perr / videos,
    }


def random_case(seed, videos, classes, density):
    rng = np.random.default_rng(seed)
    # Distinct scores: a permutation, so that float32 keeps them apart.
    scores = rng.permutation(videos * classes).reshape(videos, classes) / (videos * classes)
    labels = (rng.random((videos, classes)) < density).astype(int)
    labels[0, 0] = 1
    return scores.astype(np.float32), labels


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    videos=st.integers(1, 25),
    classes=st.integers(1, 60),
    density=st.floats(0, 0.6),
)
def test_brute_force(seed, videos, classes, density):
    scores, labels = random_case(seed, videos, classes, density)
    result = evaluate(scores, labels)._asdict()
    for name, value in slow_metrics(scores, labels).items():
        assert result[name] == pytest.approx(value, abs=1e-9), name


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_any_batching_any_merging_and_ties_give_the_same_bits(seed, cuts):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (30, 25)) / 4  # many ties
    labels = rng.random((30, 25)) < 0.2
    labels[0, 0] = True
    whole = evaluate(scores, labels)
    bounds = [0, *sorted(cuts), 30]
    parts = []
    for start, end in itertools.pairwise(bounds):
        part = MetricsAccumulator(25)
        part.add(scores[start:end], labels[start:end])
        parts.append(part)
    rng.shuffle(parts)
    merged = MetricsAccumulator(25)
    for part in parts:
        merged.merge(part)
    assert merged.result() == whole


def test_by_hand():
    # Video 1: classes 0 (hit), 1, 2. Video 2: classes 2, 1 (hit), 0 (hit).
    scores = [[0.9, 0.5, 0.1], [0.2, 0.6, 0.8]]
    labels = [[1, 0, 0], [1, 1, 0]]
    result = evaluate(scores, labels)
    # Pooled: .9 hit (1/1), .8, .6 hit (2/3), .5, .2 hit (3/5), .1
    assert result.gap == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    # Class 0: .9 hit, .2 hit: 1. Class 1: .6 hit, .5: 1. Class 2: no positives.
    assert (result.map, result.map_all_classes) == pytest.approx((1, 2 / 3))
    assert result.hit_at_1 == 0.5
    assert result.perr == pytest.approx((1 + 1 / 2) / 2)
    assert (result.videos, result.positives) == (2, 3)


def test_only_the_top_k_count():
    scores = np.linspace(1, 0.1, 30)[None]
    labels = np.zeros((1, 30))
    labels[0, [0, 25]] = 1  # the second one is beyond the top 20
    assert evaluate(scores, labels).gap == pytest.approx(1 / 2)


@settings(max_examples=60, deadline=None)
@given(entries=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_ties_count_as_the_mean_over_all_their_orders(entries):
    scores = np.array([score for score, _ in entries], np.float32)
    hits = np.array([hit for _, hit in entries])
    total = orders = 0
    for order in itertools.permutations(range(len(entries))):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        ranked = hits[list(order)]
        precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
        total, orders = total + (precision * ranked).sum() / 7, orders + 1
    assert average_precision(scores, hits, 7) == pytest.approx(total / orders, abs=1e-12)


def test_a_constant_score_has_the_precision_of_chance():
    labels = np.zeros((4, 30))
    labels[:, 7] = 1
    # 80 pooled places, 4 hits: place i is a hit with 4/80, after 3 (i − 1)/79 others.
    expected = sum((1 + 3 * i / 79) / 20 / (i + 1) for i in range(80)) / 4
    assert evaluate(np.ones((4, 30)), labels).gap == pytest.approx(expected)


def test_the_mean_of_batches_is_another_number():
    scores, labels = random_case(3, 40, 30, 0.1)
    halves = [evaluate(scores[i::2], labels[i::2]).gap for i in (0, 1)]
    assert abs(np.mean(halves) - evaluate(scores, labels).gap) > 1e-3


def test_videos_without_labels_count_as_videos():
    scores, labels = random_case(5, 10, 8, 0.3)
    more = evaluate(np.vstack([scores, scores[:1]]), np.vstack([labels, np.zeros((1, 8))]))
    assert more.videos == 11
    assert more.positives == labels.sum()
    assert more.perr == pytest.approx(evaluate(scores, labels).perr * 10 / 11)


def test_top_k_breaks_ties_by_index():
    assert top_k([[0.5, 0.9, 0.5, 0.5, 0.1]], 3).tolist() == [[1, 0, 2]]
    assert top_k([[0.1, 0.2]], 20).tolist() == [[1, 0]]


def test_average_precision_without_positives_is_0():
    assert average_precision(np.array([0.5]), np.array([False]), 0) == 0


def test_what_can_not_be_scored_is_said():
    accumulator = MetricsAccumulator(3)
    with pytest.raises(ValueError, match=r"expected scores and labels of shape \[B, 3\]"):
        accumulator.add(np.zeros((2, 4)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="row 1 is NaN"):
        accumulator.add([[0, 0, 0], [0, np.nan, 0]], np.zeros((2, 3)))
    with pytest.raises(ValueError, match="no labels in 0 videos"):
        accumulator.result()
    with pytest.raises(ValueError, match="can not merge metrics of 4 classes"):
        accumulator.merge(MetricsAccumulator(4))


@pytest.mark.parametrize("kind", ["<f8", ">f8", "longdouble"])
def test_scores_that_float32_can_not_tell_apart(kind):
    scores = (1 + 1e-9 * np.array([[2, 1, 0]])).astype(kind)
    assert evaluate(scores, [[0, 1, 0]]).gap == pytest.approx(1 / 2)
    tied = evaluate(scores.astype(np.float32), [[0, 1, 0]])
    assert tied.gap == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.float16, bool])
def test_scores_of_any_kind_of_number(kind):
    scores = np.array([[1, 0, 0]]).astype(kind)
    assert evaluate(scores, [[1, 0, 0]]).gap == 1
    assert top_k(scores, 1).tolist() == [[0]]


def test_a_label_is_what_is_above_0():
    scores = [[0.9, 0.8, 0.7]]
    assert evaluate(scores, [[-1, 0.3, 2]]) == evaluate(scores, [[0, 1, 1]])
    with pytest.raises(ValueError, match="label of row 0 is NaN"):
        evaluate(scores, [[np.nan, 1, 0]])


def test_infinite_scores_have_their_place():
    with np.errstate(all="raise"):
        assert evaluate([[np.inf, -np.inf, 0.5]], [[1, 0, 1]]).gap == 1


def test_any_layout_of_the_memory():
    scores, labels = random_case(8, 30, 40, 0.2)
    assert evaluate(np.asfortranarray(scores), labels[:, ::-1][:, ::-1]) == evaluate(scores, labels)


@pytest.mark.parametrize(("classes", "k"), [(0, 20), (3, 0), (3, -1)])
def test_no_class_and_no_prediction_are_refused(classes, k):
    with pytest.raises(ValueError, match="expected a class and k of 1 at least"):
        MetricsAccumulator(classes, k)


def test_scores_of_one_dimension_are_refused():
    with pytest.raises(ValueError, match=r"expected scores of shape \[N, C\], received \(3,\)"):
        evaluate([0.1, 0.2, 0.3], [0, 1, 0])
