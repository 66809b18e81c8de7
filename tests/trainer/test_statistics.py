"""Statistics against plain NumPy over all records at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import frame_video, mean_video
from trainer import records
from trainer.errors import InputError
from trainer.manifest import Manifest, Shard
from trainer.statistics import (
    FeatureStatistics,
    collect,
    read_statistics,
    write_statistics,
)


def videos_of(level, count, seed=3):
    rng = np.random.default_rng(seed)
    make = frame_video if level == records.FRAME else mean_video
    found = []
    for _ in range(count):
        labels = rng.choice(9, rng.integers(0, 5), replace=False)
        frames = {"num_frames": int(rng.integers(1, 7))} if level == records.FRAME else {}
        found.append(make(rng, labels=labels, **frames))
    return found


def values_of(videos):
    if videos[0].level == records.VIDEO:
        return np.stack([np.concatenate([v.rgb, v.audio]) for v in videos]).astype(np.float64)
    codes = np.concatenate([np.concatenate([v.rgb, v.audio], axis=1) for v in videos])
    return records.dequantise(codes).astype(np.float64)


@pytest.mark.parametrize("level", [records.FRAME, records.VIDEO])
def test_moments_and_counts(level):
    videos = videos_of(level, 30)
    statistics = collect(videos, FeatureStatistics(level, 9))
    values, moments = values_of(videos), statistics.moments()
    np.testing.assert_allclose(moments["mean"], values.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(moments["variance"], values.var(axis=0), atol=1e-12)
    np.testing.assert_array_equal(moments["minimum"], values.min(axis=0))
    np.testing.assert_array_equal(moments["maximum"], values.max(axis=0))
    assert statistics.records == 30
    labels = np.zeros(9, int)
    for video in videos:
        labels[video.labels] += 1
    np.testing.assert_array_equal(statistics.labels, labels)
    np.testing.assert_array_equal(
        statistics.frames, np.bincount([v.num_frames for v in videos], minlength=302)
    )
    summary = statistics.summary()
    assert summary["frames"] == sum(video.num_frames for video in videos)
    assert summary["labels"] == labels.sum()


@pytest.mark.parametrize("level", [records.FRAME, records.VIDEO])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_partition_and_order_agree(level, data):
    videos = videos_of(level, 12)
    whole = collect(videos, FeatureStatistics(level, 9))
    order = data.draw(st.permutations(range(12)))
    cut = data.draw(st.integers(0, 12))
    parts = [
        collect([videos[i] for i in part], FeatureStatistics(level, 9))
        for part in (order[:cut], order[cut:])
    ]
    merged = FeatureStatistics(level, 9)
    for part in parts:
        merged.merge(part)
    for name in ("frames", "labels", "labels_a_video", "codes", "records", "count"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
    for name, values in whole.moments().items():
        np.testing.assert_allclose(merged.moments()[name], values, atol=1e-9)


def test_merging_leaves_the_other_alone():
    one, other = (
        collect(videos_of(records.VIDEO, 4, seed), FeatureStatistics(records.VIDEO, 9))
        for seed in (1, 2)
    )
    before = other.mean.copy(), other.labels.copy(), other.records
    one.merge(other)
    np.testing.assert_array_equal(other.mean, before[0])
    np.testing.assert_array_equal(other.labels, before[1])
    assert other.records == before[2]
    with pytest.raises(ValueError, match="can not merge statistics of frame level"):
        one.merge(FeatureStatistics(records.FRAME, 9))


def test_codes_are_counted_exactly(rng):
    video = frame_video(rng, 4)
    statistics = collect([video] * 3, FeatureStatistics(records.FRAME, 9))
    assert statistics.codes.sum() == 3 * 4 * 1152
    assert statistics.codes[5, video.rgb[0, 5]] >= 3
    assert statistics.saturated()[0] == pytest.approx(
        ((video.rgb == 0).sum() + (video.audio == 0).sum()) / (4 * 1152)
    )


def manifest_of(**counts):
    shards = tuple(Shard(split, f"/{split}", 1, "", n) for split, n in counts.items())
    return Manifest("here", "video", 9, shards)


def test_files_belong_to_their_data(tmp_path):
    manifest = manifest_of(train=3)
    statistics = {"train": collect(videos_of(records.VIDEO, 3), FeatureStatistics("video", 9))}
    write_statistics(tmp_path / "s", manifest, statistics, [])
    summary, arrays = read_statistics(tmp_path / "s", manifest.fingerprint)
    assert summary["splits"]["train"]["records"] == 3
    np.testing.assert_array_equal(arrays["train/labels"], statistics["train"].labels)
    with pytest.raises(InputError, match="are statistics of the data"):
        read_statistics(tmp_path / "s", "other")
    with pytest.raises(InputError, match="no such file"):
        read_statistics(tmp_path / "absent", "other")
