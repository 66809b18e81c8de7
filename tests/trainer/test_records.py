import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import frame_video, mean_video, record_of
from tests.trainer import wire
from tests.trainer.wire import Field
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


def outcome(parser, payload):
    """All that a parser makes of a payload: every value to the bit, or the error's words."""
    try:
        video = parser(record_of(payload))
    except InputError as error:
        return str(error)
    return contents(video)


def contents(video):
    rated = video.segments
    arrays = [video.labels, video.rgb, video.audio]
    arrays += [rated.starts, rated.labels, rated.scores] if rated else []
    said = video.video_id, video.level, video.mark, video.silent, video.extractor
    return *said, [(a.dtype, a.shape, a.tobytes()) for a in arrays]


INT64 = st.integers(-(2**63), 2**63 - 1)
LABELS = st.lists(INT64 | st.integers(0, 4715), max_size=30)
RATINGS = st.lists(
    st.tuples(st.integers(0, 2**63 - 6), INT64, st.sampled_from([0, 1])), min_size=1, max_size=9
)


@st.composite
def video_records(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels, video_id = draw(LABELS), draw(st.text(max_size=12))
    if draw(st.booleans()):
        return mean_video(rng, labels, video_id)
    video = frame_video(rng, draw(st.integers(1, 20)), labels, video_id)
    if draw(st.booleans()):
        return video
    starts, classes, scores = zip(*draw(RATINGS), strict=True)
    rated = records.Segments(
        np.array(starts, np.int64), np.array(classes, np.int64), np.array(scores, np.float32)
    )
    return dataclasses.replace(video, segments=rated)


@settings(max_examples=60, deadline=None)
@given(video=video_records())
def test_a_record_survives_a_round_trip(video):
    payload = records.encode(video)
    assert outcome(records.parse, payload) == contents(video)
    assert outcome(records.parse_message, payload) == contents(video)


def test_frames_are_counted(rng):
    assert records.parse(record_of(records.encode(frame_video(rng, 20)))).num_frames == 20
    assert records.parse(record_of(records.encode(mean_video(rng)))).num_frames == 1


@settings(max_examples=300, deadline=None)
@given(payload=wire.strange_records())
def test_any_layout_is_read_as_the_message_library_reads_it(payload):
    assert outcome(records.parse, payload) == outcome(records.parse_message, payload)


def _payloads():
    """Functions of a code that all features hold; with the payloads' other bytes to be changed."""
    rated = records.Segments(np.array([0, 5]), np.array([3, 4]), np.array([0, 1], np.float32))

    def frames(code, count=2, segments=None, labels=(1, 300)):
        codes = np.full((count, records.FEATURE_SIZE), code, np.uint8)
        rgb, audio = codes[:, : records.RGB_SIZE], codes[:, records.RGB_SIZE :]
        return records.VideoRecord("abcd", np.array(labels, np.int64), rgb, audio, segments)

    def means(code, labels=(1, 300)):
        values = np.full(records.FEATURE_SIZE, np.uint32(code) * 0x01010101).view(np.float32)
        rgb, audio = values[: records.RGB_SIZE], values[records.RGB_SIZE :]
        return records.VideoRecord("abcd", np.array(labels, np.int64), rgb, audio)

    return (
        lambda code: records.encode(frames(code)),
        lambda code: records.encode(frames(code, 1, labels=())),
        lambda code: records.encode(frames(code, 1, rated)),
        lambda code: records.encode(means(code)),
        lambda code: records.encode(means(code, labels=())) + b"\x12\x00",
    )


PAYLOADS = [(make(0x3E), wire.structure(make)) for make in _payloads()]
"""Payloads, each with the positions of what is no feature."""


@st.composite
def damaged_payloads(draw):
    """Bytes of a valid payload changed, cut out, put in or repeated; most of them no feature's."""
    payload, positions = draw(st.sampled_from(PAYLOADS))
    content = bytearray(payload)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(positions) | st.integers(0, len(payload)))
        to = draw(st.sampled_from(positions) | st.integers(at, at + 12))
        match draw(st.sampled_from(["flip", "set", "cut", "end", "insert", "repeat"])):
            case "flip":
                content[at : at + 1] = (b ^ draw(st.integers(1, 255)) for b in content[at : at + 1])
            case "set":
                content[at : at + 1] = draw(st.sampled_from([b"\0", b"\x0a", b"\x12", b"\x1a"]))
            case "cut":
                del content[at:to]
            case "end":
                del content[at:]
            case "insert":
                content[at:at] = draw(st.binary(min_size=1, max_size=4))
            case "repeat":
                content[at:at] = content[at:to]
    return bytes(content)


