import dataclasses
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import frame_video, mean_video
from tests.trainer.shards import (
    NUM_CLASSES,
    cut_off,
    frame_shards,
    mean_shards,
    places_of,
    replace,
    spoil,
    videos_of,
    write_shard,
)
from trainer import input_pipeline, records
from trainer.batches import BatchBuilder, BatchMemory, as_tensor
from trainer.config import DataConfig
from trainer.errors import InputError
from trainer.example_order import ExampleOrder
from trainer.input_pipeline import TrainingInput, evaluation_batches


@pytest.fixture
def shards(tmp_path, rng):
    """Three shards of 4 frame-level videos of 1 to 9 frames; ids `a0` … `c3`."""
    return frame_shards(tmp_path, rng)


def data_of(**changes):
    return DataConfig(**{"max_frames": 6, "shuffle_shards": 2, "readers": 2} | changes)


def training(shards, batch_size=5, seed=0, worker=0, workers=1, level=records.FRAME, **changes):
    return TrainingInput(
        shards, level, NUM_CLASSES, data_of(**changes), batch_size, seed, worker, workers
    )


def evaluation(shards, batch_size=5, worker=0, workers=1, level=records.FRAME, **changes):
    return evaluation_batches(
        shards, level, NUM_CLASSES, data_of(**changes), batch_size, worker, workers
    )


def contents(batch):
    """All that a batch holds, to the bit."""
    arrays = {**batch.features, "labels": batch.labels, "places": batch.places}
    if batch.weights is not None:
        arrays["weights"] = batch.weights
    found = {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}
    return found, tuple(batch.video_ids)


def run(given_input, *epochs):
    """Contents of all batches of some epochs."""
    return [
        contents(batch)
        for epoch in epochs
        for batch in given_input.batches(epoch, range(given_input.epoch_steps))
    ]


def by_id(shards):
    return {video.video_id: video for video in videos_of(shards)}


def check_frames(batch, row, video, chosen):
    """The row has these frames of the video, and zeros."""
    count = len(chosen)
    assert batch.features["num_frames"][row] == count
    for name in ("rgb", "audio"):
        codes = batch.features[name][row]
        np.testing.assert_array_equal(codes[:count], getattr(video, name)[chosen])
        assert not codes[count:].any()


# What evaluation sees


@pytest.mark.parametrize("batch_size", [1, 5, 12, 50])
def test_evaluation_sees_every_record_once_in_order(batch_size, shards):
    """Cut and padded, against the strict reader."""
    batches = list(evaluation(shards, batch_size))
    sizes = [len(batch.video_ids) for batch in batches]
    assert sum(sizes) == 12
    assert set(sizes[:-1]) <= {batch_size}
    assert sizes[-1] <= batch_size
    rows = [(batch, row) for batch in batches for row in range(len(batch.video_ids))]
    for place, video, (batch, row) in zip(places_of(shards), videos_of(shards), rows, strict=True):
        assert batch.video_ids[row] == video.video_id
        assert batch.places[row].tolist() == place.tolist()
        check_frames(batch, row, video, np.arange(min(video.num_frames, 6)))
        np.testing.assert_array_equal(np.flatnonzero(batch.labels[row]), np.sort(video.labels))
        assert set(batch.labels[row]) <= {0, 1}
        assert batch.weights is None


def test_evaluation_sees_all_frames_whatever_training_sees(shards):
    plain = [contents(batch) for batch in evaluation(shards)]
    assert [contents(b) for b in evaluation(shards, train_frames=2, shuffle_shards=1)] == plain


