import cmath
import math

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.feature_networks import log_mel
from trainer.feature_networks.log_mel import SILENCE, log_mel_spectrogram, patches

RATE = 16_000


def noise(rng, length, scale=0.1):
    return rng.normal(0, scale, length).astype(np.float32)


def tone(hertz, length=15_600, phase=0.3):
    return np.cos(2 * np.pi * hertz / RATE * np.arange(length) + phase).astype(np.float32)


def mel(hertz):
    return 1127 * math.log(1 + hertz / 700)


def slow_mel_weights():
    """[257,64], bin by bin and band by band from the definition."""
    low, high = mel(125), mel(7500)
    edges = [low + (high - low) * index / 65 for index in range(66)]
    weights = np.zeros((257, 64))
    for index in range(1, 257):
        place = mel(index * RATE / 512)
        for band in range(64):
            lower, centre, upper = edges[band : band + 3]
            if lower < place <= centre:
                weights[index, band] = (place - lower) / (centre - lower)
            elif centre < place < upper:
                weights[index, band] = (upper - place) / (upper - centre)
    return weights


def test_sizes_by_hand():
    assert log_mel.WINDOW == 0.025 * RATE
    assert log_mel.HOP == 0.010 * RATE
    assert log_mel.PATCH_SAMPLES == 15_600
    assert log_mel.mel(1000.0) == pytest.approx(1000, abs=0.02)  # what 1127 and 700 are made for


def test_the_window_is_periodic():
    window = log_mel.hann_window()
    assert window[0] == 0
    assert window[200] == 1
    np.testing.assert_allclose(window[1:], window[:0:-1], atol=1e-15)
    assert window.sum() == pytest.approx(200)


def test_mel_weights_are_those_of_a_slow_loop():
    np.testing.assert_allclose(log_mel.mel_weights(), slow_mel_weights(), atol=1e-12)


def test_the_constant_part_counts_nowhere():
    weights = log_mel.mel_weights()
    assert not weights[0].any()
    # 125 Hz is bin 4, 7,500 Hz is bin 240: nothing at the edges and outside.
    np.testing.assert_allclose(weights[:5], 0, atol=1e-12)
    np.testing.assert_allclose(weights[240:], 0, atol=1e-12)
    # Between the middles of the first and the last band, at 155 and 7,215 Hz, they add up to 1.
    np.testing.assert_allclose(weights[5:231].sum(1), 1, atol=1e-12)


@pytest.mark.slow
def test_librosa_has_the_same_edges_and_nearly_the_same_triangles():
    ours = log_mel.mel_weights()
    theirs = librosa.filters.mel(
        sr=RATE, n_fft=512, n_mels=64, fmin=125, fmax=7500, htk=True, norm=None
    ).T
    edges = librosa.mel_frequencies(66, fmin=125, fmax=7500, htk=True)
    expected = np.linspace(log_mel.mel(125), log_mel.mel(7500), 66)
    np.testing.assert_allclose(log_mel.mel(edges), expected, atol=1e-9)
    np.testing.assert_array_equal(ours > 1e-9, theirs > 1e-9)
    # librosa's sides are straight in Hz; straight in mel is above that while it rises, and the
    # most that it can differ by is worked out here for the widest band.
    lower, upper = edges[-2:]
    between = np.linspace(lower, upper, 1001)
    straight = (between - lower) / (upper - lower)
    bent = (log_mel.mel(between) - log_mel.mel(lower)) / (log_mel.mel(upper) - log_mel.mel(lower))
    bound = np.abs(bent - straight).max()
    assert bound == pytest.approx(0.0044, abs=1e-4)
    difference = np.abs(ours - theirs).max()
    assert 0.8 * bound < difference <= bound


def test_a_spectrogram_is_librosas_with_the_mel_weights_of_a_slow_loop(rng):
    samples = noise(rng, 3 * RATE + 123)
    samples[RATE : 2 * RATE] = tone(440, RATE)
    samples[2 * RATE :] *= 1e-3
    # librosa centres the window of 400 in the 512 samples of a transform: 56 lie before it.
    spectrum = librosa.stft(
        np.pad(samples.astype(np.float64), 56),
        n_fft=512,
        win_length=400,
        hop_length=160,
        window="hann",
        center=False,
    )
    expected = np.log(np.abs(spectrum).T @ slow_mel_weights() + 0.01)
    found = log_mel_spectrogram(samples)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_librosas_triangles_would_change_little(rng):
    magnitudes = np.abs(np.fft.rfft(noise(rng, 100 * 512).reshape(100, 512)))
    theirs = librosa.filters.mel(
        sr=RATE, n_fft=512, n_mels=64, fmin=125, fmax=7500, htk=True, norm=None
    ).T
    difference = np.log(magnitudes @ theirs + 0.01) - np.log(magnitudes @ slow_mel_weights() + 0.01)
    assert 1e-4 < np.abs(difference).max() < 0.03


