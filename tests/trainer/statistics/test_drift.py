"""Distances against sorted values, and what chance makes of equal sources."""

import numpy as np
import pytest

from trainer.statistics.drift import drift


def arrays_of(codes, labels, num_classes=4):
    """Of codes [videos, 2] and labels by video."""
    histogram = np.stack([np.bincount(column, minlength=8) for column in np.transpose(codes)])
    counts = np.bincount([c for each in labels for c in each], minlength=num_classes)
    return {"histogram": histogram, "labels": counts}


def test_by_hand():
    one = arrays_of([[0, 1], [0, 2], [0, 3], [0, 4]], [[0], [0], [0, 1], [1]])
    other = arrays_of([[7, 1], [0, 2]], [[0, 3], [0]])
    found = drift(one, other, (4, 2))
    # Dimension 0: half of the other's lies above. Dimension 1: up to code 2 it is 1/2 against 1.
    np.testing.assert_allclose(found.features, [0.5, 0.5])
    np.testing.assert_allclose(found.labels, [1 - 3 / 4, 0 - 2 / 4, 0, 1 / 2])
    assert found.features_by_chance == 1.0  # six videos say nothing
    assert not found.feature_excess.any()
    assert not found.label_excess.any()


def test_the_distance_is_scipy_s(rng):
    from scipy import stats

    one, other = rng.integers(0, 8, (300, 2)), rng.integers(0, 6, (200, 2))
    found = drift(arrays_of(one, []), arrays_of(other, []), (300, 200))
    for dimension in range(2):
        expected = stats.ks_2samp(one[:, dimension], other[:, dimension]).statistic
        assert found.features[dimension] == pytest.approx(expected)


def test_equal_sources_seldom_exceed_chance_and_others_do(rng):
    """Of 200 pairs from one source none should, at a chance of one in a thousand."""
    beyond = 0
    for _ in range(200):
        pair = [
            arrays_of(rng.integers(0, 8, (n, 2)), [[c] for c in rng.integers(0, 4, n)])
            for n in (400, 100)
        ]
        found = drift(*pair, (400, 100))
        beyond += bool(found.feature_excess.any() or found.label_excess.any())
    assert beyond <= 2
    moved = arrays_of(rng.integers(4, 8, (100, 2)), [[0]] * 100)
    found = drift(arrays_of(rng.integers(0, 8, (400, 2)), [[1]] * 400), moved, (400, 100))
    assert (found.feature_excess > 0.2).all()
    assert found.label_excess[:2] == pytest.approx([0.8, 0.8], abs=0.03)
