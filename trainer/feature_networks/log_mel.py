"""Sound as VGGish takes it: patches of a log-mel spectrogram.

The parameters are those of the published front end
(https://github.com/tensorflow/models/tree/master/research/audioset/vggish, section "Input: Audio
Features"); the hop of one second between patches is that of MediaPipe's YouTube-8M graph
(https://github.com/google-ai-edge/mediapipe/blob/master/mediapipe/graphs/youtube8m/feature_extraction.pbtxt:
frames of 0.96 s that overlap by −0.04 s). NumPy alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

SAMPLE_RATE = 16_000
"""Samples a second, one channel."""
WINDOW = 400
"""Samples of a window: 25 ms."""
HOP = 160
"""Samples from one window to the next: 10 ms."""
FFT_LENGTH = 512
"""Samples of a transform, the power of two after `WINDOW`; the rest is zeros."""
MEL_BANDS = 64
LOWEST, HIGHEST = 125.0, 7_500.0
"""Hz: where the first band begins and the last one ends."""
LOG_OFFSET = 0.01
"""Added to a band's magnitude before the logarithm, so that silence is finite."""
SILENCE = float(np.log(LOG_OFFSET))
"""What a band without sound has."""
PATCH_FRAMES = 96
"""Windows of a patch: 0.96 s."""
PATCH_SAMPLES = (PATCH_FRAMES - 1) * HOP + WINDOW
"""Samples that a patch is made of: 15,600."""


def patches(samples: NDArray[np.float32], seconds: int) -> NDArray[np.float32]:
    """One patch for each second of a sound.

    Patch t is made of the samples from 16,000·t to 16,000·t + 15,599 and of nothing else, so it is
    the same to the bit whatever comes before and after. Samples that are missing are silence, and
    samples after the last patch are not used.

    Args:
        samples: float32 [n], mono, 16 kHz, full scale at −1 and 1.
        seconds: number of patches.

    Returns:
        float32 [seconds,96,64], natural logarithms.

    Raises:
        ValueError: see `log_mel_spectrogram`; or `seconds` is negative.
    """
    _check(samples)
    if seconds < 0:
        raise ValueError(f"expected seconds of at least 0, received {seconds}")
    output = np.full((seconds, PATCH_FRAMES, MEL_BANDS), SILENCE, np.float32)
    # A second at a time: its arrays stay in the processor's cache.
    for second in range(min(seconds, -(-len(samples) // SAMPLE_RATE))):
        start = second * SAMPLE_RATE
        piece = samples[start : start + PATCH_SAMPLES]
        missing = PATCH_SAMPLES - len(piece)
        output[second] = log_mel_spectrogram(np.pad(piece, (0, missing)) if missing else piece)
    return output


def log_mel_spectrogram(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-mel magnitudes of the whole windows of a sound: none where it is shorter than 25 ms.

    Args:
        samples: float32 [n], mono, 16 kHz, full scale at −1 and 1.

    Returns:
        float32 [1 + ⌊(n − 400) / 160⌋, 64], natural logarithms; computed in float64.

    Raises:
        ValueError: the samples are not finite, not float32 (codes of 16 bits want a division by
            32,768) or not in one dimension.
    """
    _check(samples)
    if len(samples) < WINDOW:
        return np.empty((0, MEL_BANDS), np.float32)
    # NumPy's transform of float32 would be float32.
    windows = sliding_window_view(samples.astype(np.float64), WINDOW)[::HOP] * hann_window()
    magnitudes = np.abs(np.fft.rfft(windows, FFT_LENGTH))
    return np.log(magnitudes @ mel_weights() + LOG_OFFSET).astype(np.float32)


@cache
def hann_window() -> NDArray[np.float64]:
    """The periodic Hann window, float64 [400]: its period is 400, not 399 samples."""
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi / WINDOW * np.arange(WINDOW)))


@cache
def mel_weights() -> NDArray[np.float64]:
    """How much of each bin of the transform a band takes, float64 [257,64].

    66 edges lie evenly in mel; band b is a triangle over edges b, b + 1 and b + 2, 1 at the middle
    one. Its sides are straight in mel, where librosa's are straight in Hz, and its area is not
    normalised. The constant part of the signal (bin 0) counts nowhere.
    """
    bins = mel(np.linspace(0.0, SAMPLE_RATE / 2, FFT_LENGTH // 2 + 1))[:, None]
    edges = np.linspace(mel(LOWEST), mel(HIGHEST), MEL_BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    weights: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return weights


def mel(hertz: ArrayLike) -> Any:
    """Hz in mel, as HTK has it: 1127 · ln(1 + f / 700), any shape."""
    return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)


def _check(samples: NDArray[np.float32]) -> None:
    if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
        found = (
            f"{samples.dtype} {list(samples.shape)}"
            if isinstance(samples, np.ndarray)
            else type(samples).__name__
        )
        raise ValueError(f"expected samples of type float32 [n], received {found}")
    if not np.isfinite(samples).all():
        raise ValueError("expected finite samples, received some that are not")
