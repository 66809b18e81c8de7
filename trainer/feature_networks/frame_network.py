"""What turns frames into pooled features, whichever network does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SIDE = 299
"""Height and width of a frame that an Inception-v3 network is given."""
YOUTUBE8M_NETWORK = "inception-2015-12-05"
"""Name of the network that made YouTube-8M's frame features."""
POOLED_SIZE = 2048
"""Channels of Inception-v3's last block, averaged over its 8 × 8 places."""
PIECE = 16
"""Frames that a network is given at once, always: see `in_pieces`."""


class FrameNetwork(Protocol):
    """A network from frames to pooled features.

    A frame's features are the same bits whatever frames are beside it in a call.

    Attributes:
        name: which network, for records of where features came from.
        digest: 32 hexadecimal digits of the SHA-256 of its weights.
        half_pixel_centers: the convention of bilinear interpolation that its frames are to be
            resized with, see `trainer.feature_networks.bilinear`.
    """

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def half_pixel_centers(self) -> bool: ...

    def __call__(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pooled features float32 [N,2048] of frames float32 [N,299,299,3] (RGB, 0 … 255)."""
        ...


def check_frames(frames: NDArray[np.float32]) -> None:
    """Raises ValueError for anything but float32 [N,299,299,3]."""
    if frames.dtype != np.float32 or frames.shape[1:] != (SIDE, SIDE, 3):
        raise ValueError(
            f"expected frames float32 [N,{SIDE},{SIDE},3], received {frames.dtype} "
            f"{list(frames.shape)}"
        )


def in_pieces(
    rows: NDArray[Any],
    size: int,
    width: int,
    run: Callable[[NDArray[Any]], NDArray[Any]],
) -> NDArray[Any]:
    """Outputs [N, width] of rows [N, …], computed in pieces of always `size` rows.

    Libraries choose their kernels, and so the order of their sums, by the size of a batch: with
    TensorFlow 2.21 on a CPU, a frame alone gets other last bits than the frame beside another
    one. Pieces of one size (the last is filled up with zeros) make the outputs of a row
    independent of N.

    Args:
        run: from [size, …] to [size, width], of the rows' type.
    """
    outputs = np.empty((len(rows), width), rows.dtype)
    for start in range(0, len(rows), size):
        piece = rows[start : start + size]
        count = len(piece)
        if count < size:
            filled = np.zeros((size, *rows.shape[1:]), rows.dtype)
            filled[:count] = piece
            piece = filled
        outputs[start : start + count] = run(piece)[:count]
    return outputs
