"""What a YouTube-8M record holds: names, sizes and the 8-bit codes of its features.

Needs NumPy alone, so that the models run where nothing can read a record. Reading and writing is
`trainer.records`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

RGB_SIZE = 1024
"""Inception-v3 features a frame, after PCA and whitening."""
AUDIO_SIZE = 128
"""VGGish features a frame, after PCA and whitening."""
FEATURE_SIZE = RGB_SIZE + AUDIO_SIZE
MAX_FRAMES = 300
"""Frames that the public releases keep of a video (one a second)."""
NUM_CLASSES = 3862
"""Classes of releases 2 and 3 (release 1: 4,716)."""
QUANTISED_MIN, QUANTISED_MAX = -2.0, 2.0
"""Interval that the 256 codes of a frame-level feature span."""

ID_KEYS = ("id", "video_id")
LONGEST_ID = 64
"""Bytes of an id that statistics keep as they are; those of the releases have 4 to 11."""
LABELS_KEY = "labels"
RGB_KEY, AUDIO_KEY = "rgb", "audio"
MEAN_RGB_KEY, MEAN_AUDIO_KEY = "mean_rgb", "mean_audio"
SEGMENT_LABELS_KEY, SEGMENT_SCORES_KEY = "segment_labels", "segment_scores"
SEGMENT_START_KEY, SEGMENT_END_KEY = "segment_start_times", "segment_end_times"
FEATURES_KEY = "features"
"""Context of a record of an own video: what is wrong with its features, such as random weights."""
EXTRACTOR_KEY = "extractor"
"""Context of a record of an own video: digest of the feature extractor that made it."""
SILENCE_KEY = "silence"
"""Context of a record of an own video without sound: 1."""
SEGMENT_FRAMES = 5
"""Frames of a rated segment of release 3: five seconds."""

Level = Literal["frame", "video"]
FRAME: Level = "frame"
VIDEO: Level = "video"

STEP = (QUANTISED_MAX - QUANTISED_MIN) / 255
"""Between two codes."""
BIAS = (QUANTISED_MAX - QUANTISED_MIN) / 512
"""What `dequantise` adds to the exact inverse."""


def dequantise(codes: ArrayLike) -> NDArray[np.float32]:
    """Features of 8-bit codes, as google/youtube-8m's `Dequantize`: `q · 4/255 + 4/512 − 2`.

    Not the exact inverse of `quantise`: it adds the bias 4/512 (half of a 256-th of the range),
    so a round trip of a feature f ends within 4/512 + 2/255 of it, on average 4/512 above.
    """
    values = np.asarray(codes, np.float32) * np.float32(STEP)
    return values + np.float32(BIAS + QUANTISED_MIN)


def quantise(features: ArrayLike) -> NDArray[np.uint8]:
    """8-bit codes of features: `round((clip(f, −2, 2) + 2) · 255/4)`, any shape."""
    values = np.clip(np.asarray(features, np.float32), QUANTISED_MIN, QUANTISED_MAX)
    values -= np.float32(QUANTISED_MIN)
    values *= np.float32(1 / STEP)
    return np.rint(values, out=values).astype(np.uint8)
