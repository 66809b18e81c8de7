"""Records parsed together against each on its own."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import chunk_of, frame_video, mean_video
from trainer import records
from trainer.errors import InputError
from trainer.example_proto import Example, SequenceExample
from trainer.record_batch import parse_video_chunk, stored_id

CLASSES = 3862
IDS = st.sampled_from(["", "a", "abcd", "wxyz", "éé", "a\0", "x" * 64, "x" * 70])
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


def check(payloads):
    """That a chunk is parsed as its records are one by one."""
    chunk = chunk_of(payloads)
    sound, wrong = one_by_one(list(chunk), CLASSES)
    batch, errors = parse_video_chunk(chunk, CLASSES)
    assert {record.index: str(error) for record, error in errors} == wrong
    assert batch.numbers.tolist() == sorted(sound)
    assert len(batch) == len(batch.ids) == len(batch.features)
    assert batch.bytes == sum(len(payloads[number]) for number in sound)
    for row, number in enumerate(batch.numbers.tolist()):
        video = sound[number]
        assert batch.ids[row] == stored_id(video.video_id)
        np.testing.assert_array_equal(batch.labels[batch.label_rows == row], video.labels)
        joined = np.concatenate([video.rgb, video.audio])
        np.testing.assert_array_equal(batch.features[row], joined)
    assert batch.features.dtype == np.float32
    return batch, errors


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    of=st.lists(st.tuples(LABELS, IDS, st.sampled_from(KINDS)), max_size=14),
)
def test_batches_hold_what_each_record_holds(seed, of):
    rng = np.random.default_rng(seed)
    check([encoded(rng, *one) for one in of])


def test_what_every_writer_writes_is_read_together(rng, monkeypatch):
    """Any order of the features, ids and labels of any length, an empty second field."""
    alone = []
    monkeypatch.setattr("trainer.record_batch.parse_checked", lambda *one: alone.append(one))
    payloads = []
    for order in itertools.permutations(range(4)):
        video = mean_video(rng, [3, 300, 0][: order[0]], "abcdefgh"[: order[1] * 2])
        features = Example.FromString(records.encode(video)).features
        entries = []
        for name in sorted(features.feature):
            alone_in = type(features)()
            alone_in.feature[name].CopyFrom(features.feature[name])
            entries.append(alone_in.SerializeToString())
        joined = b"".join(entries[place] for place in order)
        header = bytes([0x0A, len(joined) & 0x7F | 0x80, len(joined) >> 7])
        payloads.append(header + joined + b"\x12\x00" * (order[2] % 2))
    batch, _ = parse_video_chunk(chunk_of(payloads), CLASSES)
    assert not alone
    monkeypatch.undo()
    assert len(batch) == len(check(payloads)[0]) == 24


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1000), at=st.integers(0, 90), byte=st.integers(0, 255),
       cut=st.none() | st.integers(0, 4800))  # fmt: skip
def test_bytes_that_anything_may_have_written(seed, at, byte, cut):
    """A byte changed in what is not numbers, the end cut off; its neighbours stay as they are."""
    rng = np.random.default_rng(seed)
    video = mean_video(rng, [1, 200], "abcd")
    payload = bytearray(records.encode(video))
    # All but the numbers: where they are 1, a byte of them changes only them.
    places = [place for place in range(len(payload)) if place < 40 or payload[place] < 0x20]
    payload[places[at % len(places)]] = byte
    spoiled = bytes(payload[:cut])
    check([records.encode(video), spoiled, records.encode(video)])


def test_real_records(real_data):
    """The validate shards carry an empty second field; all are read without a second look."""
    for split in ("train", "validate"):
        (path, *_) = sorted((real_data / "video" / split).glob("*.tfrecord"))
        payloads = [record.payload for record in records.read_records(path)]
        _, errors = check(payloads)
        assert not errors


def test_nothing_to_parse():
    batch, errors = check([])
    assert (len(batch), errors) == (0, [])


def test_ids_too_long_to_keep():
    """Different ones stay different, whatever they share; most are kept as they are."""
    ids = ["", "a", "a\0", "é" * 32, "é" * 33, "x" * 64, "x" * 65, "x" * 66, "x" * 64 + "\0", "\0"]
    stored = [stored_id(video_id) for video_id in ids]
    assert len(set(stored)) == len(ids)
    assert max(map(len, stored)) <= 64
    assert np.array(stored).tolist() == stored
    assert [stored[i] for i in (0, 1, 3, 5)] == [ids[i].encode() for i in (0, 1, 3, 5)]
    assert stored[6].startswith(b"x" * 29)


@pytest.mark.parametrize("kind", ["not finite", "infinite"])
def test_values_that_are_no_numbers_can_be_looked_at(kind, rng):
    record = records.Record("shard", 0, 0, encoded(rng, [1], "a", kind))
    values = records.values_if_not_finite(record)
    places = [17] if kind == "not finite" else [1027, 1028]
    assert np.flatnonzero(~np.isfinite(values)).tolist() == places
    for other in ("plain", "short", "no audio", "garbage", "frames"):
        record = records.Record("shard", 0, 0, encoded(rng, [1], "a", other))
        assert records.values_if_not_finite(record) is None
