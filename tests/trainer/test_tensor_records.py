"""TensorFlow's graph parser against the reader in NumPy, record by record."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import frame_video, mean_video, record_of
from trainer import records, tensor_records
from trainer.batches import BatchBuilder
from trainer.config import DataConfig

LABELS = st.lists(st.integers(0, 11), max_size=6)
SEEDS = st.integers(0, 2**32 - 1)


def numpy_batch(payloads, level, max_frames, num_classes=12):
    builder = BatchBuilder(level, num_classes, DataConfig(max_frames=max_frames))
    batch = builder.new(np.zeros((len(payloads), 2), np.int64))
    for row, payload in enumerate(payloads):
        builder.fill(batch, row, records.parse(record_of(payload)), 0)
    return batch


def compare(payloads, level, max_frames, num_classes=12):
    ours = numpy_batch(payloads, level, max_frames, num_classes)
    serialized = tf.constant(payloads)
    if level == records.FRAME:
        theirs = tensor_records.parse_frame_batch(serialized, max_frames)
        # Frames that only one of the features has stay in the graph's; the model passes over them.
        exists = tf.sequence_mask(theirs["num_frames"], max_frames, tf.uint8)[..., None]
        theirs |= {name: theirs[name] * exists for name in ("rgb", "audio")}
    else:
        theirs = tensor_records.parse_video_batch(serialized)
    assert [one.decode() for one in theirs.pop("id").numpy()] == ours.video_ids
    for labels, hot in zip(theirs.pop("labels"), ours.labels, strict=True):
        assert set(labels.numpy()) == set(np.flatnonzero(hot))
    assert theirs.keys() == ours.features.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(values, ours.features[name])
        assert values.dtype == ours.features[name].dtype


@settings(max_examples=25, deadline=None)
@given(
    videos=st.lists(
        st.tuples(SEEDS, st.integers(1, 9), st.integers(0, 3), LABELS, st.text(max_size=4)),
        min_size=1, max_size=5,
    ),
    max_frames=st.integers(1, 10),
)  # fmt: skip
def test_frame_level_records_are_read_alike(videos, max_frames):
    """Cut and padded; the features of one record may have unequal numbers of frames."""
    payloads = []
    for seed, frames, shorter, labels, video_id in videos:
        video = frame_video(np.random.default_rng(seed), frames, labels, video_id)
        cut = dataclasses.replace(video, audio=video.audio[: max(1, frames - shorter)])
        payloads.append(records.encode(cut if seed % 2 else video))
    compare(payloads, records.FRAME, max_frames)


@settings(max_examples=25, deadline=None)
@given(
    videos=st.lists(
        st.tuples(SEEDS, LABELS, st.text(max_size=4), st.booleans()), min_size=1, max_size=5
    )
)
def test_video_level_records_are_read_alike(videos):
    """With and without the second field that the real validate shards have."""
    compare(
        [
            records.encode(mean_video(np.random.default_rng(seed), labels, video_id))
            + b"\x12\x00" * with_lists
            for seed, labels, video_id, with_lists in videos
        ],
        records.VIDEO,
        1,
    )


def test_records_of_both_releases_are_read_alike(rng):
    for level, video, message in (
        (records.FRAME, frame_video(rng, 3, [1, 1, 2], "old"), tf.train.SequenceExample()),
        (records.VIDEO, mean_video(rng, [], "old"), tf.train.Example()),
    ):
        message.ParseFromString(records.encode(video))
        part = message.context if level == records.FRAME else message.features
        part.feature["video_id"].CopyFrom(part.feature["id"])
        del part.feature["id"]
        payloads = [records.encode(dataclasses.replace(video, video_id="new"))]
        payloads.append(message.SerializeToString())
        assert numpy_batch(payloads, level, 4).video_ids == ["new", "old"]
        compare(payloads, level, 4)


def test_a_class_counts_once(rng):
    batch = numpy_batch([records.encode(mean_video(rng, [1, 1, 2]))], records.VIDEO, 1, 4)
    np.testing.assert_array_equal(batch.labels, [[0, 1, 1, 0]])


@pytest.mark.parametrize("max_frames", [20, 170, 300])
def test_the_real_frame_level_record_is_read_alike(max_frames, real_data):
    (record,) = records.read_records(real_data / "frame" / "SjJ3.tfrecord")
    compare([record.payload], records.FRAME, max_frames, records.NUM_CLASSES)


def test_real_video_level_records_are_read_alike(real_data):
    paths = sorted((real_data / "video").glob("*/*.tfrecord"))
    assert paths
    for path in paths[::6]:
        payloads = [record.payload for record in records.read_records(path)]
        compare(payloads, records.VIDEO, 1, records.NUM_CLASSES)
