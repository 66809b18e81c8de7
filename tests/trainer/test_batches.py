"""The arrays of a batch: chosen frames, rated segments, and memory that is used again."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.shards import (
    FORMS,
    NUM_CLASSES,
    evaluation,
    frame_shards,
    rated_shards,
    run,
    training,
    write_shard,
)
from trainer import records
from trainer.batches import BatchMemory, as_tensor


@pytest.fixture
def shards(tmp_path, rng):
    return frame_shards(tmp_path, rng)


# A choice of frames


def numbered(rng, count, video_id):
    """A video whose frames tell their number."""
    codes = np.repeat(np.arange(1, count + 1, dtype=np.uint8)[:, None], records.FEATURE_SIZE, 1)
    return records.VideoRecord(
        video_id, np.array([1]), codes[:, : records.RGB_SIZE], codes[:, records.RGB_SIZE :]
    )


def test_random_frames_of_the_first_ones(tmp_path, rng):
    lengths = [1, 3, 4, 5, 10, 30]
    shard = write_shard(tmp_path / "a", [numbered(rng, length, str(length)) for length in lengths])
    given_input = training([shard], 6, max_frames=10, train_frames=4)
    choices = {length: [] for length in lengths}
    for epoch in range(200):
        (batch,) = given_input.batches(epoch, range(1))
        assert batch.features["rgb"].shape == (6, 4, 1024)
        for row, video_id in enumerate(batch.video_ids):
            length = int(video_id)
            count = min(length, 4)
            assert batch.features["num_frames"][row] == count
            for name in ("rgb", "audio"):
                frames = batch.features[name][row]
                assert (frames == frames[:, :1]).all()
                assert not frames[count:].any()
            chosen = batch.features["rgb"][row, :count, 0].tolist()
            assert chosen == batch.features["audio"][row, :count, 0].tolist()
            assert chosen == sorted(set(chosen))
            assert set(chosen) <= set(range(1, min(length, 10) + 1))
            choices[length].append(tuple(chosen))
    for length in (1, 3, 4):
        assert set(choices[length]) == {tuple(range(1, length + 1))}
    for length, possible in ((5, 5), (10, 210), (30, 210)):
        assert len(set(choices[length])) > min(possible, 100) - 1
        # Each frame is seen as often: of 200 epochs 4/10 (or 4/5), ± 4 standard deviations.
        available = min(length, 10)
        share = 4 / available
        times = np.bincount(np.concatenate(choices[length]), minlength=available + 1)[1:]
        assert np.abs(times - 200 * share).max() < 4 * np.sqrt(200 * share * (1 - share))
    assert choices[10] != choices[30]


def test_the_choice_of_frames_and_segments_follows_from_the_seed(tmp_path, rng):
    pairs = [(5 * i, i, 1) for i in range(6)]
    shard = write_shard(tmp_path / "a", [rated_video(rng, 30, pairs)])
    for form in ({"max_frames": 30, "train_frames": 5}, {"segments": True}):
        first, again, other = (
            run(training([shard], 1, seed, **form), *range(6)) for seed in (1, 1, 2)
        )
        assert first == again
        assert first != other


def test_more_frames_than_there_are_is_all_of_them(shards):
    assert run(training(shards, train_frames=6), 0) == run(training(shards), 0)
    assert run(training(shards, train_frames=60), 0) == run(training(shards), 0)


# Rated segments


def segments_of(pairs):
    starts, labels, scores = zip(*pairs, strict=True)
    return records.Segments(
        np.array(starts, np.int64), np.array(labels, np.int64), np.array(scores, np.float32)
    )


def rated_video(rng, count, pairs, video_id="x"):
    return dataclasses.replace(numbered(rng, count, video_id), segments=segments_of(pairs))


def windows_of(batch, video=0):
    """(frames, {class: score} of the rated ones) of each window of a video."""
    per_video = len(batch.labels) // len(batch.video_ids)
    found = []
    for place in range(video * per_video, (video + 1) * per_video):
        count = batch.features["num_frames"][place]
        for name in ("rgb", "audio"):
            frames = batch.features[name][place]
            assert frames.shape[0] == 5
            assert (frames == frames[:, :1]).all()
            assert not frames[count:].any()
        assert set(batch.weights[place]) <= {0, 1}
        rated = np.flatnonzero(batch.weights[place])
        assert not np.delete(batch.labels[place], rated).any()
        chosen = batch.features["rgb"][place, :count, 0].tolist()
        found.append((chosen, {int(c): float(batch.labels[place, c]) for c in rated}))
    return found


def test_windows_of_rated_segments_by_hand(tmp_path, rng):
    pairs = [(10, 4, 1), (0, 2, 0), (10, 7, 0), (13, 4, 1)]
    videos = [
        rated_video(rng, 15, pairs, "rated"),
        numbered(rng, 8, "bare"),
        rated_video(rng, 7, [(7, 1, 1), (100, 2, 1), (6, 3, 1)], "beyond"),
    ]
    shard = write_shard(tmp_path / "a", videos)
    (batch,) = evaluation([shard], segments=True, segments_per_video=4, max_frames=3)
    assert batch.video_ids == ["rated", "bare", "beyond"]
    # In evaluation every segment has room: as many as there can be in 300 frames.
    assert batch.features["rgb"].shape == (180, 5, 1024)
    assert batch.features["rgb"].dtype == batch.features["audio"].dtype == np.uint8
    assert batch.labels.shape == batch.weights.shape == (180, NUM_CLASSES)
    assert batch.weights.dtype == np.float32
    nothing = ([], {})
    assert windows_of(batch, 0) == [
        ([1, 2, 3, 4, 5], {2: 0}),
        ([11, 12, 13, 14, 15], {4: 1, 7: 0}),
        ([14, 15], {4: 1}),
        *[nothing] * 57,
    ]
    assert windows_of(batch, 1) == [nothing] * 60
    assert windows_of(batch, 2) == [([7], {3: 1}), *[nothing] * 59]


@pytest.mark.parametrize(("segments", "windows"), [(5, 2), (3, 2), (7, 3), (4, 1), (6, 4)])
def test_of_more_segments_others_come_in_turn(segments, windows, tmp_path, rng):
    pairs = [(5 * i, i, 1) for i in range(segments)]
    shard = write_shard(
        tmp_path / "a", [rated_video(rng, 5 * segments, pairs, str(i)) for i in range(8)]
    )
    given_input = training([shard], 8, segments=True, segments_per_video=windows)
    turns = {}
    for epoch in range(2 * segments):
        (batch,) = given_input.batches(epoch, range(1))
        for row, video_id in enumerate(batch.video_ids):
            chosen = []
            for frames, rated in windows_of(batch, row):
                ((segment, score),) = rated.items()
                assert frames == [5 * segment + i for i in range(1, 6)]
                assert score == 1
                chosen.append(segment)
            assert len(set(chosen)) == windows
            turns.setdefault(video_id, []).append(chosen)
    for of_video in turns.values():
        seen = [segment for chosen in of_video for segment in chosen]
        for first in range(0, len(seen), segments):  # none again before each one was seen
            turn = seen[first : first + segments]
            assert len(set(turn)) == len(turn)
    assert len({str(of_video) for of_video in turns.values()}) > 1


def test_a_segment_beyond_the_video_takes_no_turn(tmp_path, rng):
    pairs = [(0, 1, 1), (5, 2, 0), (9, 3, 1), (10, 4, 1)]
    video = rated_video(rng, 9, pairs)
    short = rated_video(rng, 9, pairs, "short")
    short = dataclasses.replace(short, audio=short.audio[:7])
    shard = write_shard(tmp_path / "a", [video, short])
    given_input = training([shard], 2, segments=True, segments_per_video=1)
    seen = {"x": [], "short": []}
    for epoch in range(4):
        (batch,) = given_input.batches(epoch, range(1))
        for row, video_id in enumerate(batch.video_ids):
            seen[video_id] += windows_of(batch, row)
    whole = ([1, 2, 3, 4, 5], {1: 1})
    for video_id, end in (("x", [6, 7, 8, 9]), ("short", [6, 7])):
        assert sorted(seen[video_id][:2]) == sorted(seen[video_id][2:]) == [whole, (end, {2: 0})]


def test_as_many_segments_as_fit_are_all_seen(tmp_path, rng):
    pairs = [(10, 1, 1), (0, 2, 0), (5, 3, 1)]
    shard = write_shard(tmp_path / "a", [rated_video(rng, 15, pairs)])
    given_input = training([shard], 1, segments=True, segments_per_video=3)
    for epoch in range(3):
        (batch,) = given_input.batches(epoch, range(1))
        assert [rated for _, rated in windows_of(batch)] == [{2: 0}, {3: 1}, {1: 1}]


# Memory


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
@pytest.mark.parametrize("shape", [(5, 6, 128), (3, 1), (7,), (1, 1, 1)])
def test_a_tensor_is_its_array(dtype, shape, rng):
    array = BatchMemory().array(shape, dtype)
    assert (array.shape, array.dtype) == (shape, dtype)
    array[:] = rng.integers(0, 200, shape)
    expected = array.copy()
    tensor = as_tensor(array)
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor, expected)
    # Taken over, not copied: what is written to the array is in the tensor.
    array[:] = 7
    np.testing.assert_array_equal(tensor, np.full(shape, 7))


def test_what_can_not_be_taken_over_is_copied(rng):
    array = BatchMemory().array((8, 64), np.float32)
    array[:] = rng.standard_normal(array.shape)
    for part in (array[:, ::2], array.T, array.reshape(-1)[1:], array[1:, 3]):
        tensor = as_tensor(part)
        np.testing.assert_array_equal(tensor, part)
        before = part.copy()
        array += 1
        np.testing.assert_array_equal(tensor, before)


def test_memory_is_used_again_when_nobody_holds_it():
    memory = BatchMemory()
    first = memory.array((4, 8), np.float32)
    second = memory.array((4, 8), np.float32)
    places = {address(first), address(second)}
    assert len(places) == 2
    del first, second
    for _ in range(5):  # of as many bytes, whatever the shape
        one, other = memory.array((8, 16), np.uint8), memory.array((32,), np.int32)
        assert {address(one), address(other)} == places
        del one, other
    array = memory.array((4, 8), np.float32)
    held = address(array)
    part = array[2:]
    del array
    tensor = as_tensor(memory.array((4, 8), np.float32))
    assert address(memory.array((4, 8), np.float32)) not in places
    del part
    assert address(memory.array((4, 8), np.float32)) == held
    again = as_tensor(memory.array((4, 8), np.float32))
    del tensor
    assert address(memory.array((4, 8), np.float32)) in places - {held}
    del again


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_tensor_that_lives_keeps_its_contents(form, shards, tmp_path, rng):
    """Batches as a training holds them: some tensors of each, some for long, parts of others."""
    all_shards = [*shards, *rated_shards(tmp_path, rng)]
    given_input = training(all_shards, 3, **form, readers=3)
    expected = run(training(all_shards, 3, **form), *range(4))
    held, number = [], 0
    for epoch in range(4):
        for batch in given_input.batches(epoch, range(given_input.epoch_steps)):
            found, _ = expected[number]
            tensors = {name: as_tensor(array) for name, array in batch.features.items()}
            tensors["labels"] = as_tensor(batch.labels)
            for name, tensor in tensors.items():
                if (number + len(name)) % 3 == 0:
                    held.append((tensor, found[name][2]))
                elif (number + len(name)) % 3 == 1:  # an operation's, which may share the memory
                    held.append((tf.reshape(tensor, [-1]), found[name][2]))
            if number % 4 == 1:
                held = held[len(held) // 2 :]
            for tensor, content in held:
                assert tensor.numpy().tobytes() == content
            del batch, tensors
            number += 1
    assert number == len(expected)


def test_a_long_run_uses_the_memory_of_a_few_batches(shards):
    """Those ahead, the one that is held, and the one that the generator let go of last."""
    given_input = training(shards, 4, prefetch=2)
    places = set()
    for epoch in range(20):
        for batch in given_input.batches(epoch, range(3)):
            places.add(address(batch.features["rgb"]))
            del batch
    assert len(places) <= 4
