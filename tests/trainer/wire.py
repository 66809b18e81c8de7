"""Records by hand, as trees of protocol buffer fields: layouts that nobody writes but all may read.

https://protobuf.dev/programming-guides/encoding
"""

import copy
import dataclasses

import numpy as np
from hypothesis import strategies as st

from trainer import records

VARINT, EIGHT_BYTES, LENGTH, GROUP, END_GROUP, FOUR_BYTES = range(6)
BYTES, FLOAT, INT64 = 1, 2, 3
"""Numbers of a Feature's kinds."""
KEYS = tuple(
    key.encode()
    for key in (
        *records.ID_KEYS, records.LABELS_KEY, records.RGB_KEY, records.AUDIO_KEY,
        records.FEATURES_KEY, "silence", "extractor",
        records.MEAN_RGB_KEY, records.MEAN_AUDIO_KEY, records.SEGMENT_LABELS_KEY,
        records.SEGMENT_START_KEY, records.SEGMENT_SCORES_KEY, "other",
    )
)  # fmt: skip
NO_KEYS = (b"", b"\xff\xfe", b"l\xc3\xa4bels", b"labels\x00", b"\xed\xa0\x80")
NUMBERS = (*range(1, 5), 15, 16, 2047, 2**29 - 1)


@dataclasses.dataclass
class Field:
    """One field; `content` is a message's fields, a leaf's bytes, or an integer.

    `more_tag`, `more_length`: bytes that make the varints longer than need be.
    """

    number: int
    content: object
    wire: int = LENGTH
    more_tag: int = 0
    more_length: int = 0


def varint(value, more=0):
    """Any integer as a varint (of negative ones the two's complement), `more` bytes too long."""
    value &= 2**64 - 1
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F)
    parts += [0] * more
    return bytes([*(part | 0x80 for part in parts[:-1]), parts[-1]])


def serialized(fields):
    """The bytes of a message."""
    return b"".join(map(_field_bytes, fields))


def _field_bytes(field):
    start = varint(field.number << 3 | field.wire, field.more_tag)
    if field.wire == VARINT:
        return start + varint(field.content, field.more_length)
    content = field.content if isinstance(field.content, bytes) else serialized(field.content)
    if field.wire == LENGTH:
        return start + varint(len(content), field.more_length) + content
    if field.wire == GROUP:
        return start + content + varint(field.number << 3 | END_GROUP)
    return start + content


def ints(values):
    """A Feature of packed integers."""
    return [Field(INT64, [Field(1, b"".join(map(varint, values)))])]


def unpacked_ints(values):
    return [Field(INT64, [Field(1, value, VARINT) for value in values])]


def floats(values):
    """A Feature of packed floats."""
    return [Field(FLOAT, [Field(1, np.asarray(values, "<f4").tobytes())])]


def unpacked_floats(values):
    values = np.asarray(values, "<f4")
    return [Field(FLOAT, [Field(1, value.tobytes(), FOUR_BYTES) for value in values])]


def strings(*values):
    """A Feature of byte strings."""
    return [Field(BYTES, [Field(1, value) for value in values])]


def entry(key, value):
    """An entry of a map, of a feature or of a feature list."""
    return Field(1, [Field(1, key), Field(2, value)])


def frames(codes):
    """A feature list of one byte string a frame."""
    return [Field(1, strings(row.tobytes())) for row in codes]


def record(context, lists=None):
    """The fields of a record of (key, Feature) and (key, feature list) pairs."""
    found = [Field(1, [entry(*pair) for pair in context])]
    if lists is not None:
        found.append(Field(2, [entry(*pair) for pair in lists]))
    return found


def frame_record(rng, num_frames=2, more_context=(), more_lists=()):
    """A frame-level record with the features that each one has, and more."""
    codes = rng.integers(0, 256, (num_frames, records.FEATURE_SIZE), dtype=np.uint8)
    return record(
        [(b"id", strings(b"abcd")), (b"labels", ints([1, 3])), *more_context],
        [
            (b"rgb", frames(codes[:, : records.RGB_SIZE])),
            (b"audio", frames(codes[:, records.RGB_SIZE :])),
            *more_lists,
        ],
    )


def video_record(rng, more_context=(), lists=None):
    values = rng.uniform(-2, 2, records.FEATURE_SIZE)
    return record(
        [
            (b"id", strings(b"abcd")),
            (b"labels", ints([1, 3])),
            (b"mean_rgb", floats(values[: records.RGB_SIZE])),
            (b"mean_audio", floats(values[records.RGB_SIZE :])),
            *more_context,
        ],
        lists,
    )


SEGMENTS = (
    (b"segment_start_times", ints([0, 5])),
    (b"segment_labels", ints([3, 4])),
    (b"segment_scores", floats([1, 0])),
)


@st.composite
def strange_records(draw):
    """Payloads of records, changed in up to three places of their tree."""
    rng = np.random.default_rng(draw(st.integers(0, 3)))
    fields = draw(
        st.sampled_from(
            [
                frame_record(rng, 1),
                frame_record(rng, 2),
                frame_record(rng, 1, SEGMENTS),
                video_record(rng),
                video_record(rng, lists=[]),
            ]
        )
    )
    fields = copy.deepcopy(fields)
    fields[0].content[: draw(st.integers(0, 2))] = []  # so that what is added is not twice there
    for _ in range(draw(st.integers(0, 3))):
        change = draw(st.sampled_from(_CHANGES))
        if change is _other_entry:
            change(draw, fields)
        else:
            change(draw, _some_message(draw, fields))
    return serialized(fields)


