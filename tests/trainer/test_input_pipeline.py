import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import frame_video, mean_video
from trainer import records, tensor_records
from trainer.errors import InputError
from trainer.input_pipeline import evaluation_batches, located, training_batches
from trainer.manifest import Shard


@pytest.fixture
def shards(tmp_path, rng):
    """Three shards of 4 frame-level videos of 1 to 9 frames; ids `a0` … `c3`."""
    found = []
    for name in "abc":
        videos = [
            frame_video(
                rng, int(rng.integers(1, 10)), rng.choice(12, 3, replace=False), f"{name}{i}"
            )
            for i in range(4)
        ]
        path = tmp_path / f"{name}.tfrecord"
        records.write_records(path, map(records.encode, videos))
        found.append(Shard("train", str(path), path.stat().st_size, "", 4))
    return found


def strict(shards):
    for shard in shards:
        for record in records.read_records(shard.path):
            yield records.parse(record)


def test_both_readers_agree(shards):
    """TensorFlow's parsing against the strict reader, record by record, cut and padded."""
    batches = list(evaluation_batches(shards, "frame", 12, 6, 5))
    assert [len(ids) for ids, _, _ in batches] == [5, 5, 2]
    rows = [
        (video_id, {k: v[i].numpy() for k, v in features.items()}, labels[i].numpy())
        for ids, features, labels in batches
        for i, video_id in enumerate(ids.numpy())
    ]
    for video, (video_id, features, labels) in zip(strict(shards), rows, strict=True):
        n = min(video.num_frames, 6)
        assert video_id.decode() == video.video_id
        assert features["num_frames"] == n
        np.testing.assert_array_equal(features["rgb"][:n], video.rgb[:n])
        np.testing.assert_array_equal(features["audio"][:n], video.audio[:n])
        assert not features["rgb"][n:].any()
        np.testing.assert_array_equal(np.flatnonzero(labels), np.sort(video.labels))


def test_video_level_records_of_both_releases(tmp_path, rng):
    videos = [mean_video(rng, [1, 1, 2], "new"), mean_video(rng, [], "old")]
    payloads = [records.encode(video) for video in videos]
    # A field name is the only difference of release 1: it has one more byte pair, so re-encode.
    message = tf.train.Example.FromString(payloads[1])
    message.features.feature["video_id"].bytes_list.value.append(b"old")
    del message.features.feature["id"]
    payloads[1] = message.SerializeToString() + b"\x12\x00"
    batch = tensor_records.parse_video_batch(tf.constant(payloads))
    assert batch["id"].numpy().tolist() == [b"new", b"old"]
    np.testing.assert_array_equal(batch["mean_rgb"][1], videos[1].rgb)
    hot = tensor_records.multi_hot(batch["labels"], 4).numpy()
    np.testing.assert_array_equal(hot, [[0, 1, 1, 0], [0, 0, 0, 0]])


def epoch(shards, seed, number):
    batches = training_batches(shards, "frame", 12, 6, 4, 8, seed, number)
    return np.concatenate([labels.numpy() for _, labels in batches])


def test_the_order_follows_from_seed_and_epoch(shards):
    first = epoch(shards, 1, 0)
    np.testing.assert_array_equal(first, epoch(shards, 1, 0))
    assert not np.array_equal(first, epoch(shards, 1, 1))
    assert not np.array_equal(first, epoch(shards, 2, 0))
    np.testing.assert_array_equal(np.sort(first, axis=0), np.sort(epoch(shards, 2, 5), axis=0))


def test_a_training_batch_is_full_and_static(shards):
    dataset = training_batches(shards, "frame", 12, 6, 5, 8, 0, 0)
    features, labels = dataset.element_spec
    assert labels.shape == (5, 12)
    assert features["rgb"].shape[1:] == (6, 1024)
    assert features["rgb"].dtype == tf.uint8
    assert len(list(dataset)) == 2  # of 12 records; two wait for another epoch's order


def spoil(shards, number, payload):
    shard = shards[number]
    payloads = [record.payload for record in records.read_records(shard.path)]
    payloads[2] = payload
    records.write_records(shard.path, payloads)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rng: b"garbage", "neither a SequenceExample"),
        (lambda rng: records.encode(frame_video(rng, labels=[12])), "label 12 is out of range"),
        (lambda rng: records.encode(frame_video(rng, labels=[-1])), "label -1 is out of range"),
        (lambda rng: records.encode(mean_video(rng)), "is video-level, expected frame-level"),
    ],
)
def test_a_bad_record_is_named(make, words, shards, rng):
    spoil(shards, 1, make(rng))
    batches = evaluation_batches(shards, "frame", 12, 6, 4)
    with pytest.raises(InputError, match=rf"b\.tfrecord: record 2 \(at byte .*{words}"):
        list(located(batches, shards, "frame", 12))


def test_a_frame_of_the_wrong_size_is_named(shards, rng):
    message = tf.train.SequenceExample.FromString(records.encode(frame_video(rng, 3)))
    message.feature_lists.feature_list["audio"].feature[1].bytes_list.value[0] = b"x" * 100
    spoil(shards, 0, message.SerializeToString())
    with pytest.raises(InputError, match="frame 1 of audio has 100 bytes, expected 128"):
        list(located(evaluation_batches(shards, "frame", 12, 6, 4), shards, "frame", 12))


def test_a_shard_that_is_cut_off_is_named(shards):
    path = shards[2].path
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"c\.tfrecord: record 3 .* cut off"):
        list(located(evaluation_batches(shards, "frame", 12, 6, 4), shards, "frame", 12))
