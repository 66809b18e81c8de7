import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from trainer.layers import FrameMask
from trainer.layers.frame_mask import check_mask


@pytest.mark.parametrize("frames", ["uint8", "float32"])
@pytest.mark.parametrize("count", ["int32", "int64"])
def test_the_first_frames_exist(frames, count):
    # 9: of a video that is longer than the batch.
    mask = FrameMask()((np.zeros((4, 3, 2), frames), np.array([2, 0, 3, 9], count)))
    expected = [[True, True, False], [False] * 3, [True] * 3, [True] * 3]
    assert mask.dtype == "bool"
    np.testing.assert_array_equal(to_numpy(mask), expected)


@pytest.mark.parametrize("frames", [None, 3])
def test_in_a_graph(frames):
    inputs = keras.Input((frames, 2), dtype="uint8"), keras.Input((), dtype="int32")
    mask = FrameMask()(inputs)
    assert (mask.shape, mask.dtype) == ((None, frames), "bool")
    found = keras.Model(inputs, mask)([np.zeros((2, 3, 2), "uint8"), np.array([1, 2], "int32")])
    np.testing.assert_array_equal(to_numpy(found), [[True, False, False], [True, True, False]])


@pytest.mark.parametrize("shape", [(2, 3), (None, 3), (2, None), (None, None)])
def test_masks_that_fit(shape):
    check_mask(keras.KerasTensor((2, 3, 5)), keras.KerasTensor(shape, "bool"))
    check_mask(keras.KerasTensor((None, None, 5)), keras.KerasTensor(shape, "bool"))
    check_mask(keras.KerasTensor((2, 3, 5)), None)


@pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 3), (None, 4), (2, 3, 1), ()])
def test_masks_that_do_not(shape):
    with pytest.raises(ValueError, match=r"expected a mask of shape .* received a mask of shape"):
        check_mask(keras.KerasTensor((2, 3, 5)), keras.KerasTensor(shape, "bool"))
