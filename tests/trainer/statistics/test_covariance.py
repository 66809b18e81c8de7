"""Covariance and its components against NumPy's own."""

import numpy as np
import pytest

from trainer import records
from trainer.statistics.covariance import (
    CodeCovariance,
    ValueCovariance,
    principal_components,
)


def mixed(rng, rows, size):
    """Numbers that depend on each other."""
    return rng.normal(size=(rows, size)) @ rng.normal(size=(size, size))


def test_codes_exactly(rng):
    codes = np.clip(mixed(rng, 3000, 6) * 30 + 128, 0, 255).astype(np.uint8)
    codes[:, 0] = 255  # the largest products
    covariance = CodeCovariance(6)
    covariance.add(codes)
    centred = codes.astype(int) - 128
    np.testing.assert_array_equal(covariance.products, centred.T @ centred)
    np.testing.assert_array_equal(covariance.sums, centred.sum(axis=0))
    mean, found = covariance.mean_and_covariance()
    values = records.dequantise(codes).astype(np.float64)
    np.testing.assert_allclose(mean, values.mean(axis=0), atol=1e-6)  # float32 dequantises
    np.testing.assert_allclose(found, np.cov(values.T, bias=True), atol=1e-6)


def test_values_far_from_nought(rng):
    """Numerically stable: the mean is a million deviations away."""
    values = (mixed(rng, 500, 5) + 2**20).astype(np.float32)
    whole, parts = ValueCovariance(5), ValueCovariance(5)
    whole.add(values)
    for part in np.array_split(values, 7):
        one = ValueCovariance(5)
        one.add(part)
        parts.merge(one)
    expected = np.cov(values.astype(np.float64).T, bias=True)
    for covariance in (whole, parts):
        np.testing.assert_allclose(covariance.mean_and_covariance()[1], expected, rtol=1e-9)
    empty = ValueCovariance(5)
    empty.merge(ValueCovariance(5))
    assert empty.count == 0


def test_principal_components(rng):
    values = mixed(rng, 400, 4)
    mean, covariance = values.mean(axis=0), np.cov(values.T, bias=True)
    found = principal_components(mean, covariance)
    assert (np.diff(found.eigenvalues) <= 0).all()
    np.testing.assert_allclose(
        covariance @ found.eigenvectors.T, found.eigenvectors.T * found.eigenvalues, atol=1e-10
    )
    np.testing.assert_allclose(found.eigenvectors @ found.eigenvectors.T, np.eye(4), atol=1e-12)
    rows = np.arange(4)
    assert (found.eigenvectors[rows, np.abs(found.eigenvectors).argmax(axis=1)] > 0).all()
    assert found.explained_variance[-1] == pytest.approx(1)
    projected = found.project(values, 3)
    np.testing.assert_allclose(projected.var(axis=0), found.eigenvalues[:3])
    white = found.project(values, 3, whitening=0.0)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(3), atol=1e-10)


def test_components_by_hand():
    """Two dimensions that are one: all variance along the diagonal."""
    found = principal_components(np.zeros(2), np.array([[2.0, 2.0], [2.0, 2.0]]))
    np.testing.assert_allclose(found.eigenvalues, [4, 0], atol=1e-12)
    np.testing.assert_allclose(found.eigenvectors[0], np.sqrt([0.5, 0.5]))
    np.testing.assert_allclose(found.explained_variance, [1, 1])
    nothing = principal_components(np.zeros(2), np.zeros((2, 2)))
    assert nothing.explained_variance.tolist() == [1, 1]
