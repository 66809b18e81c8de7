"""The resized images against TensorFlow's own operations."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.feature_networks.bilinear import resize

SIZES = [
    (1, 1), (2, 3), (3, 2), (298, 300), (299, 299), (299, 1), (598, 897), (720, 1280), (17, 4001),
    (1, 5000), (5000, 1), (1081, 1921),
]  # fmt: skip


@pytest.mark.parametrize("half_pixel_centers", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_tensorflows(rng, size, half_pixel_centers):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = tf.raw_ops.ResizeBilinear(
        images=image[None], size=[299, 299], half_pixel_centers=half_pixel_centers
    )
    found = resize(image, half_pixel_centers=half_pixel_centers)
    assert found.dtype == np.float32
    assert found.shape == (299, 299, 3)
    np.testing.assert_array_equal(found, expected[0])


def test_the_named_functions_of_both_tensorflows(rng):
    image = rng.integers(0, 256, (123, 457, 3), dtype=np.uint8)
    first = tf.compat.v1.image.resize_bilinear(image[None], [299, 299])[0]
    np.testing.assert_array_equal(resize(image, half_pixel_centers=False), first)
    second = tf.image.resize(image, [299, 299], antialias=False)
    np.testing.assert_array_equal(resize(image, half_pixel_centers=True), second)


def test_other_output_sizes(rng):
    image = rng.integers(0, 256, (31, 47, 3), dtype=np.uint8)
    for size in ([1, 1], [7, 100], [64, 3]):
        expected = tf.raw_ops.ResizeBilinear(images=image[None], size=size, half_pixel_centers=True)
        np.testing.assert_array_equal(resize(image, *size, half_pixel_centers=True), expected[0])


def test_by_hand():
    """Two pixels to four: centred at i, places 0, ½, 1, 1½; at i + ½, places −¼, ¼, ¾, 1¼."""
    image = np.array([[[0, 0, 0], [8, 80, 160]]], np.uint8)
    found = resize(image, 1, 4, half_pixel_centers=False)
    assert found[0].tolist() == [[0, 0, 0], [4, 40, 80], [8, 80, 160], [8, 80, 160]]
    found = resize(image, 1, 4, half_pixel_centers=True)
    assert found[0].tolist() == [[0, 0, 0], [2, 20, 40], [6, 60, 120], [8, 80, 160]]


def test_a_view_of_a_larger_image(rng):
    image = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    view = image[5:55, ::-2, ::-1]
    np.testing.assert_array_equal(
        resize(view, half_pixel_centers=True), resize(view.copy(), half_pixel_centers=True)
    )


@pytest.mark.parametrize(
    "image",
    [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 0, 3), np.uint8),
     np.zeros((5, 5, 3), np.float32)],
    ids=["grey", "alpha", "empty", "float"],
)  # fmt: skip
def test_what_is_no_image(image):
    with pytest.raises(ValueError, match=r"expected an image uint8 \[H,W,3\], received"):
        resize(image, half_pixel_centers=True)
