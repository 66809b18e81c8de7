"""TensorFlow's bilinear interpolation of images, in both of its conventions, by NumPy alone.

https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/core/kernels/image/resize_bilinear_op.cc
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

_Axis = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def resize(
    image: NDArray[np.uint8],
    height: int = 299,
    width: int = 299,
    *,
    half_pixel_centers: bool,
) -> NDArray[np.float32]:
    """Resize an image uint8 [H,W,3] to float32 [height,width,3], values 0 … 255.

    Without antialiasing: each output pixel is made of the four input pixels around its place,
    whatever the sizes, as in the graphs that the networks were trained with. The time does not
    depend on H and W.

    Args:
        half_pixel_centers: whether pixel i is centred at i + 1/2 (`tf.image.resize` of
            TensorFlow 2) or at i (`ResizeBilinear` of TensorFlow 1, in graphs of its time).

    Raises:
        ValueError: the image is no uint8 [H,W,3] with H, W > 0.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"expected an image uint8 [H,W,3], received {image.dtype} {list(image.shape)}"
        )
    columns = image.shape[1]
    upper, lower, down = _neighbours(image.shape[0], height, half_pixel_centers)
    left, right, across = _neighbours(columns, width, half_pixel_centers)
    pixels = np.ascontiguousarray(image).reshape(-1, 3)
    # NumPy is slow over a last axis of 3, so rows of width · 3 numbers.
    across = across.repeat(3)

    def row(places: NDArray[np.int64]) -> NDArray[np.float32]:
        start = places[:, None] * columns
        first = _at(pixels, start + left)
        step = _at(pixels, start + right)
        step -= first
        step *= across
        step += first
        return step

    top = row(upper)
    bottom = row(lower)
    bottom -= top
    bottom *= down[:, None]
    bottom += top
    return bottom.reshape(height, width, 3)


def _at(pixels: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Pixels [h,w·3] at places [h,w]."""
    return pixels.take(places, axis=0, mode="clip").reshape(len(places), -1).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _neighbours(size: int, wanted: int, half_pixel_centers: bool) -> _Axis:
    """Of each of the wanted places along an axis: the input places around it and the share of the
    second, in float32 as TensorFlow computes it.
    """
    scale = np.float32(size) / np.float32(wanted)
    places = np.arange(wanted, dtype=np.float32)
    if half_pixel_centers:
        places = (places + np.float32(0.5)) * scale - np.float32(0.5)
    else:
        places = places * scale
    floor = np.floor(places)
    # The share is of the place before it is held inside the image; there both pixels are one.
    first = np.maximum(floor, 0).astype(np.int64)
    second = np.minimum(np.ceil(places).astype(np.int64), size - 1)
    return np.minimum(first, second), second, places - floor