@pytest.mark.parametrize("workers", [2, 3, 5, 20])
def test_shares_of_an_evaluation_are_all_records(workers, tmp_path, rng):
    shards = frame_shards(tmp_path, rng, (0, 4, 0, 0, 3, 6, 0))
    shares = [
        [
            video_id
            for batch in evaluation(shards, 2, worker, workers)
            for video_id in batch.video_ids
        ]
        for worker in range(workers)
    ]
    full = [shard for shard in shards if shard.records]
    assert [*itertools.chain.from_iterable(shares)] == [v.video_id for v in videos_of(full)]
    assert {len(share) for share in shares} <= {13 // workers, -(-13 // workers)}


def test_a_video_of_which_one_feature_is_shorter(tmp_path, rng):
    video = frame_video(rng, 5)
    short = dataclasses.replace(video, audio=video.audio[:3])
    shard = write_shard(tmp_path / "a", [short])
    (batch,) = evaluation([shard])
    check_frames(batch, 0, short, np.arange(3))


def test_video_level_records(tmp_path, rng):
    shards = mean_shards(tmp_path, rng)
    batches = list(evaluation(shards, 3, level=records.VIDEO))
    videos = iter(videos_of(shards))
    for batch in batches:
        assert batch.features.keys() == {"mean_rgb", "mean_audio"}
        for row, video in enumerate(itertools.islice(videos, len(batch.video_ids))):
            assert batch.video_ids[row] == video.video_id
            np.testing.assert_array_equal(batch.features["mean_rgb"][row], video.rgb)
            np.testing.assert_array_equal(batch.features["mean_audio"][row], video.audio)
            np.testing.assert_array_equal(np.flatnonzero(batch.labels[row]), np.sort(video.labels))
    assert next(videos, None) is None
    assert batches[0].features["mean_rgb"].dtype == np.float32
    seen = [one for _, ids in run(training(shards, 4, level=records.VIDEO), 0) for one in ids]
    assert sorted(seen) == sorted(by_id(shards))


# What training sees


def test_an_epoch_of_training_sees_each_video_once(shards):
    videos = by_id(shards)
    given_input = training(shards, 4)
    assert given_input.epoch_steps == 3
    seen = []
    for batch in given_input.batches(0, range(3)):
        for row, video_id in enumerate(batch.video_ids):
            video = videos[video_id]
            check_frames(batch, row, video, np.arange(min(video.num_frames, 6)))
            np.testing.assert_array_equal(np.flatnonzero(batch.labels[row]), np.sort(video.labels))
        seen += batch.video_ids
    assert sorted(seen) == sorted(videos)


def test_a_training_batch_is_full_and_static(shards):
    given_input = training(shards, 5)
    assert given_input.epoch_steps == 2  # of 12 records; two wait for another epoch's order
    for batch in given_input.batches(0, range(2)):
        shapes = {name: (a.dtype, a.shape) for name, a in batch.features.items()}
        assert shapes == {
            "rgb": (np.uint8, (5, 6, 1024)),
            "audio": (np.uint8, (5, 6, 128)),
            "num_frames": (np.int32, (5,)),
        }
        assert (batch.labels.dtype, batch.labels.shape) == (np.float32, (5, NUM_CLASSES))
        assert batch.places.shape == (5, 2)


def test_every_epoch_leaves_others_out(shards):
    """Of twelve records two stay out of each epoch: not always the same ones."""
    given_input = training(shards, 5)
    left = [
        frozenset(by_id(shards)) - {one for _, ids in run(given_input, epoch) for one in ids}
        for epoch in range(6)
    ]
    assert {len(one) for one in left} == {2}
    assert len(set(left)) > 1


def test_the_order_follows_from_seed_and_epoch(shards):
    first = run(training(shards, seed=1), 0)
    assert run(training(shards, seed=1), 0) == first
    assert run(training(shards, seed=1), 1) != first
    assert run(training(shards, seed=2), 0) != first


@pytest.mark.parametrize("form", [{}, {"shuffle_shards": 1}, {"read_block": 3}])
def test_the_order_is_that_of_the_configuration(form, shards):
    settings = {"shuffle_shards": 2, "read_block": 1} | form
    order = ExampleOrder([4, 4, 4], 9, **settings)
    batches = training(shards, 4, seed=9, **form).batches(3, range(1, 3))
    places = np.concatenate([batch.places for batch in batches])
    np.testing.assert_array_equal(places, order.locate(3, 4, 8))


FORMS = [
    {},
    {"train_frames": 3},
    {"train_frames": 2, "read_block": 3, "shuffle_shards": 1},
    {"segments": True, "segments_per_video": 2},
]


@pytest.fixture(params=range(len(FORMS)), ids=["all", "frames", "blocks", "segments"])
def form(request):
    return FORMS[request.param]


@pytest.fixture
def rated_shards(tmp_path, rng):
    """Two shards of five videos of 4 to 29 frames with up to six rated segments each."""
    found = []
    for name in "de":
        videos = []
        for i in range(5):
            video = frame_video(rng, int(rng.integers(4, 30)), [1, 3], f"{name}{i}")
            pairs = int(rng.integers(0, 7))
            rated = records.Segments(
                5 * rng.integers(0, 5, pairs),
                rng.integers(0, NUM_CLASSES, pairs),
                rng.integers(0, 2, pairs).astype(np.float32),
            )
            videos.append(dataclasses.replace(video, segments=rated if pairs else None))
        found.append(write_shard(tmp_path / f"{name}.tfrecord", videos))
    return found


@pytest.fixture
def all_shards(shards, rated_shards):
    return [*shards, *rated_shards]


@pytest.mark.parametrize(("readers", "prefetch"), [(1, 1), (3, 1), (2, 4), (9, 30), (0, 2)])
def test_threads_change_nothing(readers, prefetch, form, all_shards):
    expected = run(training(all_shards, **form), 0, 1)
    assert run(training(all_shards, **form, readers=readers, prefetch=prefetch), 0, 1) == expected


def test_threads_change_nothing_with_damaged_records(form, all_shards):
    spoil(all_shards[0], 0, 2)
    cut_off(all_shards[1], 2)
    form = form | {"corrupt_records": 4}
    given_input = training(all_shards, **form, readers=1)
    expected = run(given_input, 0, 1, 2)
    assert given_input.reader.damaged == 4
    assert run(training(all_shards, **form, readers=3, prefetch=5), 0, 1, 2) == expected


def test_a_training_that_goes_on_sees_what_it_would_have_seen(form, all_shards):
    """From any step on, frames and segments included; by an input that has not seen the others."""
    expected = run(training(all_shards, 4, **form), 0, 1)
    steps = len(expected) // 2
    for epoch in range(2):
        for step in range(steps):
            batches = training(all_shards, 4, **form).batches(epoch, range(step, steps))
            rest = expected[epoch * steps :][step:steps]
            assert list(map(contents, batches)) == rest
    some = training(all_shards, 4, **form).batches(1, range(2, 0, -1))
    assert list(map(contents, some)) == [expected[steps + 2], expected[steps + 1]]


@pytest.mark.parametrize("workers", [2, 3, 6])
def test_shares_of_workers_are_the_whole_batch(workers, form, all_shards):
    whole = training(all_shards, 6, **form)
    shares = [training(all_shards, 6, worker=w, workers=workers, **form) for w in range(workers)]
    steps = range(whole.epoch_steps)
    for batch, *parts in zip(
        whole.batches(1, steps), *(share.batches(1, steps) for share in shares), strict=True
    ):
        assert [len(part.places) for part in parts] == [6 // workers] * workers
        joined = dataclasses.replace(
            batch,
            features={
                name: np.concatenate([part.features[name] for part in parts])
                for name in batch.features
            },
            labels=np.concatenate([part.labels for part in parts]),
            weights=None
            if batch.weights is None
            else np.concatenate([part.weights for part in parts]),
            video_ids=[one for part in parts for one in part.video_ids],
            places=np.concatenate([part.places for part in parts]),
        )
        assert contents(joined) == contents(batch)


def test_the_shards_of_a_step_are_named(shards):
    given_input = training(shards, 4, worker=1, workers=2)
    whole = training(shards, 4)
    for epoch in range(3):
        for step, batch in enumerate(whole.batches(epoch, range(3))):
            expected = sorted({f"{video_id[0]}.tfrecord" for video_id in batch.video_ids})
            named = given_input.shards_of(epoch, step)
            assert [Path(path).name for path in named] == expected
            assert set(named) <= {str(shard.path) for shard in shards}


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


# Bad records


def test_an_error_is_raised_when_its_batch_is_due(shards):
    given_input = training(shards, 2, readers=2, prefetch=4)
    expected = run(given_input, 0)
    fourth = given_input.order.locate(0, 6, 2)
    shard, record = fourth[1].tolist()
    spoil(shards[shard], record)
    read = []
    with pytest.raises(InputError, match=rf"{shards[shard].path}: record {record} \(at byte"):
        for batch in training(shards, 2, readers=2, prefetch=4).batches(0, range(6)):
            read.append(contents(batch))
    assert read == expected[:3]
    assert no_readers()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rng: b"garbage", "neither a SequenceExample"),
        (lambda rng: records.encode(frame_video(rng, labels=[12])), "label 12 is out of range"),
        (lambda rng: records.encode(mean_video(rng)), "is video-level, expected frame-level"),
    ],
)
def test_a_bad_record_is_named(make, words, shards, rng):
    replace(shards[1], 2, make(rng))
    for batches in (evaluation(shards), training(shards, 4).batches(0, range(3))):
        with pytest.raises(InputError, match=rf"b\.tfrecord: record 2 \(at byte .*{words}"):
            list(batches)


