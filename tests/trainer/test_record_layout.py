import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer import wire
from tests.trainer.wire import Field
from trainer import record_layout
from trainer.example_proto import SequenceExample

FEATURES = [(b"a", wire.ints([7])), (b"b", wire.strings(b"xy")), (b"c", wire.floats([1, 2]))]
LISTS = [(b"d", wire.frames(np.zeros((2, 3), np.uint8))), (b"e", [])]


def payload_of(context=FEATURES, lists=LISTS):
    return wire.serialized(wire.record(context, lists))


def value(feature):
    """A Feature with nothing around it, and its span."""
    payload = wire.serialized(feature)
    (kind,) = feature
    content = kind.content if isinstance(kind.content, bytes) else wire.serialized(kind.content)
    return payload, (kind.number << 3 | wire.LENGTH, len(payload) - len(content), len(payload))


def test_the_layout_by_hand():
    payload = bytes.fromhex(
        "0a 16"  # the context
        "0a 0d 0a 01 61 12 08 1a 06 0a 04 01 02 03 04"  # a: an Int64List, the bytes 11 to 16
        "0a 05 0a 01 62 12 00"  # b: a Feature without a value, at 24
        "12 09"  # the feature lists
        "0a 07 0a 01 63 12 02 0a 00"  # c: a list of one empty Feature, at 33 and 34
    )
    layout = record_layout.locate(payload)
    assert layout.context == {
        b"a": (record_layout.INT64, 11, 17),
        b"b": (record_layout.NO_KIND, 24, 24),
    }
    assert layout.lists == {b"c": (33, 35)}
    assert record_layout.integers(payload, layout.context[b"a"]) == [1, 2, 3, 4]


def test_a_record_may_have_either_part_or_none():
    assert record_layout.locate(b"") == record_layout.Layout({}, {})
    assert record_layout.locate(payload_of(lists=None)).context.keys() == {b"a", b"b", b"c"}
    only_lists = wire.serialized(wire.record([], LISTS)[1:])
    assert record_layout.locate(only_lists).lists.keys() == {b"d", b"e"}


def test_other_layouts_are_left_to_the_message_library():
    record = wire.record(FEATURES, LISTS)
    context, lists = record
    long_name = Field(1, [Field(1, b"a" * 200), Field(2, [])])
    for fields in (
        [lists, context],
        [context, context],
        [lists, lists],
        [*wire.record(FEATURES[:1]), *wire.record(FEATURES[1:])],
        [Field(1, [Field(2, wire.entry(b"a", []).content)])],
        [Field(2, [Field(2, wire.entry(b"a", []).content)])],
        [Field(2, [Field(3, wire.entry(b"a", []).content)])],
        [context, lists, Field(3, [])],
        [Field(3, context.content)],
        [*record, Field(4, 1, wire.VARINT)],
        [Field(1, 5, wire.VARINT)],
        [Field(1, b"", wire.FOUR_BYTES)],
        wire.record([*FEATURES, FEATURES[0]], LISTS),
        wire.record([*FEATURES, (b"a", [])], LISTS),
        wire.record([(b"a", []), *FEATURES], LISTS),
        wire.record(FEATURES, [*LISTS, LISTS[0]]),
        wire.record([(b"\xff", [])]),
        wire.record([("ä".encode(), [])]),
        wire.record([(b"a", wire.ints([1]) + wire.ints([2]))]),
        wire.record([(b"a", [Field(4, b"x")])]),
        [Field(1, [Field(2, b"x")])],
        [Field(1, [Field(1, [Field(1, b"a")])])],
        [Field(1, [Field(1, [Field(2, [])])])],
        [Field(1, [Field(1, [Field(2, []), Field(1, b"a")])])],
        [Field(1, [Field(1, [Field(1, b"a"), Field(1, b"b"), Field(2, [])])])],
        [Field(1, [Field(1, [Field(1, b"a"), Field(2, []), Field(2, [])])])],
        [Field(1, [], more_tag=1)],
        [Field(1, [long_name], more_length=4)],
    ):
        assert record_layout.locate(wire.serialized(fields)) is None


def test_a_length_may_be_as_long_as_the_message_library_takes_it():
    long_name = Field(1, [Field(1, b"a" * 200), Field(2, [])])
    for more in range(5):
        payload = wire.serialized([Field(1, [long_name], more_length=more)])
        read = record_layout.locate(payload)
        assert (read is not None) == (more <= 3)
        if read:
            assert SequenceExample.FromString(payload).context.feature.keys() == {"a" * 200}
            assert read.context.keys() == {b"a" * 200}


def test_bytes_that_end_too_early_are_left_to_the_message_library():
    """Cut anywhere, or with a length that reaches beyond the message it is in."""
    payload = payload_of()
    (context,) = wire.record(FEATURES)
    ends = {0, len(wire.serialized([context])), len(payload)}
    for end in range(len(payload) + 1):
        assert (record_layout.locate(payload[:end]) is not None) == (end in ends)
    entry = wire.serialized([wire.entry(b"a", [])])
    beyond = bytes([0x0A, len(entry) - 1]) + entry + b"\x12\x00"
    assert record_layout.locate(beyond) is None


def frame_list(codes):
    payload = b"before" + wire.serialized(wire.frames(codes)) + b"after"
    return payload, (6, len(payload) - 5)


