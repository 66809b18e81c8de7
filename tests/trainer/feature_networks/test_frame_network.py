"""Pieces of one size, against the whole at once."""

import numpy as np
import pytest

from trainer.feature_networks.frame_network import check_frames, in_pieces


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 11])
def test_pieces(rng, count):
    rows = rng.normal(size=(count, 2, 3)).astype(np.float32)
    given = []

    def run(piece):
        given.append(piece.copy())
        return piece.reshape(4, 6) * 2

    found = in_pieces(rows, 4, 6, run)
    np.testing.assert_array_equal(found, rows.reshape(count, 6) * 2)
    assert found.dtype == np.float32
    assert len(given) == -(-count // 4)
    if count % 4:
        assert not given[-1][count % 4 :].any()


@pytest.mark.parametrize(
    "frames",
    [np.zeros((1, 299, 299, 3)), np.zeros((299, 299, 3), np.float32),
     np.zeros((2, 299, 298, 3), np.float32)],
    ids=["float64", "one", "narrow"],
)  # fmt: skip
def test_what_are_no_frames(frames):
    with pytest.raises(ValueError, match=r"expected frames float32 \[N,299,299,3\], received"):
        check_frames(frames)
