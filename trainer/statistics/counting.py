"""The two loops that touch every number of a data set, compiled.

NumPy counts a code in 1.6 ns (`bincount`, which wants 64-bit integers), these loops in 0.4 ns.
docs/decisions/0007-counting-codes.md has the measurement.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def count_codes(codes: NDArray[np.uint8], counts: NDArray[np.int64]) -> None:
    """Add to `counts` [D, 256] how often each column of `codes` [T, D], a view, has each code."""
    _kernels()[0](codes, counts)


def count_values(
    values: NDArray[np.float32], low: float, bins_a_unit: float, counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], ...]:
    """Add to `counts` [D, B + 2] in which bin each value of [n, D] falls; the block's moments.

    Bin 0 holds what is below `low`, the last one what is `B / bins_a_unit` or more above it.

    Returns:
        float64 [D] each: mean, sum of squared deviations from it, minimum, maximum.
    """
    size = values.shape[1]
    mean, deviations = np.zeros(size), np.zeros(size)
    minimum, maximum = np.full(size, np.inf), np.full(size, -np.inf)
    _kernels()[1](values, low, bins_a_unit, counts, mean, deviations, minimum, maximum)
    return mean, deviations, minimum, maximum


@functools.cache
def _kernels() -> tuple[Callable[..., None], Callable[..., None]]:
    """Compiled when first called, a third of a second for each process.

    Not cached in files: a container's file system may be read-only, and two processes may run at
    once.
    """
    # Only who counts pays for the import; who reads statistics does not need it.
    import numba  # noqa: PLC0415
    from numba import types  # noqa: PLC0415

    strided = types.Array(types.uint8, 2, "A", readonly=True)
    rows = types.Array(types.float32, 2, "C", readonly=True)
    table, vector = types.Array(types.int64, 2, "C"), types.Array(types.float64, 1, "C")
    real = types.float64

    def compiled(*arguments: Any) -> Any:
        return numba.njit(types.void(*arguments), nogil=True)

    @compiled(strided, table)
    def codes_kernel(codes: Any, counts: Any) -> None:
        for frame in range(codes.shape[0]):
            for dimension in range(codes.shape[1]):
                counts[dimension, codes[frame, dimension]] += 1

    @compiled(rows, real, real, table, vector, vector, vector, vector)
    def values_kernel(
        values: Any, low: Any, bins_a_unit: Any, counts: Any,
        mean: Any, deviations: Any, minimum: Any, maximum: Any,
    ) -> None:  # fmt: skip
        # In one pass around the first row, which is no further from the mean than √n deviations:
        # that costs at most n units in the last place.
        count, size = values.shape
        top = np.float64(counts.shape[1] - 2)
        for row in range(count):
            for dimension in range(size):
                value = np.float64(values[row, dimension])
                moved = value - np.float64(values[0, dimension])
                mean[dimension] += moved
                deviations[dimension] += moved * moved
                minimum[dimension] = value if value < minimum[dimension] else minimum[dimension]
                maximum[dimension] = value if value > maximum[dimension] else maximum[dimension]
        # A loop of its own, or the one above would not be done several numbers at a time.
        for row in range(count):
            for dimension in range(size):
                place = (np.float64(values[row, dimension]) - low) * bins_a_unit
                # Cut before it becomes an integer, which has no place for large numbers.
                place = top if place > top else place
                counts[dimension, np.int64(place) + 1 if place >= 0.0 else 0] += 1
        for dimension in range(size):
            moved = mean[dimension] / count
            deviations[dimension] = max(0.0, deviations[dimension] - moved * mean[dimension])
            mean[dimension] = moved + np.float64(values[0, dimension])

    return codes_kernel, values_kernel
