"""Decoded frames as small pictures within a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST = 192
"""Pixels of the longer side."""
_QUALITY = 78


def size_of(width: int, height: int) -> tuple[int, int]:
    """Width and height of a picture of a video of so many pixels, of its aspect."""
    scale = LONGEST / max(width, height, 1)
    return max(1, round(width * scale)), max(1, round(height * scale))


def data_uri(frame: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """A JPEG picture as a `data:` URI.

    Args:
        frame: RGB uint8 [H,W,3], squashed to a square as the networks see it.
        size: width and height to which it is brought, of the video's own aspect.
    """
    content = io.BytesIO()
    picture = Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
    picture.save(content, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
