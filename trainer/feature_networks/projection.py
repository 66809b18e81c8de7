"""From pooled features to the 1024 codes of a record: PCA, whitening and 8 bits."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError
from trainer.feature_networks.frame_network import YOUTUBE8M_NETWORK, in_pieces
from trainer.feature_networks.youtube8m_pca import WHITENING, read_pca
from trainer.record_format import quantise
from trainer.statistics.covariance import ValueCovariance, principal_components

YOUTUBE8M = "youtube-8m"
"""Source of YouTube-8M's own projection."""
NEGLIGIBLE = 1e-10
"""Share of the greatest eigenvalue up to which another one is a rounding error."""
PIECE = 64
"""Rows that are multiplied at once, always: see `in_pieces`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """A linear map from D pooled features to K features of about unit variance.

    Attributes:
        mean: float64 [D].
        matrix: float64 [K,D], with the whitening in it; rows of zeros beyond the rank of the data.
        eigenvalues: float64 [K], the variance along each row, or None if not known.
        source: where it is from.

    Raises:
        ValueError: arrays of shapes that do not belong together, or not of finite numbers.
    """

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]
    eigenvalues: NDArray[np.float64] | None
    source: str

    def __post_init__(self) -> None:
        for name, array in self._arrays().items():
            if array.dtype != np.float64 or not np.isfinite(array).all():
                raise ValueError(f"expected finite float64 numbers as {name}, received others")
        size, width = self.matrix.shape if self.matrix.ndim == 2 else (-1, -1)
        values = self.eigenvalues
        if self.mean.shape != (width,) or (values is not None and values.shape != (size,)):
            raise ValueError(
                "expected a mean [D], a matrix [K,D] and eigenvalues [K], received "
                f"{list(self.mean.shape)}, {list(self.matrix.shape)} and "
                f"{'none' if values is None else list(values.shape)}"
            )

    @property
    def rank(self) -> int:
        """Rows that are not zero."""
        return int(np.any(self.matrix, axis=1).sum())

    @functools.cached_property
    def digest(self) -> str:
        """32 hexadecimal digits of the SHA-256 of the arrays."""
        digest = hashlib.sha256()
        for name, values in self._arrays().items():
            digest.update(f"{name}\0{list(values.shape)}\0".encode())
            digest.update(values.astype("<f8").tobytes())
        return digest.hexdigest()[:32]

    def project(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Features float64 [N,K] of pooled features [N,D]; those of a row do not depend on N.

        Raises:
            ValueError: pooled features of another size.
        """
        if values.ndim != 2 or values.shape[1] != len(self.mean):
            raise ValueError(
                f"expected pooled features [N,{len(self.mean)}], received {list(values.shape)}"
            )
        centred = values.astype(np.float64) - self.mean
        return in_pieces(centred, PIECE, len(self.matrix), lambda piece: piece @ self.matrix.T)

    def codes(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Codes uint8 [N,K] of pooled features [N,D]: projected, clipped to −2 … 2, in 8 bits."""
        return quantise(self.project(values))

    @classmethod
    def youtube8m(cls, path: str | PathLike[str]) -> Projection:
        """The one that YouTube-8M's frame features were made with.

        Args:
            path: see `trainer.feature_networks.youtube8m_pca.read_pca`.

        Raises:
            InputError: a file is absent, damaged or of other sizes.
        """
        return cls(*read_pca(path), YOUTUBE8M)

    @classmethod
    def of_sums(cls, sums: ValueCovariance, size: int, source: str) -> Projection:
        """`fitted` on what was summed up; of nothing (no video has sound) one to zeros."""
        if sums.count:
            return cls.fitted(*sums.mean_and_covariance(), sums.count, size, source)
        width = len(sums.mean)
        return cls(np.zeros(width), np.zeros((size, width)), np.zeros(size), source)

    @classmethod
    def fitted(
        cls,
        mean: NDArray[np.float64],
        covariance: NDArray[np.float64],
        count: int,
        size: int,
        source: str,
    ) -> Projection:
        """The principal components of data, whitened.

        Directions along which the data does not vary, of which there are at least D − count + 1,
        become rows of zeros: their features are 0, rather than amplified rounding errors.

        Args:
            mean: [D].
            covariance: [D,D].
            count: rows that the two were computed of.
            size: K.
            source: of the data.

        Raises:
            ValueError: K is not in 1 … D.
        """
        if not 1 <= size <= len(mean):
            raise ValueError(f"expected a size of 1 … {len(mean)}, received {size}")
        found = principal_components(mean, covariance)
        values = found.eigenvalues[:size]
        kept = (values > NEGLIGIBLE * found.eigenvalues[0]) & (np.arange(size) < count - 1)
        scale = np.where(kept, 1 / np.sqrt(values + WHITENING), 0.0)
        matrix = np.where(kept[:, None], found.eigenvectors[:size] * scale[:, None], 0.0)
        return cls(np.asarray(mean, np.float64), matrix, values.copy(), source)

    def _arrays(self) -> dict[str, NDArray[np.float64]]:
        found = {"mean": self.mean, "matrix": self.matrix}
        return found if self.eigenvalues is None else found | {"eigenvalues": self.eigenvalues}


def check_pair(network_name: str, projection: Projection) -> None:
    """Whether a projection may be applied to a network's pooled features.

    Raises:
        InputError: YouTube-8M's own with any network but its own.
    """
    if projection.source == YOUTUBE8M and network_name != YOUTUBE8M_NETWORK:
        raise InputError(
            f"YouTube-8M's PCA belongs to pool_3 of the network {YOUTUBE8M_NETWORK}, found the "
            f"network {network_name}: of another network, as Keras's with its ImageNet weights, "
            "it makes meaningless features; give that network's graph, or fit the PCA on your own "
            "videos"
        )
