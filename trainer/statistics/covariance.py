"""Covariance of a feature's dimensions, mergeable, and the principal components of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.record_format import BIAS, QUANTISED_MIN, STEP

_CENTRE = 128
_EXACT_ROWS = 1024
"""Products of codes around the centre, at most 2¹⁴ each, that float32 adds without rounding."""


class CodeCovariance:
    """Of 8-bit codes: sums of products as exact integers, equal for any order and partition."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.sums = np.zeros(size, np.int64)
        self.products = np.zeros((size, size), np.int64)

    def add(self, codes: NDArray[np.uint8]) -> None:
        """Add frames [T, D]."""
        for start in range(0, len(codes), _EXACT_ROWS):
            block = codes[start : start + _EXACT_ROWS].astype(np.float32) - _CENTRE
            self.sums += block.sum(axis=0, dtype=np.float64).astype(np.int64)
            self.products += (block.T @ block).astype(np.int64)
            self.count += len(block)

    def merge(self, other: CodeCovariance) -> None:
        self.count += other.count
        self.sums += other.sums
        self.products += other.products

    def mean_and_covariance(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """float64 [D] and [D, D], of dequantised features (divided by the count)."""
        mean = self.sums / self.count
        covariance = self.products / self.count - np.outer(mean, mean)
        return (mean + _CENTRE) * STEP + BIAS + QUANTISED_MIN, covariance * STEP**2

    def state(self) -> dict[str, NDArray[Any]]:
        return {"count": np.array(self.count), "sums": self.sums, "products": self.products}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.count = int(state["count"])
        self.sums, self.products = state["sums"], state["products"]


class ValueCovariance:
    """Of numbers: products of deviations from the mean, in float64.

    Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm", 1979, eq. 2.1, of pairs.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self.products = np.zeros((size, size))

    def add(self, values: NDArray[np.float32]) -> None:
        """Add rows [n, D]."""
        if len(values):
            wide = values.astype(np.float64)
            mean = wide.mean(axis=0)
            centred = wide - mean
            self._merge(len(wide), mean, centred.T @ centred)

    def merge(self, other: ValueCovariance) -> None:
        self._merge(other.count, other.mean, other.products)

    def _merge(self, count: int, mean: NDArray[np.float64], products: NDArray[np.float64]) -> None:
        total = self.count + count
        if not total:
            return
        delta = mean - self.mean
        self.products = (
            self.products + products + np.outer(delta, delta) * (self.count * count / total)
        )
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def mean_and_covariance(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """float64 [D] and [D, D] (divided by the count)."""
        return self.mean, self.products / self.count

    def state(self) -> dict[str, NDArray[Any]]:
        return {"count": np.array(self.count), "mean": self.mean, "products": self.products}

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        self.count = int(state["count"])
        self.mean, self.products = state["mean"], state["products"]


@dataclasses.dataclass(frozen=True)
class PrincipalComponents:
    """Directions of most variance, the greatest first.

    Attributes:
        mean: float64 [D].
        eigenvalues: float64 [D], the variance along each direction, not negative.
        eigenvectors: float64 [D, D], a direction a row; of each the entry of the greatest size is
            positive, so that equal data gives equal signs.
        explained_variance: float64 [D], the share of the whole variance up to each direction.
    """

    mean: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    eigenvectors: NDArray[np.float64]
    explained_variance: NDArray[np.float64]

    def project(
        self, values: NDArray[Any], size: int, whitening: float | None = None
    ) -> NDArray[np.float64]:
        """Coordinates [n, size] of rows [n, D] along the first directions.

        Args:
            whitening: divides each coordinate by `sqrt(eigenvalue) + whitening`; None: none.
        """
        found: NDArray[np.float64] = (values - self.mean) @ self.eigenvectors[:size].T
        if whitening is not None:
            found /= np.sqrt(self.eigenvalues[:size]) + whitening
        return found


def principal_components(
    mean: NDArray[np.float64], covariance: NDArray[np.float64]
) -> PrincipalComponents:
    """Pearson 1901, by the eigenvectors of the covariance [D, D]."""
    values, vectors = np.linalg.eigh(covariance)
    values, rows = np.maximum(values[::-1], 0), vectors.T[::-1]
    greatest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    rows = rows * np.where(greatest < 0, -1.0, 1.0)
    total = values.sum()
    explained = np.cumsum(values) / total if total else np.ones(len(values))
    return PrincipalComponents(mean, values, rows, explained)