@pytest.mark.parametrize("size", [128, 1024])
def test_frames_are_read_where_they_stand(size, rng):
    codes = rng.integers(0, 256, (3, size), dtype=np.uint8)
    payload, span = frame_list(codes)
    found = record_layout.frame_codes(payload, span, size)
    np.testing.assert_array_equal(found, codes)
    assert np.shares_memory(found, np.frombuffer(payload, np.uint8))
    assert not found.flags.writeable
    for other in (127, 129, 1023, 1025):
        assert record_layout.frame_codes(payload, span, other) is None


@pytest.mark.parametrize("size", [128, 1024])
def test_each_byte_before_a_frame_matters(size):
    payload, (start, end) = frame_list(np.zeros((3, size), np.uint8))
    stride = size + 9
    assert (end - start) % stride == 0
    for frame in range(3):
        for i in range(9):
            for mask in (1, 0x80):
                spoiled = bytearray(payload)
                spoiled[start + frame * stride + i] ^= mask
                assert record_layout.frame_codes(bytes(spoiled), (start, end), size) is None
    for span in ((start, start), (start, end - 1), (start, end - 9), (start, start + 9)):
        assert record_layout.frame_codes(payload, span, size) is None
    assert len(record_layout.frame_codes(payload, (start, start + stride), size)) == 1


def test_floats_by_hand():
    payload, span = value(wire.floats([1, -2.5, 3]))
    assert record_layout.floats(payload, span, 3).tolist() == [1, -2.5, 3]
    for size in (2, 4):
        assert record_layout.floats(payload, span, size) is None
    for feature in (
        wire.unpacked_floats([1, -2.5, 3]),
        [Field(wire.FLOAT, [])],
        [Field(wire.INT64, wire.floats([1, -2.5, 3])[0].content)],
        [Field(wire.FLOAT, [Field(1, bytes(8)), Field(1, bytes(4))])],
        [Field(wire.FLOAT, [Field(2, bytes(12))])],
        [Field(wire.FLOAT, b"\x0a")],
        [Field(wire.FLOAT, b"\x0a\x8c")],
        [Field(wire.FLOAT, b"\x0a" + b"\xff" * 9)],
        [Field(wire.FLOAT, b"\x0a\x0d" + bytes(13))],
        [Field(wire.FLOAT, b"\x0a\x0c" + bytes(13))],
    ):
        assert record_layout.floats(*value(feature), 3) is None


def test_integers_by_hand():
    for values in ([], [0], [1, 127, 128, 300], [2**35 - 1, 5]):
        assert record_layout.integers(*value(wire.ints(values))) == values
    assert record_layout.integers(*value([Field(wire.INT64, [])])) == []
    assert record_layout.integers(b"", (record_layout.NO_KIND, 0, 0)) == []
    overlong = [Field(wire.INT64, [Field(1, wire.varint(5, 3) + wire.varint(300, 1))])]
    assert record_layout.integers(*value(overlong)) == [5, 300]
    for feature in (
        wire.ints([-1]),
        wire.ints([2**35]),
        wire.unpacked_ints([1]),
        [Field(wire.FLOAT, [])],
        [Field(wire.BYTES, [])],
        [Field(wire.BYTES, wire.ints([1])[0].content)],
        [Field(wire.INT64, [Field(2, b"\x01")])],
        [Field(wire.INT64, [Field(1, b"\x01"), Field(1, b"\x02")])],
        [Field(wire.INT64, b"\x0a")],
        [Field(wire.INT64, b"\x0a\x01\x80")],
        [Field(wire.INT64, b"\x0a\x02\x01")],
    ):
        assert record_layout.integers(*value(feature)) is None
    # The last one's varint would go on in the bytes after the list.
    payload, span = value([Field(wire.INT64, b"\x0a\x02\x01\x80")])
    assert record_layout.integers(payload + b"\x01", span) is None


def test_a_byte_string_by_hand():
    for one in (b"", b"abcd", b"x" * 300):
        assert record_layout.single_bytes(*value(wire.strings(one))) == one
    for feature in (
        wire.strings(),
        wire.strings(b"a", b"b"),
        [Field(wire.FLOAT, wire.strings(b"a")[0].content)],
        [Field(wire.BYTES, [Field(2, b"a")])],
        [Field(wire.BYTES, [Field(1, 7, wire.VARINT)])],
        [Field(wire.BYTES, b"\x0a")],
        [Field(wire.BYTES, b"\x0a\x02a")],
    ):
        assert record_layout.single_bytes(*value(feature)) is None
    assert record_layout.single_bytes(b"", (record_layout.NO_KIND, 0, 0)) is None


@settings(max_examples=200, deadline=None)
@given(
    content=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 300), max_size=6).map(
        lambda values: b"".join(map(wire.varint, values))
    )
    | st.binary(max_size=12),
    tag=st.sampled_from([b"\x0a", b"\x0a", b"\x08", b"\x12"]),
)
def test_integers_that_are_read_are_the_message_library_s(content, tag):
    feature = [Field(wire.INT64, tag + wire.varint(len(content)) + content)]
    found = record_layout.integers(*value(feature))
    if found is not None:
        message = SequenceExample.FromString(payload_of([(b"a", feature)]))
        assert list(message.context.feature["a"].int64_list.value) == found
