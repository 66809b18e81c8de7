"""TFX's messages against the accumulators that they are made of."""

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from components.statistics.step import run_statistics
from components.statistics.tensorflow_metadata import schema_text, statistics_list
from tests.conftest import frame_video
from tests.trainer.statistics.cases import collect, videos_of
from trainer import records
from trainer.statistics.features import QUANTILES
from trainer.statistics.schema import default_schema
from trainer.statistics.summary import summary_of

NAMES = [f"Class {i}" for i in range(9)]


def by_name(dataset):
    return {feature.path.step[0]: feature for feature in dataset.features}


@pytest.mark.parametrize("level", [records.FRAME, records.VIDEO])
def test_statistics(level):
    videos = videos_of(level, 40)
    statistics = collect(videos)
    listing = statistics_list({"train": statistics, "all": statistics}, NAMES)
    assert [dataset.name for dataset in listing.datasets] == ["train", "all"]
    dataset = listing.datasets[0]
    assert dataset.num_examples == 40
    features = by_name(dataset)
    assert len(features) == 3 + 1152
    rgb, audio = ("rgb", "audio") if level == records.FRAME else ("mean_rgb", "mean_audio")
    moments, quantiles = statistics.features.moments(), statistics.features.quantiles()
    for name, dimension in ((f"{rgb}.0", 0), (f"{rgb}.1023", 1023), (f"{audio}.0", 1024)):
        numbers = features[name].num_stats
        assert numbers.mean == pytest.approx(moments["mean"][dimension])
        assert numbers.std_dev**2 == pytest.approx(moments["variance"][dimension])
        assert (numbers.min, numbers.max) == (
            moments["minimum"][dimension], moments["maximum"][dimension],
        )  # fmt: skip
        assert numbers.median == quantiles[dimension, QUANTILES.index(0.5)]
        common = numbers.common_stats
        assert common.num_non_missing == 40
        assert common.tot_num_values == statistics.count
        lengths = [video.num_frames for video in videos]
        assert (common.min_num_values, common.max_num_values) == (min(lengths), max(lengths))
        (histogram,) = numbers.histograms
        assert sum(bucket.sample_count for bucket in histogram.buckets) == statistics.count
        assert len(histogram.buckets) <= 32
        for one, following in zip(histogram.buckets, histogram.buckets[1:], strict=False):
            assert one.high_value == pytest.approx(following.low_value)
        assert histogram.buckets[0].low_value <= numbers.min < histogram.buckets[0].high_value
    lengths = [video.num_frames for video in videos]
    frames = features["num_frames"].num_stats
    assert frames.mean == pytest.approx(np.mean(lengths))
    assert frames.std_dev == pytest.approx(np.std(lengths))
    assert frames.median == np.quantile(lengths, 0.5, method="inverted_cdf")
    assert (frames.min, frames.max) == (min(lengths), max(lengths))


def test_videos_above_the_longest_that_is_counted_one_by_one():
    rng = np.random.default_rng(0)
    lengths = [400, 500, 700]
    statistics = collect([frame_video(rng, n, [1], f"{n}") for n in lengths])
    numbers = by_name(statistics_list({"train": statistics}, NAMES).datasets[0])
    frames = numbers["num_frames"].num_stats
    assert (frames.min, frames.max) == (400, 700)
    assert frames.mean == pytest.approx(np.mean(lengths))
    assert frames.std_dev == pytest.approx(np.std(lengths))
    assert summary_of(statistics)["frames_a_video"] == {
        "minimum": 400, "median": 301, "maximum": 700,
    }  # fmt: skip


def test_labels_and_ids():
    videos = videos_of(records.VIDEO, 40)
    features = by_name(statistics_list({"train": collect(videos)}, NAMES).datasets[0])
    labels = features["labels"].string_stats
    counts = np.bincount(np.concatenate([video.labels for video in videos]), minlength=9)
    assert labels.unique == (counts > 0).sum()
    found = {bucket.label: bucket.sample_count for bucket in labels.rank_histogram.buckets}
    assert found == {f"{i} Class {i}": counts[i] for i in range(9) if counts[i]}
    assert labels.top_values[0].frequency == counts.max()
    each = [len(video.labels) for video in videos]
    common = labels.common_stats
    assert common.num_missing == each.count(0)
    assert common.max_num_values == max(each)
    assert common.tot_num_values == sum(each)
    assert common.avg_num_values == pytest.approx(sum(each) / common.num_non_missing)
    assert features["id"].bytes_stats.common_stats.num_non_missing == 40


def test_nothing_is_labelled():
    videos = [v for v in videos_of(records.VIDEO, 40) if not len(v.labels)]
    labels = by_name(statistics_list({"test": collect(videos)}, NAMES).datasets[0])["labels"]
    assert labels.string_stats.common_stats.num_missing == len(videos)
    assert not labels.string_stats.top_values


@pytest.mark.parametrize("level", [records.FRAME, records.VIDEO])
def test_schema(level):
    text = schema_text(default_schema(level, 9, ["train"]))
    schema = text_format.Parse(text, schema_pb2.Schema())
    features = {feature.name: feature for feature in schema.feature}
    assert (features["labels"].int_domain.min, features["labels"].int_domain.max) == (0, 8)
    if level == records.FRAME:
        assert features["rgb"].value_count.max == 300
        assert features["rgb"].type == schema_pb2.BYTES
    else:
        assert features["mean_rgb"].shape.dim[0].size == 1024
        assert features["mean_audio"].shape.dim[0].size == 128
        assert features["mean_rgb"].float_domain.max == 2.0078125


def test_the_file_is_a_tfrecord_file_of_one_list(no_drawing, manifest, tmp_path):
    """As TFDV's `load_statistics` reads it, here with TensorFlow."""
    import tensorflow as tf

    manifest.write(tmp_path / "manifest.json")
    run_statistics(str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [])
    (payload,) = tf.data.TFRecordDataset(str(tmp_path / "s" / "stats.tfrecord"))
    listing = statistics_pb2.DatasetFeatureStatisticsList.FromString(payload.numpy())
    assert [(d.name, d.num_examples) for d in listing.datasets] == [
        ("train", 48), ("validate", 20), ("all", 68),
    ]  # fmt: skip
    text_format.Parse((tmp_path / "s" / "schema.pbtxt").read_text(), schema_pb2.Schema())
