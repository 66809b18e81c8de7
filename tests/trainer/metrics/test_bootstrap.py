"""The bootstrap against resamples that are put together video by video."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.metrics import MetricsAccumulator, evaluate
from trainer.metrics.bootstrap import PairedBootstrap, Predictions


def predicted(scores, labels):
    metrics = MetricsAccumulator(scores.shape[1])
    metrics.add(scores, labels)
    return Predictions.of(metrics)


def gap(scores, labels):
    return evaluate(scores, labels).gap if labels.any() else 0.0


def case(seed, videos, classes, levels):
    """Scores of two models with as many different values, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random((videos, classes)) < 0.2
    return [rng.integers(0, levels, (videos, classes)) / levels for _ in range(2)], labels


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    videos=st.integers(1, 12),
    classes=st.integers(1, 30),
    levels=st.sampled_from([1, 3, 10**9]),
)
def test_each_resample_is_what_its_videos_give(seed, videos, classes, levels):
    scores, labels = case(seed, videos, classes, levels)
    labels[0, 0] = True
    found = PairedBootstrap([predicted(one, labels) for one in scores], 5, seed=3)
    for number, gaps in enumerate(found.gaps):
        chosen = np.random.default_rng([3, number]).integers(0, videos, videos)
        expected = [gap(one[chosen], labels[chosen]) for one in scores]
        assert gaps == pytest.approx(expected, abs=1e-10)


def test_a_model_against_itself_differs_by_nothing():
    (scores, _), labels = case(1, 50, 30, 100)
    one, same = predicted(scores, labels), predicted(scores, labels)
    difference = PairedBootstrap([one, same], 50).difference(0, 1, 0.95)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_pairing_makes_a_small_difference_sure():
    rng = np.random.default_rng(5)
    labels = rng.random((400, 30)) < 0.1
    noise = rng.normal(size=labels.shape)
    better, worse = noise + 1.3 * labels, noise + 1.2 * labels
    found = PairedBootstrap([predicted(better, labels), predicted(worse, labels)], 300)
    first, second = found.interval(0, 0.95), found.interval(1, 0.95)
    assert first.low < second.high, "each alone says nothing"
    assert found.difference(0, 1, 0.95).low > 0


def test_an_interval_covers_the_value_of_the_population_as_often_as_it_says():
    rng = np.random.default_rng(7)
    labels = rng.random((20_000, 12)) < 0.2
    scores = rng.normal(size=labels.shape) + labels
    truth = gap(scores, labels)
    covered = 0
    for start in range(0, 20_000, 200):
        part = slice(start, start + 200)
        interval = PairedBootstrap([predicted(scores[part], labels[part])], 200).interval(0, 0.9)
        covered += interval.low <= truth <= interval.high
    assert 80 <= covered <= 97  # of 100, by the binomial distribution of 90 %


def test_the_draws_depend_on_the_seed_alone(monkeypatch):
    (scores, _), labels = case(2, 40, 25, 100)
    model = predicted(scores, labels)
    first = PairedBootstrap([model], 20).gaps
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    assert (PairedBootstrap([model], 20).gaps == first).all()
    assert (PairedBootstrap([model], 20, seed=1).gaps != first).any()


def test_models_of_other_videos_are_refused():
    (scores, _), labels = case(3, 20, 25, 100)
    with pytest.raises(ValueError, match="not scored on the same videos"):
        PairedBootstrap([predicted(scores, labels), predicted(scores[1:], labels[1:])], 5)


def test_videos_of_several_lengths_are_drawn_whole():
    # Video 0 has one prediction, video 1 three: a draw of 1 and 1 has six.
    videos = np.array([0, 1, 1, 1])
    scores, hits = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    found = PairedBootstrap([Predictions(videos, scores, hits, np.array([1, 1]))], 40).gaps
    only_first, both = 1.0, (1 + 2 / 3) / 2
    # Twice .8 (wrong), then twice .7 (right): precisions 1/3 and 2/4.
    only_second = (1 / 3 + 2 / 4) / 2
    seen = set(np.round(found.ravel(), 9))
    assert seen == set(np.round([only_first, both, only_second], 9))
