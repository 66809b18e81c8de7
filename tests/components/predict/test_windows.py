"""Which records share a window follows from the shard alone."""

import itertools

import pytest

from components.predict.windows import InputShard, Piece, pieces_of, read_windows
from tests.components.predict.conftest import spoil
from trainer import records, tfrecord


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "s.tfrecord"
    records.write_records(path, [bytes([65 + i]) * (i + 1) for i in range(7)])
    return path


def seen(windows):
    return [[record.index for record in window.records] for window in windows]


def test_windows_by_hand(shard):
    windows = list(read_windows(str(shard), 3))
    assert seen(windows) == [[0, 1, 2], [3, 4, 5], [6]]
    assert [record.payload for record in windows[2].records] == [b"GGGGGGG"]
    assert windows[0].end < windows[1].end < windows[2].end <= shard.stat().st_size


def test_pieces_read_what_the_whole_does(shard):
    pieces = pieces_of(5, InputShard(str(shard), shard.stat().st_size), 3)
    offsets = tfrecord.index_file(shard).offsets
    assert pieces == [
        Piece(5, 0, 0, offsets[3]), Piece(5, 3, offsets[3], offsets[6]), Piece(5, 6, offsets[6]),
    ]  # fmt: skip
    found = [one for piece in pieces for one in read_windows(str(shard), 3, piece)]
    assert [one.records for one in found] == [one.records for one in read_windows(str(shard), 3)]


def test_a_damaged_record_stays_in_its_window(shard):
    offset = spoil(shard, 4, 12)
    first, second, third = read_windows(str(shard), 3)
    assert seen([first, second, third]) == [[0, 1, 2], [3, 5], [6]]
    (refused,) = second.refused
    assert not refused.whole_rest
    assert str(refused.error()).startswith(f"{shard}: record 4 (at byte {offset}): the checksum")


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_a_file_that_ends_early(size, shard):
    data = shard.read_bytes()
    shard.write_bytes(data[: tfrecord.index_file(shard).offsets[5] + 3])
    windows = list(read_windows(str(shard), size))
    assert [*itertools.chain.from_iterable(seen(windows))] == [0, 1, 2, 3, 4]
    assert [(one.record, one.whole_rest) for one in windows[-1].refused] == [(5, True)]
    pieces = pieces_of(0, InputShard(str(shard), 0), size)
    found = [one for piece in pieces for one in read_windows(str(shard), size, piece)]
    assert [*itertools.chain.from_iterable(seen(found))] == [0, 1, 2, 3, 4]
    assert [one.refused for one in found if one.refused] == [windows[-1].refused]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"<html>a page, not a shard</html>", "is no TFRecord file"),
        (b"abc", "is no TFRecord file"),
    ],
)
def test_what_is_no_shard(content, words, tmp_path):
    path = tmp_path / "x.tfrecord"
    if content is not None:
        path.write_bytes(content)
    assert pieces_of(2, InputShard(str(path), 0), 3) == [Piece(2)]
    (window,) = read_windows(str(path), 3)
    assert not window.records
    assert words in str(window.refused[0].error())


def test_what_is_in_a_bucket_is_one_piece():
    assert pieces_of(2, InputShard("gs://bucket/s.tfrecord", 9), 3) == [Piece(2)]
