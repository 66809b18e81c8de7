"""Reading on over damaged records, whatever a read gives."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.test_tfrecord import PAYLOADS, STARTS
from trainer import tfrecord, tfrecord_scan


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shard.tfrecord"
    tfrecord.write_records(path, PAYLOADS)
    return path


class Dripping:
    """A file that gives at most `most` bytes at a time, as one in a bucket may."""

    def __init__(self, data, most):
        self.data, self.at, self.most = data, 0, most

    def read(self, size):
        part = self.data[self.at : self.at + min(size, self.most)]
        self.at += len(part)
        return part


def scanned(data, most=1 << 30, **options):
    return list(tfrecord_scan.scan_records(Dripping(data, most), "shard", len(data), **options))


SIZES = st.lists(st.sampled_from([0, 1, 300, 65535, 65537, 300_000]), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, most=st.sampled_from([7, 4096, 1 << 30]), start=st.integers(0, 5))
def test_a_scan_reads_what_was_written(sizes, most, start, tmp_path_factory):
    """Small and large records after each other, whatever a read gives, from any record on."""
    most = max(most, sum(sizes) // 1000)
    payloads = [os.urandom(1) * size for size in sizes]
    path = tmp_path_factory.mktemp("scan") / "shard"
    tfrecord.write_records(path, payloads)
    index = tfrecord.index_file(path)
    start = min(start, len(sizes))
    offset = int(index.offsets[start])
    source = Dripping(path.read_bytes(), most)
    source.at = offset
    found = list(
        tfrecord_scan.scan_records(source, "shard", len(source.data), first=start, offset=offset)
    )
    assert [record.payload for record in found] == payloads[start:]
    assert [record.index for record in found] == list(range(start, len(sizes)))
    assert [record.offset for record in found] == index.offsets[start:-1].tolist()


def test_a_scan_stops_where_it_is_told(shard):
    found = scanned(shard.read_bytes(), end=STARTS[2])
    assert [record.payload for record in found] == PAYLOADS[:2]


def test_a_scan_goes_on_after_a_damaged_record(shard):
    data = bytearray(shard.read_bytes())
    data[STARTS[2] + 14] ^= 1
    found = scanned(bytes(data))
    assert [getattr(one, "payload", None) for one in found] == [PAYLOADS[0], b"", None, b"4"]
    assert found[2] == tfrecord_scan.Damage(
        2, STARTS[2], "the checksum of its 16 bytes does not match: damaged", whole_rest=False
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:40], "the file ends inside its header, 40 bytes long: cut off"),
        (lambda data: data[:60], "the file ends 9 bytes before the record does: cut off"),
        (lambda data: data[:37] + b"\xff" + data[38:], "the checksum of its length does not match"),
    ],
)
def test_a_scan_ends_where_no_record_can_be_found(spoil, reason, shard):
    found = scanned(spoil(shard.read_bytes()))
    assert [getattr(one, "payload", None) for one in found] == [PAYLOADS[0], b"", None]
    assert (found[2].record, found[2].offset, found[2].whole_rest) == (2, STARTS[2], True)
    assert found[2].reason.startswith(reason)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty; expected a TFRecord file"),
        (b"short", "is no TFRecord file: only 5 bytes long"),
        (b"<html>not a shard</html>", "is no TFRecord file: it starts with"),
    ],
)
def test_a_scan_of_something_else(data, reason):
    ((damage),) = scanned(data)
    assert (damage.record, damage.offset, damage.whole_rest) == (0, 0, True)
    assert damage.reason.startswith(reason)


def test_a_scan_of_a_file_that_becomes_shorter(shard):
    data = shard.read_bytes()
    found = list(tfrecord_scan.scan_records(Dripping(data[:60], 99), "shard", len(data)))
    assert [getattr(one, "payload", None) for one in found] == [PAYLOADS[0], b"", None]
    assert found[2].reason == "the file has become shorter: cut off"


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 85), bit=st.integers(0, 7))
def test_a_scan_finds_each_flipped_bit(place, bit, tmp_path_factory):
    path = tmp_path_factory.mktemp("flip") / "shard"
    tfrecord.write_records(path, PAYLOADS)
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    found = scanned(bytes(data))
    damaged = [one for one in found if isinstance(one, tfrecord_scan.Damage)]
    assert len(damaged) == 1
    whole = [one.payload for one in found if isinstance(one, tfrecord.Record)]
    assert all(payload in PAYLOADS for payload in whole)
    assert STARTS[damaged[0].record] <= place < STARTS[damaged[0].record + 1]


def test_a_read_that_fails_is_said_with_the_place_of_the_record(shard):
    """After a damaged record, too: none is lost twice."""
    data = bytearray(shard.read_bytes())
    data[STARTS[0] + 14] ^= 1
    source = Dripping(bytes(data), 1 << 30)
    whole, read = source.read, []

    def failing(size):
        read.append(size)
        if source.at >= STARTS[2]:
            raise OSError(errno.EIO, "Input/output error")
        return whole(min(size, STARTS[2] - source.at))

    source.read = failing
    found = list(tfrecord_scan.scan_chunks(source, "shard", len(data)))
    assert [type(one).__name__ for one in found] == ["Damage", "Chunk", "Damage"]
    assert (found[0].record, found[0].whole_rest) == (0, False)
    assert (found[1].index, len(found[1])) == (1, 1)
    assert found[2] == tfrecord_scan.Damage(
        2, STARTS[2], "can not be read on: Input/output error", whole_rest=True
    )
