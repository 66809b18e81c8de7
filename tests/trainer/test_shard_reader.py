import contextlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import frame_video, mean_video
from tests.trainer.shards import (
    NUM_CLASSES,
    cut_off,
    frame_shards,
    places_of,
    replace,
    spoil,
    videos_of,
    write_shard,
)
from trainer import records, tfrecord
from trainer.errors import InputError
from trainer.shard_reader import ShardReader


@pytest.fixture
def shards(tmp_path, rng):
    """Three shards of 4, 6 and 5 frame-level videos; ids `a0` … `c4`."""
    return frame_shards(tmp_path, rng, (4, 6, 5))


def reader_of(shards, tolerance=0, keep_open=64):
    return ShardReader(shards, records.FRAME, NUM_CLASSES, tolerance, keep_open)


def ids(reader, *places):
    return [video.video_id for video in reader.read(np.array(places, np.int64).reshape(-1, 2))]


def warnings(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if "warning" in line]


def test_any_records_in_any_order(shards, rng):
    places = places_of(shards)
    expected = videos_of(shards)
    reader = reader_of(shards)
    for order in (np.arange(15), rng.permutation(15), rng.integers(0, 15, 40), [3], []):
        read = list(reader.read(places[np.array(order, int)]))
        assert [video.video_id for video in read] == [expected[i].video_id for i in order]
        for video, i in zip(read, order, strict=True):
            for name in ("labels", "rgb", "audio"):
                np.testing.assert_array_equal(getattr(video, name), getattr(expected[i], name))


def test_neighbours_are_read_as_one(shards, monkeypatch):
    blocks = []
    read_block = tfrecord.read_block

    def noted(descriptor, index, start, count):
        blocks.append((Path(index.path).stem, start, count))
        return read_block(descriptor, index, start, count)

    monkeypatch.setattr(tfrecord, "read_block", noted)
    places = [(0, 1), (0, 2), (0, 3), (1, 4), (1, 4), (1, 5), (2, 0), (1, 1), (1, 0)]
    assert ids(reader_of(shards), *places) == ["a1", "a2", "a3", "b4", "b4", "b5", "c0", "b1", "b0"]
    assert blocks == [
        ("a", 1, 3), ("b", 4, 1), ("b", 4, 2), ("c", 0, 1), ("b", 1, 1), ("b", 0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 4])