@settings(max_examples=300, deadline=None)
@given(payload=damaged_payloads())
def test_damaged_bytes_are_read_as_the_message_library_reads_them(payload):
    assert outcome(records.parse, payload) == outcome(records.parse_message, payload)


def test_each_byte_that_is_no_feature_s_is_read_as_the_message_library_reads_it():
    for payload, positions in PAYLOADS:
        for position in positions:
            for mask in (0x01, 0x08, 0x10, 0x80):
                spoiled = bytearray(payload)
                spoiled[position] ^= mask
                spoiled = bytes(spoiled)
                assert outcome(records.parse, spoiled) == outcome(records.parse_message, spoiled)


RGB, AUDIO = (wire.floats(np.zeros(size)) for size in (records.RGB_SIZE, records.AUDIO_SIZE))


@pytest.mark.parametrize(
    "make",
    [
        lambda r: wire.frame_record(r, more_context=[(b"mean_rgb", [])]),
        lambda r: wire.frame_record(r, more_context=[(b"mean_rgb", RGB)]),
        lambda r: wire.frame_record(r, more_context=[(b"mean_audio", AUDIO)]),
        lambda r: wire.frame_record(r, more_context=[(b"mean_rgb", RGB), (b"mean_audio", AUDIO)]),
        lambda r: wire.record([(b"mean_rgb", RGB), (b"mean_audio", wire.floats([np.nan] * 128))]),
        lambda r: wire.record([(b"mean_rgb", RGB), (b"mean_audio", wire.floats([np.inf] * 128))]),
        lambda r: wire.frame_record(r, more_context=[(b"labels", [])]),
        lambda r: wire.frame_record(r, more_context=[(b"labels", wire.ints([]))]),
        lambda r: wire.frame_record(r, more_context=[(b"id", [])]),
        lambda r: wire.frame_record(r, more_context=[(b"video_id", wire.strings(b"other"))]),
        lambda r: wire.frame_record(r, more_context=[(b"video_id", wire.strings(b"a", b"b"))]),
        lambda r: wire.frame_record(r, more_context=[(b"video_id", wire.strings(b"\xff"))]),
        lambda r: wire.frame_record(r, more_context=[(b"other", wire.strings(b"fine"))]),
        lambda r: wire.frame_record(r, more_context=[(b"other", [Field(1, b"\x0a\x05")])]),
        lambda r: wire.frame_record(r, more_context=[(b"other", [Field(3, b"\x0a\x01\x80")])]),
        lambda r: wire.frame_record(r, more_context=[(b"other", [Field(2, b"\x0a\x03abc")])]),
        lambda r: wire.frame_record(r, more_context=[(b"\xff", [])]),
        lambda r: wire.frame_record(r, more_lists=[(b"other", b"\xff")]),
        lambda r: wire.frame_record(r, more_lists=[(b"other", [])]),
        lambda r: wire.frame_record(r, more_lists=[(b"rgb", [])]),
        lambda r: wire.video_record(r, lists=[(b"other", b"\xff")]),
        lambda r: wire.video_record(r, lists=[(b"other", [])]),
        lambda r: [*wire.frame_record(r), Field(3, [wire.entry(b"mean_rgb", [])])],
        lambda r: [Field(3, wire.video_record(r)[0].content)],
        lambda r: [Field(1, [Field(2, e.content) for e in wire.video_record(r)[0].content])],
        lambda r: [Field(2, [Field(2, e.content) for e in wire.frame_record(r)[1].content])],
        lambda r: [*wire.frame_record(r), *wire.record([(b"labels", wire.ints([7]))])],
        lambda r: wire.record([(b"mean_audio", AUDIO), (b"mean_rgb", BAD_FLOATS)]),
        lambda r: wire.record([(b"mean_audio", BAD_FLOATS), (b"mean_rgb", AUDIO)]),
        lambda r: wire.record([(b"mean_rgb", [Field(2, b"\x0a")]), (b"mean_audio", BAD_FLOATS)]),
        lambda r: wire.record([(b"mean_audio", BAD_FLOATS), (b"mean_rgb", [Field(2, b"\x0a")])]),
        lambda r: wire.video_record(r, [(b"segment_labels", wire.strings(b"unread"))]),
    ],
)  # fmt: skip
def test_strange_records_by_hand(make, rng):
    """What the message library merges, passes over or refuses, and a reader in place could miss."""
    payload = wire.serialized(make(rng))
    assert outcome(records.parse, payload) == outcome(records.parse_message, payload)