def test_training_passes_over_what_is_tolerated_and_evaluation_nothing(shards, capsys):
    expected = sorted([*by_id(shards).keys() - {"b2"}, "b1"])
    spoil(shards[1], 2)
    given_input = training(shards, 4, corrupt_records=1)
    assert sorted(one for _, ids in run(given_input, 0) for one in ids) == expected
    assert given_input.reader.damaged == 1
    assert "passed over" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"b\.tfrecord: record 2"):
        list(evaluation(shards, corrupt_records=1))


# Threads and memory


def no_readers():
    return not any(thread.name.startswith("reader") for thread in threading.enumerate())


def test_an_input_that_is_given_up_leaves_no_threads(shards):
    batches = training(shards, 2, readers=3, prefetch=3).batches(0, range(6))
    next(batches)
    assert not no_readers()
    batches.close()
    assert no_readers()
    list(training(shards, 2).batches(0, range(6)))
    assert no_readers()


def test_what_was_to_be_read_ahead_is_not_read_any_more(shards, monkeypatch):
    parsed, given_up = [], threading.Event()
    parse = records.parse

    def waiting(record):
        parsed.append(record)
        if len(parsed) > 1:
            given_up.wait(10)
        return parse(record)

    class Pool(ThreadPoolExecutor):
        def __exit__(self, *args):
            given_up.set()
            return super().__exit__(*args)

    monkeypatch.setattr(records, "parse", waiting)
    monkeypatch.setattr(input_pipeline, "ThreadPoolExecutor", Pool)
    batches = training(shards, 1, readers=1, prefetch=8).batches(0, range(12))
    next(batches)
    batches.close()
    assert len(parsed) <= 2


def test_a_whole_epoch_is_not_read_ahead(shards, monkeypatch):
    given_input = training(shards, 1, prefetch=2)
    begun = []
    new = BatchBuilder.new
    monkeypatch.setattr(
        BatchBuilder, "new", lambda self, places: begun.append(len(begun)) or new(self, places)
    )
    for number, _ in enumerate(given_input.batches(0, range(12))):
        assert len(begun) == min(12, number + 3)


@pytest.mark.parametrize(("readers", "expected"), [(0, 3), (1, 1), (40, 40)])
def test_as_many_threads_as_cores(readers, expected, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert input_pipeline.threads(DataConfig(readers=readers)) == expected
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert input_pipeline.threads(DataConfig(readers=readers)) == (readers or 16)


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


def test_a_tensor_that_lives_keeps_its_contents(form, all_shards):
    """Batches as a training holds them: some tensors of each, some for long, parts of others."""
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
