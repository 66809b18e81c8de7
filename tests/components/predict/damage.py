"""Records as damage, other writers or malice leave them."""

import numpy as np

from tests.conftest import frame_video, mean_video
from trainer import records
from trainer.example_proto import SequenceExample
from trainer.record_format import AUDIO_SIZE, RGB_SIZE


def damaged(rng, level="frame", most_frames=400):
    """A record's payload, changed in one of many ways; some ways leave it sound."""
    make = {"frame": lambda n: frame_video(rng, n), "video": lambda _: mean_video(rng)}[level]
    frames = int(rng.choice([1, 2, 5, 12, most_frames], p=[0.25, 0.25, 0.25, 0.2, 0.05]))
    payload = records.encode(make(frames))
    return WAYS[int(rng.integers(len(WAYS)))](payload, rng)


def flipped(payload, rng):
    data = bytearray(payload)
    for at in rng.integers(0, len(data), int(rng.integers(1, 5))):
        data[at] ^= 1 << int(rng.integers(8))
    return bytes(data)


def flipped_in_front(payload, rng):
    """Where the fields are, in place of their bulk."""
    head = flipped(payload[:200], rng)
    return head + payload[200:]


def cut(payload, rng):
    return payload[: int(rng.integers(0, len(payload)))]


def doubled(payload, rng):
    return payload + cut(payload, rng)


def garbage(_, rng):
    return rng.bytes(int(rng.integers(0, 300)))


def inserted(payload, rng):
    at = int(rng.integers(0, len(payload)))
    return payload[:at] + rng.bytes(int(rng.integers(1, 20))) + payload[at:]


def edited(payload, rng):
    """A sound message that is no sound record."""
    message = SequenceExample.FromString(payload)
    context, lists = message.context.feature, message.feature_lists.feature_list
    context["unknown"].float_list.value.append(float("nan"))
    match int(rng.integers(9)):
        case 0:
            context["labels"].int64_list.value.extend([-1, 2**62])
        case 1:
            context["labels"].bytes_list.value.append(b"1")
        case 2:
            context["id"].bytes_list.value[:] = [b'\xff\x00,\n"', b"two"][: rng.integers(0, 3)]
        case 3:
            del lists["rgb"].feature[:]
        case 4:
            lists["rgb"].feature.add().bytes_list.value.append(b"\x00" * (RGB_SIZE - 1))
        case 5:
            lists["audio"].feature.add().bytes_list.value.append(b"\x00" * AUDIO_SIZE)
        case 6:
            lists["audio"].feature.add().float_list.value.append(1.0)
        case 7:
            context["mean_rgb"].float_list.value.extend([0.0] * RGB_SIZE)
        case 8:
            context["mean_audio"].float_list.value[:] = [float("inf")] * AUDIO_SIZE
    return message.SerializeToString()


def sound(payload, _):
    return payload


WAYS = (flipped, flipped_in_front, cut, doubled, garbage, inserted, edited, edited, sound)


def rng_of(seed):
    return np.random.default_rng(seed)
