"""Records parsed together against each on its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import frame_video, mean_video
from trainer import records
from trainer.errors import InputError
from trainer.example_proto import Example, SequenceExample
from trainer.record_batch import parse_video_batches

CLASSES = 3862
IDS = st.sampled_from(["", "a", "abcd", "wxyz", "éé"])
LABELS = st.lists(st.sampled_from([0, 1, 127, 128, 300, 3861, 3862, 16384, 2**30]), max_size=4)


def encoded(rng, labels, video_id, kind):
    video = mean_video(rng, labels, video_id)
    if kind == "frames":
        return records.encode(frame_video(rng, 2, labels, video_id))
    payload = bytearray(records.encode(video))
    message = Example.FromString(bytes(payload))
    context = message.features.feature
    if kind == "negative":
        context[records.LABELS_KEY].int64_list.value.append(-1)
    if kind == "not finite":
        context[records.MEAN_RGB_KEY].float_list.value[17] = np.nan
    if kind == "infinite":
        context[records.MEAN_AUDIO_KEY].float_list.value[3] = np.inf
        context[records.MEAN_AUDIO_KEY].float_list.value[4] = -np.inf
    if kind == "short":
        del context[records.MEAN_AUDIO_KEY].float_list.value[:5]
    if kind == "no audio":
        del context[records.MEAN_AUDIO_KEY]
    if kind == "no labels":
        del context[records.LABELS_KEY]
    if kind == "release 1":
        value = context[records.ID_KEYS[0]].bytes_list.value[0]
        del context[records.ID_KEYS[0]]
        context[records.ID_KEYS[1]].bytes_list.value.append(value)
    if kind == "empty field":  # as the real validate records
        return SequenceExample(context=message.features).SerializeToString() + b"\x12\x00"
    if kind == "garbage":
        return bytes(rng.integers(0, 256, len(payload), dtype=np.uint8))
    if kind == "flipped":
        payload[rng.integers(len(payload))] ^= 1 << rng.integers(8)
        return bytes(payload)
    return message.SerializeToString(deterministic=True)


KINDS = (
    "plain", "plain", "plain", "frames", "negative", "not finite", "infinite", "short", "no audio",
    "no labels", "release 1", "empty field", "garbage", "flipped",
)  # fmt: skip


def one_by_one(found, num_classes):
    sound, wrong = {}, {}
    for place, record in enumerate(found):
        try:
            sound[place] = records.parse_checked(record, records.VIDEO, num_classes)
        except InputError as error:
            wrong[place] = str(error)
    return sound, wrong


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    of=st.lists(st.tuples(LABELS, IDS, st.sampled_from(KINDS)), max_size=14),
)
def test_batches_hold_what_each_record_holds(seed, of):
    rng = np.random.default_rng(seed)
    found = [records.Record("shard", i, 10 * i, encoded(rng, *one)) for i, one in enumerate(of)]
    sound, wrong = one_by_one(found, CLASSES)
    batches, errors = parse_video_batches(found, CLASSES)
    assert {place: str(error) for place, error in errors} == wrong
    assert sorted(p for batch in batches for p in batch.places.tolist()) == sorted(sound)
    for batch in batches:
        assert len(batch) == len(batch.ids) == len(batch.features)
        for row, place in enumerate(batch.places.tolist()):
            video = sound[place]
            assert batch.ids[row] == video.video_id
            np.testing.assert_array_equal(batch.labels[batch.label_rows == row], video.labels)
            joined = np.concatenate([video.rgb, video.audio])
            np.testing.assert_array_equal(batch.features[row], joined)
        assert batch.features.dtype == np.float32


def test_equal_layouts_are_read_together(rng, monkeypatch):
    """Of two layouts, whatever their order: two batches, each in the order of the records."""
    monkeypatch.setattr("trainer.record_batch._SMALL", 20)
    of = [([1, 2], "abcd"), ([300], "abcd"), ([7], "ab")] * 20
    found = [
        records.Record("shard", i, 0, records.encode(mean_video(rng, *one)))
        for i, one in enumerate(of)
    ]
    batches, errors = parse_video_batches(found, CLASSES)
    assert not errors
    # Two labels of one byte are as long as one of two bytes, and laid out alike.
    assert sorted(batch.places.tolist() for batch in batches) == [
        sorted([*range(0, 60, 3), *range(1, 60, 3)]), list(range(2, 60, 3)),
    ]  # fmt: skip


def test_real_records(real_data):
    """The validate shards carry an empty second field."""
    for split in ("train", "validate"):
        (path, *_) = sorted((real_data / "video" / split).glob("*.tfrecord"))
        found = list(records.read_records(path))
        sound, _ = one_by_one(found, CLASSES)
        batches, errors = parse_video_batches(found, CLASSES)
        assert not errors
        assert sum(len(batch) for batch in batches) == len(sound) == len(found)
        for batch in batches:
            for row, place in enumerate(batch.places.tolist()):
                assert batch.ids[row] == sound[place].video_id
                np.testing.assert_array_equal(batch.features[row, :1024], sound[place].rgb)


def test_nothing_to_parse():
    assert parse_video_batches([], CLASSES) == ([], [])


@pytest.mark.parametrize("kind", ["not finite", "infinite"])
def test_values_that_are_no_numbers_can_be_looked_at(kind, rng):
    record = records.Record("shard", 0, 0, encoded(rng, [1], "a", kind))
    values = records.values_if_not_finite(record)
    places = [17] if kind == "not finite" else [1027, 1028]
    assert np.flatnonzero(~np.isfinite(values)).tolist() == places
    for other in ("plain", "short", "no audio", "garbage", "frames"):
        record = records.Record("shard", 0, 0, encoded(rng, [1], "a", other))
        assert records.values_if_not_finite(record) is None