BAD_FLOATS = [Field(2, b"\x0a" + b"\xff" * 6)]


def test_what_every_known_writer_writes_is_read_in_place(rng, monkeypatch):
    """What is left to the message library is right too, but takes several times as long."""
    import tensorflow as tf

    frame, mean = frame_video(rng, 3), mean_video(rng)
    own = dataclasses.replace(frame, mark="bad", silent=True, extractor="a")
    old = SequenceExample.FromString(records.encode(frame))
    old.context.feature["video_id"].bytes_list.value.append(b"old")
    del old.context.feature["id"]
    empty_list = tf.train.Example.FromString(records.encode(mean))
    empty_list.features.feature["labels"].int64_list.value.clear()
    no_labels = tf.train.SequenceExample.FromString(records.encode(frame))
    del no_labels.context.feature["labels"]
    cases = [
        (records.encode(frame), "abcd", [1, 3]),
        (records.encode(mean), "abcd", [1, 3]),
        (records.encode(mean) + b"\x12\x00", "abcd", [1, 3]),
        (records.encode(frame_video(rng, 300, [0, 3861], "é")), "é", [0, 3861]),
        (records.encode(frame_video(rng, 1, [])), "abcd", []),
        (records.encode(mean_video(rng, [])), "abcd", []),
        (old.SerializeToString(), "old", [1, 3]),
        (empty_list.SerializeToString(), "abcd", []),
        (no_labels.SerializeToString(), "abcd", []),
        (
            records.encode(own),
            "abcd",
            [1, 3],
        ),
    ]
    expected = [outcome(records.parse_message, payload) for payload, _, _ in cases]
    monkeypatch.setattr(records, "parse_message", None)
    for (payload, video_id, labels), of_message in zip(cases, expected, strict=True):
        video = records.parse(record_of(payload))
        assert contents(video) == of_message
        assert (video.video_id, video.labels.tolist()) == (video_id, labels)


def test_what_is_wrong_with_features_is_said_by_their_record(rng):
    for video in (frame_video(rng), mean_video(rng)):
        plain = records.encode(video)
        marked = records.encode(dataclasses.replace(video, mark="random weights (seed 1)"))
        silent = records.encode(dataclasses.replace(video, silent=True))
        made = records.encode(dataclasses.replace(video, extractor="abcd"))
        for parse in (records.parse, records.parse_message):
            assert [parse(record_of(one)).extractor for one in (plain, made)] == ["", "abcd"]
            found = [parse(record_of(payload)) for payload in (plain, marked, silent)]
            assert [one.mark for one in found] == ["", "random weights (seed 1)", ""]
            assert [one.silent for one in found] == [False, False, True]
            assert found[1].rgb.tolist() == found[0].rgb.tolist()


