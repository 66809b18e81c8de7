"""Statistics against plain NumPy over all records at once."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import frame_video, mean_video
from tests.trainer.statistics.cases import CLASSES, collect, values_of, videos_of
from trainer import records
from trainer.statistics import FeatureStatistics
from trainer.statistics.feature_statistics import merged
from trainer.statistics.summary import arrays_of, summary_of

LEVELS = [records.FRAME, records.VIDEO]


def integers(statistics):
    """Everything that must be equal for any order and partition."""
    labels, features = statistics.labels, statistics.features
    names = ("records", "shortest", "longest", "squared_frames", "unequal_lengths",
             "silent_audio", "without_id")  # fmt: skip
    pairs, counts = labels.pairs()
    found = {name: getattr(statistics, name) for name in names} | {
        "frames": statistics.frames, "classes": labels.classes, "count": features.count,
        "labels_a_video": labels.labels_a_video, "histogram": features.histogram,
        "pairs": pairs, "pair_counts": counts, "non_finite": statistics.non_finite,
        "ratings": statistics.ratings,
    }  # fmt: skip
    for name, covariance in statistics.covariances.items():
        if statistics.level == records.FRAME:
            found |= {f"{name}/{k}": value for k, value in covariance.state().items()}
    return found


def assert_equal(one, other):
    for name, value in integers(one).items():
        np.testing.assert_array_equal(value, integers(other)[name], err_msg=name)
    for name, values in one.features.moments().items():
        np.testing.assert_allclose(values, other.features.moments()[name], atol=1e-9, rtol=0)


@pytest.mark.parametrize("level", LEVELS)
def test_moments_and_counts(level):
    videos = videos_of(level, 30)
    statistics = collect(videos)
    values, moments = values_of(videos), statistics.features.moments()
    np.testing.assert_allclose(moments["mean"], values.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(moments["variance"], values.var(axis=0), atol=1e-12)
    np.testing.assert_array_equal(moments["minimum"], values.min(axis=0))
    np.testing.assert_array_equal(moments["maximum"], values.max(axis=0))
    assert statistics.records == 30
    labels = np.zeros(CLASSES, int)
    for video in videos:
        labels[video.labels] += 1
    np.testing.assert_array_equal(statistics.labels.classes, labels)
    np.testing.assert_array_equal(
        statistics.frames, np.bincount([v.num_frames for v in videos], minlength=302)
    )
    summary = summary_of(statistics)
    lengths = [video.num_frames for video in videos]
    assert summary["frames"] == sum(lengths)
    assert summary["frames_a_video"]["minimum"] == min(lengths)
    assert summary["frames_a_video"]["maximum"] == max(lengths)
    assert summary["labels"] == labels.sum()
    assert summary["records_without_labels"] == sum(not len(video.labels) for video in videos)
    assert summary["value_maximum"] == values.max()


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_partition_and_order_agree(level, data):
    videos = videos_of(level, 12)
    whole = collect(videos, covariance=True)
    order = data.draw(st.permutations(range(12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, 12), max_size=3)))
    parts = [order[a:b] for a, b in zip([0, *cuts], [*cuts, 12], strict=True)]
    statistics = [
        collect([videos[i] for i in part], covariance=True, level=level) for part in parts
    ]
    as_a_list = FeatureStatistics(level, CLASSES, covariance=True)
    for one in statistics:
        as_a_list.merge(one)
    assert_equal(as_a_list, whole)
    # Associative: from the other end, in pairs.
    as_a_tree = statistics[-1]
    for one in reversed(statistics[:-1]):
        as_a_tree = merged([one, as_a_tree])
    assert_equal(as_a_tree, whole)
    for name, covariance in whole.covariances.items():
        ours, theirs = (one.covariances[name].mean_and_covariance() for one in (as_a_list, whole))
        np.testing.assert_allclose(ours[1], theirs[1], atol=1e-9)
        assert covariance.count == whole.count


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("covariance", [False, True])
def test_another_process_gets_the_same(level, covariance):
    whole = collect(videos_of(level, 7), covariance)
    whole.add_non_finite(np.where(np.arange(1152) == 4, np.nan, 0).astype(np.float32))
    again = pickle.loads(pickle.dumps(whole))
    assert_equal(again, whole)
    assert again.bytes == whole.bytes
    assert again.covariances.keys() == whole.covariances.keys()
    # What came from there goes on counting.
    more = collect(videos_of(level, 3, seed=8), covariance)
    assert_equal(again.merge(more), whole.merge(more))


def test_merging_leaves_the_other_alone():
    one, other = (collect(videos_of(records.VIDEO, 4, seed)) for seed in (1, 2))
    before = other.features.mean.copy(), other.labels.classes.copy(), other.records
    one.merge(other)
    np.testing.assert_array_equal(other.features.mean, before[0])
    np.testing.assert_array_equal(other.labels.classes, before[1])
    assert other.records == before[2]
    with pytest.raises(ValueError, match="can not merge statistics of frame level, 9 classes into"):
        one.merge(FeatureStatistics(records.FRAME, CLASSES))
    with pytest.raises(ValueError, match=r"9 classes with covariance into video level, 9 classes$"):
        one.merge(FeatureStatistics(records.VIDEO, CLASSES, covariance=True))


def test_the_wrong_level_is_a_mistake(rng):
    with pytest.raises(ValueError, match="expected frame-level statistics"):
        FeatureStatistics(records.VIDEO, CLASSES).add([frame_video(rng)])
    with pytest.raises(ValueError, match="expected video-level statistics"):
        FeatureStatistics(records.FRAME, CLASSES).add_batch(None)


def with_audio(rng, audio, frames=4):
    video = frame_video(rng, frames)
    return records.VideoRecord("abcd", video.labels, video.rgb, audio)


def test_sound_that_never_changes_and_lengths_that_differ(rng):
    same = np.tile(rng.integers(0, 256, 128, dtype=np.uint8), (4, 1))
    ends_alike = same.copy()
    ends_alike[1] ^= 1
    statistics = collect(
        [with_audio(rng, same), with_audio(rng, ends_alike), with_audio(rng, same[:1]),
         with_audio(rng, same[:3])]
    )  # fmt: skip
    assert statistics.silent_audio == 2  # four frames and three frames; one frame tells nothing
    assert statistics.unequal_lengths == 2
    assert statistics.count == 4 + 4 + 1 + 3
    assert summary_of(statistics)["single_frame_videos"] == 1


def test_silent_audio_of_means(rng):
    loud, silent = mean_video(rng), mean_video(rng)
    silent = records.VideoRecord("ab", silent.labels, silent.rgb, np.zeros(128, np.float32))
    assert collect([loud, silent, loud, silent, silent]).silent_audio == 3


def test_videos_without_an_id_are_counted(rng):
    assert collect([mean_video(rng, video_id=""), mean_video(rng)]).without_id == 1
    assert collect([frame_video(rng, video_id=""), frame_video(rng)]).without_id == 1


def test_longer_videos_than_the_public_ones_share_a_bin(rng):
    statistics = collect([frame_video(rng, 301), frame_video(rng, 340), frame_video(rng, 2)])
    assert statistics.frames[301] == 2
    assert summary_of(statistics)["frames_a_video"]["maximum"] == 340


def test_saturation_and_constant_dimensions_by_hand(rng):
    video = frame_video(rng, 4)
    rgb = video.rgb.copy()
    rgb[:, 0], rgb[:, 1], rgb[:, 2] = 0, [255, 255, 255, 7], 9
    statistics = collect([records.VideoRecord("a", video.labels, rgb, video.audio)])
    arrays = arrays_of(statistics)
    assert arrays["saturated"][0].tolist() == [1, 0]
    assert arrays["saturated"][1].tolist() == [0, 0.75]
    assert arrays["saturated"][2].tolist() == [0, 0]
    constant = arrays["minimum"] == arrays["maximum"]
    assert constant[[0, 1, 2]].tolist() == [True, False, True]
    assert summary_of(statistics)["constant_dimensions"] == constant.sum()
