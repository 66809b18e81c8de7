"""The compiled loops against loops in Python."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trainer.statistics.counting import count_codes, count_values

CODES = arrays.arrays(np.uint8, st.tuples(st.integers(0, 6), st.integers(1, 5)))
VALUES = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 8), st.integers(1, 4)),
    elements=st.floats(-1e6, 1e6, width=32),
)  # fmt: skip


@settings(deadline=None)
@given(codes=CODES)
def test_codes(codes):
    counts = np.zeros((codes.shape[1], 256), np.uint16)
    expected = counts.copy()
    for row in codes.tolist():
        for dimension, code in enumerate(row):
            expected[dimension, code] += 2
    # Twice: as it is, and as a view with gaps that can not be written to.
    spread = np.zeros((len(codes), 2 * codes.shape[1] + 3), np.uint8)
    spread[:, 3::2] = codes
    view = np.frombuffer(spread.tobytes(), np.uint8).reshape(spread.shape)[:, 3::2]
    count_codes(codes, counts)
    count_codes(view, counts)
    np.testing.assert_array_equal(counts, expected)


@settings(deadline=None)
@given(values=VALUES)
def test_values(values):
    counts = np.zeros((values.shape[1], 10), np.int64)
    mean, deviations, minimum, maximum = count_values(values, -2.0, 2, counts)
    expected = np.zeros_like(counts)
    for row in values.tolist():
        for dimension, value in enumerate(row):
            place = math.floor((value + 2) * 2)
            expected[dimension, min(max(place, -1), 8) + 1] += 1
    np.testing.assert_array_equal(counts, expected)
    wide = values.astype(np.float64)
    size = max(1.0, float(np.abs(wide).max()))
    np.testing.assert_allclose(mean, wide.mean(axis=0), atol=1e-13 * size)
    np.testing.assert_allclose(deviations / len(wide), wide.var(axis=0), atol=1e-12 * size**2)
    np.testing.assert_array_equal(minimum, wide.min(axis=0))
    np.testing.assert_array_equal(maximum, wide.max(axis=0))


def test_the_edges_of_bins_by_hand():
    values = np.array([[-2.001], [-2.0], [-1.501], [-1.5], [1.999], [2.0], [99.0]], np.float32)
    counts = np.zeros((1, 10), np.int64)
    count_values(values, -2.0, 2, counts)
    assert counts.tolist() == [[1, 2, 1, 0, 0, 0, 0, 0, 1, 2]]