def test_ratings_of_segments_are_read(rng):
    video = frame_video(rng, 30)
    rated = records.Segments(
        np.array([0, 25, 25]), np.array([4, 4, 7]), np.array([1, 0, 1], np.float32)
    )
    payload = records.encode(dataclasses.replace(video, segments=rated))
    message = SequenceExample.FromString(payload)
    context = message.context.feature
    assert list(context["segment_start_times"].int64_list.value) == [0, 25, 25]
    assert list(context["segment_end_times"].int64_list.value) == [5, 30, 30]
    assert list(context["segment_labels"].int64_list.value) == [4, 4, 7]
    assert list(context["segment_scores"].float_list.value) == [1, 0, 1]
    # Scores as integers, as some writers have them.
    context["segment_scores"].int64_list.value.extend([1, 0, 1])
    for one in (payload, message.SerializeToString()):
        found = records.parse(record_of(one)).segments
        assert found.starts.tolist() == [0, 25, 25]
        assert found.labels.tolist() == [4, 4, 7]
        assert found.scores.tolist() == [1, 0, 1]
        assert found.scores.dtype == np.float32
    for key in ("start_times", "labels", "scores"):
        context[f"segment_{key}"].Clear()
    assert records.parse(record_of(message.SerializeToString())).segments is None
    assert records.parse(record_of(records.encode(video))).segments is None


def test_what_is_wrong_with_ratings_is_said(rng):
    def rated(starts=(0, 5), labels=(1, 2), scores=(0, 1)):
        return wire.frame_record(
            rng, 1,
            [(b"segment_start_times", wire.ints(starts)), (b"segment_labels", wire.ints(labels)),
             (b"segment_scores", wire.floats(scores))],
        )  # fmt: skip

    alone = wire.frame_record(rng, 1, [(b"segment_scores", wire.floats([1]))])
    text = wire.frame_record(rng, 1, [(b"segment_labels", wire.strings(b"a"))])
    counts = "{} segment_labels, {} segment_start_times and {} segment_scores, expected as many"
    for fields, words in (
        (rated(starts=[0]), counts.format(2, 1, 2)),
        (rated(labels=[1, 2, 3]), counts.format(3, 2, 2)),
        (rated(scores=[]), counts.format(2, 2, 0)),
        (alone, counts.format(0, 0, 1)),
        (rated(scores=[1, 0.5]), "segment_scores holds 0.5, expected 0 or 1"),
        (rated(scores=[np.nan, 0]), "segment_scores holds nan, expected 0 or 1"),
        (rated(starts=[7, -3]), "segment_start_times holds -3, expected 0 or more"),
        (text, "segment_labels is a bytes_list, expected a int64_list"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            records.parse(record_of(wire.serialized(fields)))


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


def test_the_first_id_that_is_not_empty_counts(rng):
    lists = wire.frame_record(rng)[1:]
    for first, second, expected in (
        (b"", b"old", "old"),
        (b"new", b"", "new"),
        (b"new", b"old", "new"),
        (b"", b"", ""),
        (b"a\xffb", b"", "a\\xffb"),  # as stored, as far as it can be
    ):
        ids = wire.record([(b"video_id", wire.strings(second)), (b"id", wire.strings(first))])
        record = record_of(wire.serialized(ids + lists))
        assert records.parse(record).video_id == expected
        assert records.parse_message(record).video_id == expected


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


def test_real_records_are_read_in_place(real_data, monkeypatch):
    paths = [
        real_data / "frame" / "SjJ3.tfrecord",
        real_data / "video" / "train" / "validate0000.tfrecord",
        real_data / "video" / "validate" / "validate0048.tfrecord",
    ]
    payloads = [record.payload for path in paths for record in records.read_records(path)]
    expected = [outcome(records.parse_message, payload) for payload in payloads]
    monkeypatch.setattr(records, "parse_message", None)
    assert [outcome(records.parse, payload) for payload in payloads] == expected
