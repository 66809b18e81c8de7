"""What passes in pieces is found as in a file that is read whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.test_tfrecord_scan import scanned
from trainer import tfrecord
from trainer.passing_records import PassingRecords
from trainer.tfrecord_scan import Damage


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("passing") / "shard.tfrecord"
    tfrecord.write_records(path, [b"", b"a", bytes(range(256)) * 3, b"x" * 40, b"last"])
    return path.read_bytes()


def passed(data, sizes):
    found = PassingRecords("shard")
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    found.finish()
    return found


def assert_as_scanned(data, sizes):
    found, expected = passed(data, sizes), scanned(data)
    sound = [one for one in expected if not isinstance(one, Damage)]
    assert found.count == len(sound)
    assert (found.first.payload if found.first else None) == (sound[0].payload if sound else None)
    assert found.damages == [one for one in expected if isinstance(one, Damage)]


SIZES = st.lists(st.integers(1, 900), min_size=1, max_size=5)


@given(sizes=SIZES)
def test_pieces_of_any_sizes(content, sizes):
    assert_as_scanned(content, sizes)
    assert passed(content, sizes).count == 5


@settings(max_examples=300)
@given(data=st.data(), sizes=SIZES)
def test_a_byte_that_is_wrong(content, data, sizes):
    at = data.draw(st.integers(0, len(content) - 1))
    spoiled = bytearray(content)
    spoiled[at] ^= data.draw(st.integers(1, 255))
    assert_as_scanned(bytes(spoiled), sizes)


@given(data=st.data(), sizes=SIZES)
def test_a_file_that_ends_early(content, data, sizes):
    assert_as_scanned(content[: data.draw(st.integers(0, len(content) - 1))], sizes)


@given(garbage=st.binary(max_size=200), sizes=SIZES)
def test_a_file_that_is_none(garbage, sizes):
    assert_as_scanned(garbage, sizes)


def test_a_length_with_a_right_checksum_that_can_not_be(content):
    """It is not waited for: memory stays small."""
    length = (1 << 40).to_bytes(8, "little")
    header = length + tfrecord.masked_crc32c(length).to_bytes(4, "little")
    found = passed(content + header + b"x" * 1000, [64])
    (damage,) = found.damages
    assert (damage.record, damage.offset, damage.whole_rest) == (5, len(content), True)
    assert "states 1,099,511,627,776 bytes" in damage.reason
