import contextlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import frame_video, mean_video, record_of
from trainer import records
from trainer.errors import InputError
from trainer.example_proto import Example, SequenceExample


def test_dequantise_by_hand():
    # 0·4/255 + 4/512 − 2, and 255·4/255 + 4/512 − 2
    assert records.dequantise([0, 255]).tolist() == [-1.9921875, 2.0078125]


def test_codes_survive_a_round_trip_and_features_come_back_near():
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(records.quantise(records.dequantise(codes)), codes)
    features = np.linspace(-2, 2, 10001, dtype=np.float32)
    error = records.dequantise(records.quantise(features)) - features
    assert np.abs(error).max() <= 4 / 512 + 2 / 255 + 1e-6
    assert error.mean() == pytest.approx(4 / 512, abs=1e-5)


def test_quantise_clips():
    assert records.quantise([-9, -2, 0, 2, 9]).tolist() == [0, 0, 128, 255, 255]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.integers(1, 20),
    labels=st.lists(st.integers(0, 2**40), max_size=30),
    video_id=st.text(max_size=12),
)
def test_a_frame_level_record_survives_a_round_trip(seed, frames, labels, video_id):
    video = frame_video(np.random.default_rng(seed), frames, labels, video_id)
    parsed = records.parse(record_of(records.encode(video)))
    assert parsed.video_id == video_id
    assert parsed.level == records.FRAME
    assert parsed.num_frames == frames
    for name in ("labels", "rgb", "audio"):
        np.testing.assert_array_equal(getattr(parsed, name), getattr(video, name))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), labels=st.lists(st.integers(0, 4715), max_size=30))
def test_a_video_level_record_survives_a_round_trip(seed, labels):
    video = mean_video(np.random.default_rng(seed), labels)
    parsed = records.parse(record_of(records.encode(video)))
    assert parsed.level == records.VIDEO
    assert parsed.num_frames == 1
    for name in ("labels", "rgb", "audio"):
        np.testing.assert_array_equal(getattr(parsed, name), getattr(video, name))


