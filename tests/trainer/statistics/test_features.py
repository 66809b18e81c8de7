"""Quantiles and saturation against sorted values."""

import numpy as np
import pytest

from tests.trainer.statistics.cases import collect, values_of, videos_of
from trainer import records
from trainer.statistics.features import (
    BINS_A_UNIT,
    QUANTILES,
    CodeDistributions,
    ValueDistributions,
)


def test_quantiles_of_codes_are_exact():
    videos = videos_of(records.FRAME, 20)
    found = collect(videos).features.quantiles()
    expected = np.quantile(values_of(videos), QUANTILES, axis=0, method="inverted_cdf").T
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_quantiles_of_values_are_right_to_a_bin(count):
    videos = videos_of(records.VIDEO, count)
    found = collect(videos).features.quantiles()
    expected = np.quantile(values_of(videos), QUANTILES, axis=0, method="inverted_cdf").T
    assert np.abs(found - expected).max() <= 1 / BINS_A_UNIT
    assert (np.diff(found, axis=1) >= 0).all()


def test_values_far_out_are_counted_and_bound_the_quantiles():
    distributions = ValueDistributions()
    values = np.zeros((3, 1152), np.float32)
    values[0, 0], values[1, 0], values[2, 0] = -1e9, 0.5, 3e8
    distributions.add(values)
    assert distributions.histogram.sum() == 3 * 1152
    assert distributions.histogram[0, 0] == distributions.histogram[0, -1] == 1
    quantiles = distributions.quantiles()
    assert quantiles[0].min() >= -1e9
    assert quantiles[0].max() <= 3e8


def test_a_video_that_is_saturated_all_through():
    distributions = ValueDistributions()
    values = np.zeros((4, 1152), np.float32)
    low, high = records.dequantise([0, 255])
    values[:, 0] = [low, low, high, 0]
    distributions.add(values)
    assert distributions.saturated()[0].tolist() == [0.5, 0.25]
    assert distributions.saturated()[1].tolist() == [0, 0]


def test_counts_of_codes_pass_what_the_small_counters_hold(monkeypatch):
    """In one video, and over several."""
    from trainer.statistics import counting

    rng = np.random.default_rng(0)
    long = np.broadcast_to(rng.integers(0, 256, 1152, dtype=np.uint8), (70_000, 1152))
    distributions = CodeDistributions()
    rows = records.VideoRecord("a", np.zeros(0, np.int64), long[:, :1024], long[:, 1024:])
    distributions.add([rows])
    assert (distributions.histogram[np.arange(1152), long[0]] == 70_000).all()
    assert distributions.histogram.sum() == 1152 * 70_000
    monkeypatch.setattr(counting, "MOST_FRAMES", 5)
    videos = videos_of(records.FRAME, 30)
    codes = np.concatenate([np.concatenate([v.rgb, v.audio], axis=1) for v in videos])
    few = CodeDistributions()
    few.add(videos)
    expected = np.stack([np.bincount(column, minlength=256) for column in codes.T])
    np.testing.assert_array_equal(few.histogram, expected)


def test_small_counters_are_emptied_in_time(rng):
    """A hundred videos of 700 frames that are all alike."""
    frame = rng.integers(0, 256, 1152, dtype=np.uint8)
    rows = np.broadcast_to(frame, (700, 1152))
    video = records.VideoRecord("a", np.zeros(0, np.int64), rows[:, :1024], rows[:, 1024:])
    distributions = CodeDistributions()
    for _ in range(100):
        distributions.add([video])
    assert (distributions.histogram[np.arange(1152), frame] == 70_000).all()
