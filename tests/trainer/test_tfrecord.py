import contextlib
import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import tfrecord
from trainer.errors import InputError

PAYLOADS = [b"first", b"", b"the third record", b"4"]
STARTS = [0, 21, 37, 69, 86]
"""First byte of each record of `PAYLOADS`, 16 bytes more than its payload, and the end."""


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shard.tfrecord"
    tfrecord.write_records(path, PAYLOADS)
    return path


@contextlib.contextmanager
def opened(path):
    descriptor = tfrecord.open_file(os.fspath(path))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_each(path):
    """By the index, each record on its own: its payload, or the error that it ends with."""
    index = tfrecord.index_file(path)
    found = []
    with opened(path) as descriptor:
        for number in range(len(index)):
            try:
                (record,) = tfrecord.read_block(descriptor, index, number, 1)
                found.append(record.payload)
            except InputError as error:
                found.append(error)
    return found + [index.damage] * (index.damage is not None)


@settings(max_examples=30, deadline=None)
@given(payloads=st.lists(st.binary(max_size=300), min_size=1, max_size=8))
def test_files_are_tensorflow_s(tmp_path_factory, payloads):
    """What we write TensorFlow reads, what it writes we read, and the bytes are the same."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("shards")
    assert tfrecord.write_records(folder / "ours", payloads) == len(payloads)
    with tf.io.TFRecordWriter(str(folder / "theirs")) as writer:
        for payload in payloads:
            writer.write(payload)
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()
    read = list(tfrecord.read_records(folder / "ours"))
    assert [record.payload for record in read] == payloads
    assert [record.index for record in read] == list(range(len(payloads)))


def test_the_index_says_where_each_record_stands(shard):
    index = tfrecord.index_file(shard)
    assert len(index) == 4
    assert index.path == str(shard)
    assert index.offsets.tolist() == STARTS
    assert index.damage is None
    content = shard.read_bytes()
    stored = [content[end - 4 : end] for end in STARTS[1:]]
    assert [int(crc).to_bytes(4, "little") for crc in index.checksums] == stored


def test_a_block_is_that_part_of_the_file_in_whatever_order(shard):
    every = list(tfrecord.read_records(shard))
    assert [record.offset for record in every] == STARTS[:-1]
    index = tfrecord.index_file(shard)
    with opened(shard) as descriptor:
        os.lseek(descriptor, 7, os.SEEK_SET)
        for start in (3, 0, 2, 1):
            for count in range(1, 5 - start):
                block = list(tfrecord.read_block(descriptor, index, start, count))
                assert block == every[start : start + count]
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 7


def test_a_block_is_one_read(shard, monkeypatch):
    index = tfrecord.index_file(shard)
    reads = []
    pread = os.pread
    with opened(shard) as descriptor, monkeypatch.context() as patch:
        patch.setattr(os, "pread", lambda *args: reads.append(args) or pread(*args))
        list(tfrecord.read_block(descriptor, index, 1, 3))
    assert len(reads) == 1


@pytest.fixture
def reads(monkeypatch):
    """How many bytes each read brought."""
    counts = []
    pread = os.pread

    def counted(descriptor, size, offset):
        counts.append(len(data := pread(descriptor, size, offset)))
        return data

    monkeypatch.setattr(os, "pread", counted)
    return counts


def test_an_index_reads_no_long_payload(tmp_path, reads):
    path = tmp_path / "large"
    tfrecord.write_records(path, [bytes(100_000)] * 5)
    assert len(tfrecord.index_file(path)) == 5
    assert sum(reads) == 5 * 16  # a header and the checksums of each


def test_an_index_reads_many_short_records_at_once(tmp_path, reads):
    path = tmp_path / "small"
    payloads = [bytes([number % 251]) * (number * 7 % 3000) for number in range(1000)]
    tfrecord.write_records(path, payloads)
    index = tfrecord.index_file(path)
    assert len(reads) < 12
    assert np.diff(index.offsets).tolist() == [len(payload) + 16 for payload in payloads]
    assert index.checksums.tolist() == [tfrecord.masked_crc32c(payload) for payload in payloads]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 16_384, 16_385, 262_120, 262_132, 262_144]), min_size=1))
def test_an_index_of_short_and_long_records_is_that_of_reading_them(tmp_path_factory, sizes):
    path = tmp_path_factory.mktemp("mixed") / "shard"
    tfrecord.write_records(path, [bytes(size) for size in sizes])
    index = tfrecord.index_file(path)
    assert np.diff(index.offsets).tolist() == [size + 16 for size in sizes]
    assert len(list(tfrecord.read_records(path))) == len(index)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_changed_byte_costs_its_record_or_where_the_next_ones_start(shard, mask):
    """Each byte of a file: what is intact is read, and one error names file, record and offset."""
    content = shard.read_bytes()
    for position in range(len(content)):
        spoiled = bytearray(content)
        spoiled[position] ^= mask
        shard.write_bytes(spoiled)
        number = np.searchsorted(STARTS, position, side="right") - 1
        named = re.escape(f"{shard}: record {number} (at byte {STARTS[number]:,}): ")
        if position < 12:
            with pytest.raises(InputError, match=re.escape(f"{shard}: is no TFRecord file: ")):
                tfrecord.index_file(shard)
            continue
        expected = list(PAYLOADS)
        in_header = position < STARTS[number] + 12
        expected[number : len(PAYLOADS) if in_header else number + 1] = [None]
        found = read_each(shard)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            if other is None:
                assert re.match(named + "the checksum of its .* does not match: damaged", str(one))
            else:
                assert one == other


def test_a_file_that_is_cut_off_keeps_its_first_records(shard):
    content = shard.read_bytes()
    for size in range(12, len(content)):
        shard.write_bytes(content[:size])
        whole = int(np.searchsorted(STARTS, size, side="right") - 1)
        *found, last = read_each(shard)
        if size in STARTS:  # nothing tells that more was there
            assert [*found, last] == PAYLOADS[:whole]
            continue
        assert found == PAYLOADS[:whole]
        assert str(last).startswith(f"{shard}: record {whole} (at byte {STARTS[whole]}): ")
        assert str(last).endswith("cut off")


def test_the_records_after_a_damaged_one_can_be_read_by_another_call(shard):
    content = bytearray(shard.read_bytes())
    content[STARTS[2] + 12] ^= 1
    shard.write_bytes(content)
    index, read = tfrecord.index_file(shard), []
    with opened(shard) as descriptor:
        words = (
            f"{shard}: record 2 (at byte 37): the checksum of its 16 bytes does not match: damaged"
        )
        with pytest.raises(InputError, match=re.escape(words)):
            read.extend(tfrecord.read_block(descriptor, index, 1, 3))
        assert [record.payload for record in read] == PAYLOADS[1:2]
        assert [r.payload for r in tfrecord.read_block(descriptor, index, 3, 1)] == PAYLOADS[3:]


@pytest.mark.parametrize("size", [0, 40, 64])
def test_a_file_that_became_shorter_is_told(size, shard):
    index = tfrecord.index_file(shard)
    os.truncate(shard, size)
    words = rf"{shard}: record \d \(at byte \d+\): the file has become shorter: cut off"
    with opened(shard) as descriptor:
        for start, count in ((1, 3), (2, 2), (2, 1), (3, 1)):
            with pytest.raises(InputError, match=words):
                list(tfrecord.read_block(descriptor, index, start, count))


def test_damage_keeps_nothing_alive(shard):
    """An error that was raised holds its frames, and those the walk's lists of a whole file."""
    os.truncate(shard, 80)
    assert tfrecord.index_file(shard).damage.__traceback__ is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_an_input_error_or_an_intact_prefix(tmp_path_factory, data):
    """Flip a byte or cut a file anywhere: never another exception, never a changed record."""
    payloads = [b"first", b"", b"third record"]
    path = tmp_path_factory.mktemp("damaged") / "shard"
    tfrecord.write_records(path, payloads)
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[position] ^= data.draw(st.integers(1, 255))
    else:
        del content[position:]
    path.write_bytes(content)
    read = []
    with contextlib.suppress(InputError):
        read.extend(record.payload for record in tfrecord.read_records(path))
    assert read == payloads[: len(read)]


