"""Calibration against a loop over predictions in exact fractions, and cases worked by hand."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.metrics.calibration import BINS, calibration

# Sixty-fourths, 0 and 1 among them: their product with a small number has no rounding.
predictions = st.lists(
    st.tuples(st.integers(0, 64).map(lambda n: n / 64), st.booleans()), min_size=1, max_size=40
)


def arrays(entries, dtype=np.float64):
    return np.array([s for s, _ in entries], dtype), np.array([h for _, h in entries], bool)


@settings(max_examples=60, deadline=None)
@given(
    entries=predictions,
    bins=st.integers(1, 20),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_brute_force(entries, bins, dtype):
    parts = [[] for _ in range(bins)]
    for score, hit in entries:
        parts[min(int(Fraction(score) * bins), bins - 1)].append((Fraction(score), hit))
    error = Fraction(0)
    found = calibration(*arrays(entries, dtype), bins)
    for place, part in enumerate(parts):
        assert found.counts[place] == len(part)
        if not part:
            assert np.isnan([found.confidence[place], found.precision[place]]).all()
            continue
        confidence = sum(score for score, _ in part) / len(part)
        precision = Fraction(sum(hit for _, hit in part), len(part))
        assert found.confidence[place] == pytest.approx(float(confidence))
        assert found.precision[place] == pytest.approx(float(precision))
        error += abs(confidence - precision) * Fraction(len(part), len(entries))
    assert found.error == pytest.approx(float(error), abs=1e-12)


def test_by_hand():
    scores = np.array([0.1, 0.3, 0.7, 0.8, 0.9])
    found = calibration(scores, np.array([False, True, True, False, True]), bins=2)
    assert found.counts.tolist() == [2, 3]
    assert found.confidence == pytest.approx([0.2, 0.8])
    assert found.precision == pytest.approx([1 / 2, 2 / 3])
    assert found.error == pytest.approx(2 / 5 * 0.3 + 3 / 5 * (0.8 - 2 / 3))


def test_a_score_that_is_right_as_often_as_it_says_has_no_error():
    scores = np.repeat([0.25, 0.75], 4)
    hits = np.array([1, 0, 0, 0, 1, 1, 1, 0], bool)
    assert calibration(scores, hits).error == 0
    assert calibration(scores, ~hits).error == 0.5


def test_too_sure_and_too_shy_do_not_cancel_out():
    # Over all predictions the mean score is the share of hits.
    found = calibration(np.array([0.25, 0.75]), np.array([True, False]), bins=2)
    assert found.error == 0.75
    assert calibration(np.array([0.25, 0.75]), np.array([True, False]), bins=1).error == 0


def test_a_score_on_a_bound_is_in_the_upper_part_and_1_in_the_last():
    found = calibration(np.array([0, 0.25, 0.5, 0.75, 1]), np.zeros(5, bool), bins=4)
    assert found.counts.tolist() == [1, 1, 1, 2]


def test_there_are_15_parts_where_nothing_is_said():
    found = calibration(np.array([1.0]), np.array([True]))
    assert len(found.counts) == len(found.confidence) == len(found.precision) == BINS == 15
    assert found.counts[-1] == found.confidence[-1] == found.precision[-1] == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 200), bins=st.integers(1, 15))
def test_any_order_gives_the_same_bits(seed, size, bins):
    rng = np.random.default_rng(seed)
    scores, hits, order = rng.random(size), rng.random(size) < 0.5, rng.permutation(size)
    one, other = calibration(scores, hits, bins), calibration(scores[order], hits[order], bins)
    for first, second in zip(one, other, strict=True):
        assert np.array_equal(first, second, equal_nan=True)


@settings(max_examples=40, deadline=None)
@given(entries=predictions, bins=st.integers(1, 20))
def test_the_parts_add_up_to_all_predictions(entries, bins):
    scores, hits = arrays(entries)
    found = calibration(scores, hits, bins)
    assert found.counts.sum() == len(entries)
    assert np.nansum(found.counts * found.confidence) == pytest.approx(scores.sum())
    assert np.nansum(found.counts * found.precision) == pytest.approx(hits.sum())
    # The parts' errors are no less than that of all in one.
    assert found.error >= calibration(scores, hits, 1).error - 1e-12


@pytest.mark.parametrize("scores", [[0.5, 1.001], [-0.001, 0.5], []])
def test_what_is_no_probability_is_refused(scores):
    with pytest.raises(ValueError, match="expected probabilities, 0 to 1"):
        calibration(np.array(scores, np.float64), np.zeros(len(scores), bool))


def test_nan_is_no_probability():
    with pytest.raises(ValueError, match="expected probabilities, 0 to 1"):
        calibration(np.array([0.5, np.nan]), np.zeros(2, bool))
