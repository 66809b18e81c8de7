"""The two loops that touch every number of a data set, compiled.

NumPy counts a code in 1.6 ns (`bincount`, which wants 64-bit integers), these loops in 0.2 ns.
docs/decisions/0007-counting-codes.md has the measurement.

Importing this compiles them, a third of a second for each process: only who counts does. They are
not kept in files, as a container's file system may be read-only and two processes may start at
once.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

# Both loops go over some dimensions at a time, whose counts then stay in the processor's cache.
_CODE_TILE, _VALUE_TILE = 32, 128
MOST_FRAMES = np.iinfo(np.uint16).max
"""That `count_codes` may count into the same counts."""
_CODES = types.Array(types.uint8, 1, "C", readonly=True)
_VALUES = types.Array(types.float32, 2, "C", readonly=True)
_COUNTS, _REALS = types.Array(types.int64, 1, "C"), types.Array(types.float64, 1, "C")
_SMALL_COUNTS = types.Array(types.uint16, 1, "C")
_compiled = functools.partial(numba.njit, nogil=True)
# Compiled loops look whether a signed index is negative.
_unsigned = np.uint64


def count_codes(codes: NDArray[np.uint8], counts: NDArray[np.uint16]) -> None:
    """Add to `counts` [D, 256], C-contiguous, how often each column of `codes` [T, D] has each.

    The counts must be of so few frames that none passes `MOST_FRAMES`.
    """
    if not codes.size:
        return
    if codes.strides[1] != 1 or codes.strides[0] < 0:
        codes = np.ascontiguousarray(codes)
    frames, size = codes.shape
    stride = codes.strides[0]
    # The bytes from the first code to the last one, with what stands between the frames.
    flat = np.lib.stride_tricks.as_strided(
        codes, ((frames - 1) * stride + size,), (1,), writeable=False
    )
    _codes_kernel(flat, stride, frames, size, counts.reshape(-1, copy=False))


def count_values(
    values: NDArray[np.float32], low: float, bins_a_unit: float, counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], ...]:
    """Add to `counts` [D, B + 2], C-contiguous, in which bin each value of [n, D] falls.

    Bin 0 holds what is below `low`, the last one what is `B / bins_a_unit` or more above it.

    Returns:
        Of the block, float64 [D] each: mean, sum of squared deviations from it, minimum, maximum.
    """
    size = values.shape[1]
    mean, deviations = np.zeros(size), np.zeros(size)
    minimum, maximum = np.full(size, np.inf), np.full(size, -np.inf)
    flat = counts.reshape(-1, copy=False)
    _values_kernel(values, low, bins_a_unit, flat, mean, deviations, minimum, maximum)
    return mean, deviations, minimum, maximum


@_compiled(types.void(_CODES, types.int64, types.int64, types.int64, _SMALL_COUNTS))
def _codes_kernel(codes: Any, stride: Any, frames: Any, size: Any, counts: Any) -> None:
    one = np.uint16(1)
    for first in range(0, size, _CODE_TILE):
        start, end = _unsigned(first), _unsigned(min(first + _CODE_TILE, size))
        # Two frames at a time: their counts are often in one line of the cache.
        for frame in range(0, frames - 1, 2):
            here, following = _unsigned(frame * stride), _unsigned((frame + 1) * stride)
            for dimension in range(start, end):
                row = dimension * _unsigned(256)
                counts[row + _unsigned(codes[here + dimension])] += one
                counts[row + _unsigned(codes[following + dimension])] += one
        if frames % 2:
            here = _unsigned((frames - 1) * stride)
            for dimension in range(start, end):
                counts[dimension * _unsigned(256) + _unsigned(codes[here + dimension])] += one


@_compiled(types.void(_VALUES, types.float64, types.float64, _COUNTS, *4 * (_REALS,)))
def _values_kernel(
    values: Any, low: Any, bins_a_unit: Any, counts: Any,
    mean: Any, deviations: Any, minimum: Any, maximum: Any,
) -> None:  # fmt: skip
    # In one pass around the first row, which is no further from the mean than √n deviations:
    # that costs at most n units in the last place.
    count, size = _unsigned(values.shape[0]), values.shape[1]
    width = _unsigned(counts.size // size)
    top = np.float64(width - _unsigned(2))
    places = np.empty(_VALUE_TILE, np.int64)
    for first in range(0, size, _VALUE_TILE):
        start, end = _unsigned(first), _unsigned(min(first + _VALUE_TILE, size))
        for row in range(count):
            for dimension in range(start, end):
                value = np.float64(values[row, dimension])
                moved = value - np.float64(values[_unsigned(0), dimension])
                mean[dimension] += moved
                deviations[dimension] += moved * moved
                minimum[dimension] = min(minimum[dimension], value)
                maximum[dimension] = max(maximum[dimension], value)
                # Cut before it becomes an integer, which has no place for large numbers.
                place = math.floor(min(max((value - low) * bins_a_unit, -1.0), top))
                places[dimension - start] = np.int64(place) + 1
            # A loop of its own, or the one above would not be done several numbers at a time.
            for dimension in range(start, end):
                counts[dimension * width + _unsigned(places[dimension - start])] += 1
    for dimension in range(size):
        moved = mean[dimension] / count
        deviations[dimension] = max(0.0, deviations[dimension] - moved * mean[dimension])
        mean[dimension] = moved + np.float64(values[0, dimension])
