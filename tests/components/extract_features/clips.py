"""Small videos, made by PyAV; each picture shows its own number, which survives any codec."""

import json
import shutil
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import ROOT

REAL_CLIP = ROOT.parent / "shared" / "data" / "clips" / "bigbuckbunny.mp4"
_ACROSS, _DOWN = 4, 3
"""Blocks of a picture, each black or white: the bits of its number."""


def real_clip():
    if not REAL_CLIP.is_file():
        pytest.skip(f"no real clip at {REAL_CLIP}")
    return REAL_CLIP


def program(name):
    """The path of ffmpeg or ffprobe."""
    if not (found := shutil.which(name)):
        pytest.skip(f"the program {name} is not installed")
    return found


def ffmpeg(*arguments):
    """What the program ffmpeg writes to its standard output."""
    command = [program("ffmpeg"), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def ffprobe_times(path):
    """Of each frame of the first video track, seconds, as exact as the file has them."""
    command = [
        program("ffprobe"), "-v", "error", "-select_streams", "v:0", "-show_entries",
        "frame=best_effort_timestamp:stream=time_base", "-of", "json", str(path),
    ]  # fmt: skip
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    base = Fraction(found["streams"][0]["time_base"])
    times = [frame.get("best_effort_timestamp") for frame in found["frames"]]
    return [time * base for time in times if time is not None]


def even(rate, seconds, start=0):
    """Times of frames at a constant rate."""
    return [start + k / Fraction(rate) for k in range(round(Fraction(rate) * Fraction(seconds)))]


def picture(number, width=64, height=48):
    """RGB [height,width,3]: the bits of the number, and colours that differ everywhere."""
    rows, columns = np.mgrid[:height, :width]
    bits = rows * _DOWN // height * _ACROSS + columns * _ACROSS // width
    white = (number >> bits) & 1
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = 40 + white * 150 + (columns * 2 + number * 3) % 40
    image[..., 1] = 40 + white * 150 + (rows * 2 + number) % 30
    image[..., 2] = 40 + white * 150 + (rows + columns) % 30
    return image


def number_of(image):
    """The number that a picture shows."""
    height, width = image.shape[:2]
    number = 0
    for bit in range(_ACROSS * _DOWN):
        row, column = divmod(bit, _ACROSS)
        top, left = row * height // _DOWN, column * width // _ACROSS
        block = image[top : top + height // _DOWN, left : left + width // _ACROSS]
        number |= int(block[4:-4, 4:-4].mean() > 130) << bit
    return number


def expected_numbers(times, seconds=10_000):
    """Of the frames on the screen at each second, from the times at which all frames begin."""
    numbers, order = [], sorted(times)
    for second in range(seconds):
        if second and order[0] + second > order[-1]:
            break
        numbers.append(max(k for k, time in enumerate(order) if time <= order[0] + second))
    return numbers


def tone(seconds, rate, channels=1, hertz=440.0):
    """Float32 [channels,n]; each channel has a pitch of its own."""
    time = np.arange(round(seconds * rate)) / rate
    pitches = hertz * (1 + np.arange(channels))[:, None]
    return (0.4 * np.sin(2 * np.pi * pitches * time)).astype(np.float32)


def write_clip(
    path, times, codec="libx264", *, base=Fraction(1, 30), gop=12, b_frames=0, size=(64, 48),
    pixels="yuv420p", options=None, muxer=None, sound=None, draw=picture, aspect=None,
):  # fmt: skip
    """Make a video.

    Args:
        times: at which its frames are shown, seconds; frame k shows the number k.
        base: unit of the encoder's timestamps.
        muxer: options of the container.
        sound: (samples float32 [channels,n], rate, codec, seconds at which each piece of 1,024
            samples begins or the number at which the first does); None: no sound track.
    """
    packets = []
    with av.open(str(path), "w", options=muxer or {}) as container:
        if times:
            packets += _pictures(
                container, times, codec, base, gop, b_frames, size, pixels, options, draw, aspect
            )
        if sound:
            packets += _sound(container, *sound)
        for packet in sorted(packets, key=lambda one: one.dts * one.time_base):
            container.mux(packet)
    return Path(path)


def _pictures(
    container, times, codec, base, gop, b_frames, size, pixels, options, draw, aspect
):  # fmt: skip
    rate = 1 / Fraction(base) if base > Fraction(1, 200) else 30
    stream = container.add_stream(codec, rate=rate, options=options or {})
    stream.width, stream.height = size
    stream.pix_fmt = pixels
    context = stream.codec_context
    context.time_base, context.gop_size, context.thread_count = Fraction(base), gop, 1
    context.max_b_frames = b_frames
    if aspect:
        context.sample_aspect_ratio = aspect
    packets = []
    for number, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(draw(number, *size), format="rgb24")
        frame.time_base = Fraction(base)
        frame.pts = round(Fraction(time) / Fraction(base))
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _sound(container, samples, rate, codec, starts=0.0):
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    stream = container.add_stream(codec, rate=rate, layout=layout)
    form = stream.codec_context.format.name
    packets, piece = [], 1024
    for k, at in enumerate(range(0, samples.shape[1], piece)):
        values = np.ascontiguousarray(samples[:, at : at + piece])
        if form.startswith("s16"):
            values = (values * 32767).round().astype(np.int16)
        if not form.endswith("p"):
            values = np.ascontiguousarray(values.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(values, format=form, layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        start = starts[k] if isinstance(starts, list) else starts + at / rate
        frame.pts = round(start * rate)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def rewritten(source, target, *, later=0, keep=lambda packet: True, muxer=None):
    """The same packets in another file, so many seconds later; negative: cut by an edit list."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=muxer or {}) as new:
        streams = {one.index: new.add_stream_from_template(one) for one in old.streams}
        for packet in old.demux():
            if packet.dts is None or not keep(packet):
                continue
            shift = round(Fraction(later) / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = streams[packet.stream.index]
            new.mux(packet)
    return Path(target)


def turned(source, target, a, b, c, d):
    """An MP4 file whose display matrix takes (x, y) to a·x + c·y, b·x + d·y."""
    content = bytearray(Path(source).read_bytes())
    place = content.index(b"tkhd") + 44
    struct.pack_into(">9i", content, place, a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    Path(target).write_bytes(content)
    return Path(target)