def test_one_frame_by_the_formula(rng):
    samples = noise(rng, 400)
    windowed = [float(x) * math.sin(math.pi * n / 400) ** 2 for n, x in enumerate(samples)]
    magnitudes = [
        abs(sum(x * cmath.exp(-2j * math.pi * k * n / 512) for n, x in enumerate(windowed)))
        for k in range(257)
    ]
    expected = np.log(np.array(magnitudes) @ slow_mel_weights() + 0.01)
    np.testing.assert_allclose(log_mel_spectrogram(samples)[0], expected, atol=1e-5)


def test_silence_is_the_logarithm_of_the_offset():
    assert math.log(0.01) == pytest.approx(SILENCE)
    np.testing.assert_allclose(patches(np.zeros(RATE, np.float32), 2), math.log(0.01), rtol=1e-6)


@pytest.mark.parametrize("number", [20, 32, 100, 200])
def test_a_tone_peaks_in_the_band_that_holds_it(number):
    # A cosine of amplitude 1 at bin k has the magnitude Σ window / 2 = 100 there, and in its
    # neighbours what the Fourier transform of the window has at ±1 bin, 31.25 Hz.
    spectrogram = log_mel_spectrogram(tone(number * 31.25))
    band = log_mel.mel_weights()[number].argmax()
    assert (spectrogram.argmax(1) == band).all()
    n = np.arange(400)
    beside = abs((log_mel.hann_window() * np.exp(2j * np.pi * n / 512)).sum()) / 2
    weights = slow_mel_weights()[:, band]
    least = 100 * weights[number] + beside * (weights[number - 1] + weights[number + 1])
    assert (np.exp(spectrogram[:, band]) >= 0.99 * least).all()
    assert (spectrogram[:, abs(np.arange(64) - band) > 12] < spectrogram.max() - 4).all()


@pytest.mark.parametrize(
    ("length", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (15_600, 96)]
)
def test_only_whole_windows_are_frames(length, frames):
    assert log_mel_spectrogram(np.zeros(length, np.float32)).shape == (frames, 64)


def test_patches_are_a_second_apart(rng):
    samples = noise(rng, 3 * RATE)
    found = patches(samples, 3)
    frames = log_mel_spectrogram(samples)
    for second in range(3):
        start = 100 * second  # a second has 100 hops
        np.testing.assert_allclose(found[second], frames[start : start + 96], atol=1e-6)


def test_missing_samples_are_silence(rng):
    samples = noise(rng, RATE + 5_000)
    padded = np.concatenate([samples, np.zeros(3 * RATE, np.float32)])
    found = patches(samples, 4)
    np.testing.assert_array_equal(found, patches(padded, 4))
    # The windows from sample 5,000 of the second on: 160 · 32 = 5,120
    np.testing.assert_array_equal(found[1, 32:], np.float32(SILENCE))
    assert (found[1, :31] > SILENCE).all()
    np.testing.assert_array_equal(found[2:], np.float32(SILENCE))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(0, 5 * RATE),
    seconds=st.integers(0, 6),
    second=st.integers(0, 5),
)
def test_a_patch_depends_on_its_own_second_alone(seed, length, seconds, second):
    rng = np.random.default_rng(seed)
    samples = noise(rng, length)
    found = patches(samples, seconds)
    assert found.shape == (seconds, 96, 64)
    assert found.dtype == np.float32
    if second < seconds:
        alone = patches(samples[second * RATE :], 1)[0]
        np.testing.assert_array_equal(found[second], alone)
        others = noise(rng, length)
        kept = slice(second * RATE, second * RATE + 15_600)
        others[kept] = samples[kept]
        np.testing.assert_array_equal(found[second], patches(others, seconds)[second])
    np.testing.assert_array_equal(found[:second], patches(samples, min(second, seconds)))


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        (np.zeros(800, np.int16), r"received int16 \[800\]"),
        (np.zeros(800), r"received float64 \[800\]"),
        (np.zeros((2, 800), np.float32), r"received float32 \[2, 800\]"),
        ([0.0], "received list"),
        (np.array([0, np.nan], np.float32), "finite"),
    ],
)
def test_other_samples_are_refused(samples, found):
    with pytest.raises(ValueError, match=found):
        log_mel_spectrogram(samples)
    with pytest.raises(ValueError, match=found):
        patches(samples, 1)


def test_a_negative_number_of_seconds_is_refused():
    with pytest.raises(ValueError, match="received -1"):
        patches(np.zeros(800, np.float32), -1)
