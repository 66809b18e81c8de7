import dataclasses
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import frame_video, mean_video
from tests.trainer.shards import (
    FORMS,
    NUM_CLASSES,
    contents,
    cut_off,
    evaluation,
    frame_shards,
    mean_shards,
    places_of,
    rated_shards,
    replace,
    run,
    spoil,
    training,
    videos_of,
    write_shard,
)
from trainer import input_pipeline, records
from trainer.batches import BatchBuilder
from trainer.config import DataConfig
from trainer.errors import InputError
from trainer.example_order import ExampleOrder


@pytest.fixture
def shards(tmp_path, rng):
    """Three shards of 4 frame-level videos of 1 to 9 frames; ids `a0` … `c3`."""
    return frame_shards(tmp_path, rng)


@pytest.fixture(params=list(FORMS))
def form(request):
    return FORMS[request.param]


@pytest.fixture
def all_shards(shards, tmp_path, rng):
    return [*shards, *rated_shards(tmp_path, rng)]


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


# Threads


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