def test_a_damaged_record_is_named(count, shards):
    spoil(shards[1], 2)
    offset = tfrecord.index_file(shards[1].path).offsets[2]
    reader, read = reader_of(shards), []
    places = np.array([(0, 0), *((1, 2 - count // 2 + i) for i in range(count))])
    words = f"{shards[1].path}: record 2 (at byte {offset:,}): the checksum of its "
    with pytest.raises(InputError, match=re.escape(words)):
        read.extend(video.video_id for video in reader.read(places))
    assert read == ["a0", "b0", "b1"][: 1 + count // 2]
    assert reader.damaged == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rng: b"garbage", "its 7 bytes are neither a SequenceExample nor an Example"),
        (lambda rng: records.encode(frame_video(rng, labels=[12])), "label 12 is out of range"),
        (lambda rng: records.encode(frame_video(rng, labels=[-1])), "label -1 is out of range"),
        (lambda rng: records.encode(mean_video(rng)), "is video-level, expected frame-level"),
        (lambda rng: _rated(rng, 12), "label 12 is out of range"),
        (lambda rng: _rated(rng, -1), "label -1 is out of range"),
    ],
)
def test_a_bad_record_is_named(make, words, shards, rng, capsys):
    replace(shards[1], 2, make(rng))
    offset = tfrecord.index_file(shards[1].path).offsets[2]
    with pytest.raises(
        InputError,
        match=re.escape(f"{shards[1].path}: record 2 (at byte {offset:,}): {words}"),
    ):
        ids(reader_of(shards), *places_of(shards))
    assert ids(reader_of(shards, 1), (1, 1), (1, 2), (1, 3)) == ["b1", "b1", "b3"]
    (line,) = warnings(capsys)
    assert words in line


def _rated(rng, label):
    video = frame_video(rng, 5)
    segments = records.Segments(np.array([0]), np.array([label]), np.ones(1, np.float32))
    return records.encode(records.VideoRecord("x", video.labels, video.rgb, video.audio, segments))


def test_a_level_is_held_both_ways(tmp_path, rng):
    shard = write_shard(tmp_path / "a", [frame_video(rng)])
    with pytest.raises(InputError, match="is frame-level, expected video-level"):
        list(ShardReader([shard], records.VIDEO, NUM_CLASSES).read(np.array([[0, 0]])))


def test_the_nearest_sound_record_before_takes_the_place(shards, capsys):
    spoil(shards[1], 0, 3, 4)
    spoil(shards[2], 0, 1, 2)
    reader = reader_of(shards, tolerance=6)
    assert ids(reader, (2, 1), (2, 0), (2, 3)) == ["c3", "c3", "c3"]
    assert reader.damaged == len(warnings(capsys)) == 3
    assert ids(reader, *[(1, i) for i in range(6)]) == ["b1", "b1", "b2", "b2", "b2", "b5"]
    found = warnings(capsys)
    assert reader.damaged == 6
    assert len(found) == 3
    for number, line in zip((0, 3, 4), found, strict=True):
        assert line.startswith(f"[train] warning: passed over: {shards[1].path}: record {number} (")
        assert line.endswith("damaged")
    # Once read, they cost no other warning, alone or in a block, nor more of what is tolerated.
    assert ids(reader, (1, 4), (1, 3), (1, 0), (0, 0)) == ["b2", "b2", "b1", "a0"]
    assert ids(reader, *[(1, i) for i in range(6)]) == ["b1", "b1", "b2", "b2", "b2", "b5"]
    assert warnings(capsys) == []
    assert reader.damaged == 6


def test_damaged_records_that_a_place_is_looked_for_at_count(shards, capsys):
    spoil(shards[1], 2, 3)
    reader = reader_of(shards, tolerance=2)
    assert ids(reader, (1, 3)) == ["b1"]
    assert reader.damaged == len(warnings(capsys)) == 2
    with pytest.raises(InputError, match=r"records so far: 2, data\.corrupt_records allows 1"):
        ids(reader_of(shards, tolerance=1), (1, 3))


def test_one_more_than_tolerated_stops(shards, capsys):
    spoil(shards[0], 1)
    spoil(shards[2], 0, 4)
    reader = reader_of(shards, tolerance=2)
    assert ids(reader, (0, 1), (2, 0)) == ["a0", "c1"]
    words = re.escape(f"{shards[2].path}: record 4 (at byte ")
    end = "damaged; damaged records so far: 3, data.corrupt_records allows 2$"
    for _ in range(2):  # and goes on to stop
        with pytest.raises(InputError, match=f"^{words}.*{end}"):
            ids(reader, (2, 4))
    assert reader.damaged == len(warnings(capsys)) == 2
    assert ids(reader, (0, 1), (2, 0)) == ["a0", "c1"]


def test_a_shard_that_is_cut_off_loses_its_last_records(shards, capsys):
    cut_off(shards[1], 3)
    offset = tfrecord.index_file(shards[1].path).offsets[3]
    named = f"{shards[1].path}: record 3 (at byte {offset:,}): the file ends "
    with pytest.raises(InputError, match=re.escape(named)):
        ids(reader_of(shards), *places_of(shards))
    assert ids(reader_of(shards), (1, 0), (1, 2)) == ["b0", "b2"]
    reader = reader_of(shards, tolerance=3)
    assert ids(reader, *[(1, i) for i in range(6)]) == ["b0", "b1", "b2", "b2", "b2", "b2"]
    assert ids(reader, (1, 5), (1, 4)) == ["b2", "b2"]
    found = warnings(capsys)
    assert len(found) == 3
    assert all(named in line for line in found)
    assert found[0].endswith("cut off")
    assert found[1].endswith("cut off (record 4 is lost)")
    assert found[2].endswith("cut off (record 5 is lost)")
    with pytest.raises(InputError, match=r"cut off; damaged records so far: 3, .* allows 2"):
        ids(reader_of(shards, tolerance=2), *[(1, i) for i in range(6)])


def test_an_error_is_a_new_one_each_time(shards):
    """One that is raised over and over keeps alive every frame it has passed."""
    cut_off(shards[0], 2)
    reader = reader_of(shards)
    errors = []
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            ids(reader, (0, 3))
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == str(errors[1])


@pytest.mark.parametrize("tolerance", [0, 3, 50])
@pytest.mark.parametrize("count", [5, 7])
def test_a_shard_that_changed_since_the_manifest_is_told(count, tolerance, shards, rng):
    write_shard(shards[1].path, [frame_video(rng) for _ in range(count)])
    words = f"{shards[1].path}: has {count} records, the manifest has 6: it has changed"
    with pytest.raises(InputError, match=re.escape(words)):
        ids(reader_of(shards, tolerance), (0, 0), (1, 0))


@pytest.mark.parametrize("tolerance", [0, 4, 50])
def test_a_shard_with_no_sound_record_stops(tolerance, shards):
    spoil(shards[0], 0, 1, 2, 3)
    with pytest.raises(InputError, match=r"a\.tfrecord: record 2 \(at byte .*: damaged"):
        ids(reader_of(shards, tolerance), (0, 2))
    shards[1].path.unlink()
    with pytest.raises(InputError, match=r"b\.tfrecord: no such file"):
        ids(reader_of(shards, tolerance), (1, 2))
    shards[2].path.write_bytes(b"some other file")
    with pytest.raises(InputError, match=r"c\.tfrecord: is no TFRecord file"):
        ids(reader_of(shards, tolerance), (2, 2))


def open_files(folder):
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor that lists them is gone
            found.append(link.readlink())
    return [path for path in found if folder in path.parents]


@pytest.mark.parametrize("keep_open", [1, 2])
def test_few_files_stay_open(keep_open, shards, tmp_path):
    reader = reader_of(shards, keep_open=keep_open)
    for _ in range(2):
        assert ids(reader, (0, 1), (1, 1), (2, 1)) == ["a1", "b1", "c1"]
        assert len(open_files(tmp_path)) == keep_open
    del reader
    assert open_files(tmp_path) == []


def test_the_file_that_was_not_used_for_longest_is_closed(shards, tmp_path):
    reader = reader_of(shards, keep_open=2)
    ids(reader, (0, 1), (1, 1), (0, 2), (2, 1))
    assert {path.stem for path in open_files(tmp_path)} == {"a", "c"}


def test_a_file_stays_open_for_who_reads_it(shards):
    """Its turn to be closed comes while a block of it is half read."""
    reader = reader_of(shards, keep_open=1)
    reading = reader.read(np.array([(0, 0), (0, 1), (0, 2)]))
    assert next(reading).video_id == "a0"
    assert ids(reader, (1, 0), (2, 0)) == ["b0", "c0"]
    assert [video.video_id for video in reading] == ["a1", "a2"]


@pytest.mark.parametrize("keep_open", [1, 64])
def test_threads_change_nothing(keep_open, shards, rng, capsys):
    spoil(shards[0], 0, 3)
    cut_off(shards[1], 4)
    spoil(shards[2], 2)
    orders = [places_of(shards)[rng.integers(0, 15, 30)] for _ in range(24)]
    alone = reader_of(shards, 5)
    expected = [ids(alone, *places) for places in orders]
    assert alone.damaged == len(warnings(capsys)) == 5
    reader = reader_of(shards, 5, keep_open)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda places: ids(reader, *places), orders))
    assert found == expected
    assert reader.damaged == len(warnings(capsys)) == 5


def test_threads_index_a_file_once(shards, monkeypatch):
    walks = []
    index_file = tfrecord.index_file

    def noted(path):
        walks.append(path)
        time.sleep(0.05)  # so that all threads come here, if they may
        return index_file(path)

    monkeypatch.setattr(tfrecord, "index_file", noted)
    reader = reader_of(shards)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda i: ids(reader, (0, i)), range(4)))
    assert read == [["a0"], ["a1"], ["a2"], ["a3"]]
    assert len(walks) == 1