@settings(max_examples=30, deadline=None)
@given(payloads=st.lists(st.binary(max_size=300), min_size=1, max_size=8))
def test_files_are_tensorflow_s(tmp_path_factory, payloads):
    """What we write TensorFlow reads, what it writes we read, and the bytes are the same."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("shards")
    assert records.write_records(folder / "ours", payloads) == len(payloads)
    with tf.io.TFRecordWriter(str(folder / "theirs")) as writer:
        for payload in payloads:
            writer.write(payload)
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()
    read = list(records.read_records(folder / "ours"))
    assert [record.payload for record in read] == payloads
    assert [record.index for record in read] == list(range(len(payloads)))


def test_payloads_are_tensorflow_s(rng):
    import tensorflow as tf

    for video, ours, theirs in (
        (frame_video(rng), SequenceExample, tf.train.SequenceExample),
        (mean_video(rng), Example, tf.train.Example),
    ):
        payload = records.encode(video)
        message = theirs.FromString(payload)
        assert message.SerializeToString(deterministic=True) == payload
        assert ours.FromString(payload).SerializeToString(deterministic=True) == payload


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_an_input_error_or_an_intact_prefix(tmp_path_factory, data):
    """Flip a byte or cut a file anywhere: never another exception, never a changed record."""
    payloads = [b"first", b"", b"third record"]
    path = tmp_path_factory.mktemp("damaged") / "shard"
    records.write_records(path, payloads)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] ^= data.draw(st.integers(1, 255))
    else:
        del content[position:]
    path.write_bytes(content)
    read = []
    with contextlib.suppress(InputError):
        read.extend(record.payload for record in records.read_records(path))
    assert read == payloads[: len(read)]


@settings(max_examples=200, deadline=None)
@given(payload=st.binary(max_size=200))
def test_garbage_payloads_are_input_errors(payload):
    with pytest.raises(InputError, match=r"^shard\.tfrecord: record 0 \(at byte 0\): "):
        records.parse(record_of(payload))


def test_real_records_with_an_empty_second_field(rng):
    """As the real validate shards have it: an Example that parses as a SequenceExample."""
    video = mean_video(rng)
    parsed = records.parse(record_of(records.encode(video) + b"\x12\x00"))
    np.testing.assert_array_equal(parsed.rgb, video.rgb)


def test_release_1_calls_the_id_video_id(rng):
    message = SequenceExample.FromString(records.encode(frame_video(rng, video_id="x")))
    message.context.feature["video_id"].bytes_list.value.append(b"of release 1")
    del message.context.feature["id"]
    assert records.parse(record_of(message.SerializeToString())).video_id == "of release 1"


def test_features_of_unequal_length_count_to_the_shorter(rng):
    video = frame_video(rng, 5)
    short = records.VideoRecord("a", video.labels, video.rgb, video.audio[:3])
    parsed = records.parse(record_of(records.encode(short)))
    assert (len(parsed.rgb), len(parsed.audio), parsed.num_frames) == (5, 3, 3)


def _without(video, key):
    message = SequenceExample.FromString(records.encode(video))
    del message.feature_lists.feature_list[key]
    return message.SerializeToString()


def _with_frame(video, content):
    message = SequenceExample.FromString(records.encode(video))
    message.feature_lists.feature_list["rgb"].feature[2].bytes_list.value[0] = content
    return message.SerializeToString()


def test_what_is_wrong_with_a_record_is_said(rng):
    video, mean = frame_video(rng), mean_video(rng)
    short = Example.FromString(records.encode(mean))
    del short.features.feature["mean_rgb"].float_list.value[1000:]
    bare = Example.FromString(records.encode(mean))
    del bare.features.feature["mean_audio"]
    wrong = [SequenceExample.FromString(records.encode(video)) for _ in range(3)]
    wrong[0].context.feature["labels"].float_list.value.append(1.0)
    wrong[1].context.feature["id"].bytes_list.value.append(b"second")
    wrong[2].context.feature["id"].int64_list.value.append(3)
    infinite = Example.FromString(records.encode(mean))
    infinite.features.feature["mean_rgb"].float_list.value[3] = float("nan")
    empty = records.VideoRecord("a", video.labels, video.rgb[:0], video.audio[:0])
    for payload, words in (
        (_without(video, "rgb"), "has no feature list rgb (found: audio)"),
        (_without(video, "audio"), "has no feature list audio (found: rgb)"),
        (_with_frame(video, b"x" * 1000), "frame 2 of rgb has 1000 bytes, expected 1024"),
        (records.encode(empty), "rgb has no frames, expected at least one"),
        (short.SerializeToString(), "mean_rgb has 1000 values, expected 1024"),
        (bare.SerializeToString(), "has no feature mean_audio (found: id, labels, mean_rgb)"),
        (infinite.SerializeToString(), "mean_rgb holds values that are not finite"),
        (wrong[0].SerializeToString(), "labels is a float_list, expected a int64_list"),
        (wrong[1].SerializeToString(), "id has 2 values, expected 1"),
        (wrong[2].SerializeToString(), "id is a int64_list, expected a bytes_list"),
        (b"garbage", "its 7 bytes are neither a SequenceExample nor an Example"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            records.parse(record_of(payload))


def test_a_label_out_of_range_is_said(rng):
    record = record_of(b"")
    records.check_labels(record, np.array([0, 11]), 12)
    for label in (12, -1):
        with pytest.raises(InputError, match=rf"label {label} is out of range, expected 0 to 11"):
            records.check_labels(record, np.array([3, label]), 12)


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    path = tmp_path / "shard.tfrecord"
    records.write_records(path, [b"a" * 100, b"b" * 100])
    content = path.read_bytes()
    for spoiled, words in (
        (b"", "is empty"),
        (b"short", "is no TFRecord file: only 5 bytes long"),
        (b"This is some text, no shard.", "is no TFRecord file: it starts with"),
        (content[:-50], "record 1 (at byte 116): the file ends 50 bytes before the record does"),
        (content[:120], "record 1 (at byte 116): the file ends inside its header"),
        (content[:150] + b"!" + content[151:], "record 1 (at byte 116): the checksum of its 100"),
    ):
        path.write_bytes(spoiled)
        with pytest.raises(InputError, match=re.escape(f"{path}: {words}")):
            list(records.read_records(path))
    with pytest.raises(InputError, match="no such file"):
        list(records.read_records(tmp_path / "absent"))


def test_the_real_frame_level_record(real_data):
    (record,) = records.read_records(real_data / "frame" / "SjJ3.tfrecord")
    video = records.parse(record)
    assert video.video_id == "SjJ3"
    assert video.num_frames == 170
    assert video.labels.tolist() == [11]
    assert video.rgb.shape == (170, 1024)


def test_real_video_level_records(real_data):
    path = real_data / "video" / "validate" / "validate0048.tfrecord"
    videos = [records.parse(record) for record in records.read_records(path)]
    values = np.concatenate([np.concatenate([v.rgb, v.audio]) for v in videos])
    assert {video.level for video in videos} == {records.VIDEO}
    assert values.min() >= -1.9921875
    assert values.max() <= 2.0078125