def _some_message(draw, fields):
    """The message or one inside it, as likely a high one as a low one."""
    while (inner := [f.content for f in fields if isinstance(f.content, list)]) and draw(
        st.integers(0, 3)
    ):
        fields = draw(st.sampled_from(inner))
    return fields


def _place(draw, message):
    return draw(st.integers(0, len(message) - 1))


def _unknown(draw, message):
    """A field that the message may not have, of any wire type."""
    wire = draw(st.sampled_from([VARINT, EIGHT_BYTES, LENGTH, GROUP, FOUR_BYTES]))
    content = {
        VARINT: draw(st.integers(-(2**63), 2**63 - 1)),
        EIGHT_BYTES: b"12345678",
        LENGTH: draw(
            st.sampled_from(
                [b"", b"x", b"\x0a", b"\x0a\x00", b"\x0a\xff\xff\xff\xff\xff\xff",
                 serialized([entry(b"labels", ints([2]))])]
            )
        ),
        GROUP: b"",
        FOUR_BYTES: b"\x00\x00\x80\x3f",
    }[wire]  # fmt: skip
    message.insert(
        draw(st.integers(0, len(message))), Field(draw(st.sampled_from(NUMBERS)), content, wire)
    )


def _drop(draw, message):
    if message:
        del message[_place(draw, message)]


def _empty(draw, message):
    message.clear()


def _repeat(draw, message):
    if message:
        message.insert(_place(draw, message), copy.deepcopy(message[_place(draw, message)]))


def _swap(draw, message):
    if message:
        i, j = _place(draw, message), _place(draw, message)
        message[i], message[j] = message[j], message[i]


def _renumber(draw, message):
    if message:
        message[_place(draw, message)].number = draw(st.sampled_from(NUMBERS))


def _overlong(draw, message):
    if message:
        field = message[_place(draw, message)]
        field.more_tag = draw(st.sampled_from([0, 0, 1, 3, 4, 5, 9]))
        field.more_length = draw(st.sampled_from([0, 1, 2, 3, 4, 5, 9]))


def _split(draw, message):
    """One submessage as two, which a reader has to merge."""
    if message:
        i = _place(draw, message)
        field = message[i]
        if isinstance(field.content, list):
            cut = draw(st.integers(0, len(field.content)))
            second = dataclasses.replace(field, content=field.content[cut:])
            del field.content[cut:]
            message.insert(i + 1, second)


def _leaf(draw, message):
    """Other bytes in the place of some; keys become other keys."""
    if message:
        field = message[_place(draw, message)]
        if isinstance(field.content, bytes):
            field.content = draw(
                st.sampled_from([*KEYS, *NO_KEYS, b"\x0a", b"\x80", b"\xff" * 10])
                | st.binary(max_size=6)
                | st.sampled_from([field.content[:-1], field.content[:-4], field.content * 2])
            )


def _other_feature(draw, message):
    """The fields of a Feature, in the place of the message's or after them."""
    feature = draw(
        st.sampled_from(
            [
                ints([]), ints([5]), ints([2**31, 2**34, 2**35]), ints([-1]), ints([2**63 - 1]),
                unpacked_ints([4, 0]), unpacked_ints([-2]),
                [Field(INT64, [Field(1, varint(5, 1) + varint(300, 3) + varint(1, 8))])],
                [Field(INT64, [Field(1, varint(5)), Field(1, varint(6))])],
                [Field(INT64, [Field(1, varint(5)), Field(1, 6, VARINT)])],
                [Field(INT64, [])], [Field(FLOAT, [])], [Field(BYTES, [])], [],
                [Field(INT64, b"\x0a")], [Field(FLOAT, b"\x0a")], [Field(BYTES, b"\x0a")],
                [Field(FLOAT, b"\x0a\xff\xff\xff\xff\xff\xff")],
                floats([]), floats([1.5]), unpacked_floats([0.5, 2]), floats([np.nan] * 128),
                floats(np.linspace(0, 1, 1024)), unpacked_floats(np.linspace(0, 1, 128)),
                strings(), strings(b""), strings(b"one"), strings(b"one", b"two"),
                ints([1]) + ints([2]), ints([1]) + floats([1]), strings(b"a") + strings(b"b"),
            ]
        )
    )  # fmt: skip
    if draw(st.booleans()):
        message.clear()
    message.extend(copy.deepcopy(feature))


def _other_entry(draw, fields):
    """One more entry of a map, of any key."""
    feature = []
    _other_feature(draw, feature)
    key = draw(st.sampled_from([*KEYS, *KEYS, *NO_KEYS]))
    maps = [f.content for f in fields if isinstance(f.content, list)] or [fields]
    entries = draw(st.sampled_from(maps))
    entries.insert(draw(st.integers(0, len(entries))), entry(key, feature))


_CHANGES = (
    _unknown, _drop, _empty, _repeat, _swap, _renumber, _overlong, _split, _leaf, _other_feature,
    _other_entry,
)  # fmt: skip


def structure(make):
    """Positions of a payload that hold no feature: the same bytes whatever the features are.

    Args:
        make: of the code in each byte of the features, the payload.
    """
    one, other = (np.frombuffer(make(code), np.uint8) for code in (0x15, 0x3E))
    return np.flatnonzero(one == other).tolist()