@settings(max_examples=60, deadline=None)
@given(content=st.binary(min_size=1, max_size=60), intact=st.integers(0, 2))
def test_garbage_is_an_input_error(tmp_path_factory, content, intact):
    """Any bytes in the place of a file, or after the records of one."""
    path = tmp_path_factory.mktemp("garbage") / "shard"
    tfrecord.write_records(path, PAYLOADS[:intact])
    with path.open("ab") as file:
        file.write(content)
    if intact:
        assert read_each(path)[:intact] == PAYLOADS[:intact]
    else:
        with pytest.raises(InputError, match=f"^{re.escape(str(path))}: "):
            found = read_each(path)
            raise found[-1]


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    path = tmp_path / "shard.tfrecord"
    tfrecord.write_records(path, [b"a" * 100, b"b" * 100])
    content = path.read_bytes()

    def index_and_read(path):
        found = read_each(path)
        if errors := [one for one in found if isinstance(one, InputError)]:
            raise errors[0]

    for read in (index_and_read, lambda path: list(tfrecord.read_records(path))):
        for spoiled, words in (
            (b"", "is empty"),
            (b"short", "is no TFRecord file: only 5 bytes long"),
            (b"This is some text, no shard.", "is no TFRecord file: it starts with b'This is some"),
            (
                content[:-50],
                "record 1 (at byte 116): the file ends 50 bytes before the record does",
            ),
            (content[:120], "record 1 (at byte 116): the file ends inside its header"),
            (
                content[:150] + b"!" + content[151:],
                "record 1 (at byte 116): the checksum of its 100",
            ),
            (content[:20], "record 0 (at byte 0): the file ends 96 bytes before the record does"),
        ):
            path.write_bytes(spoiled)
            with pytest.raises(InputError, match=re.escape(f"{path}: {words}")):
                read(path)
        for absent in (tmp_path / "absent", tmp_path):
            with pytest.raises(InputError, match=f"{absent}: no such file"):
                read(absent)
