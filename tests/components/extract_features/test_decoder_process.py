"""Whole files through the process that decodes them: what it says of good ones and of bad ones."""

import math
import os
import random
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from components.extract_features.decoder import Decoder
from components.extract_features.decoder_process import MET_FIELDS, TRACK_FIELDS, Limits
from components.extract_features.media import Media
from components.extract_features.sampling import Sampling
from tests.components.extract_features.clips import even, real_clip, tone, turned, write_clip
from tests.conftest import ROOT
from trainer.errors import InputError
from trainer.feature_networks.bilinear import resize
from trainer.feature_networks.log_mel import SAMPLE_RATE

TENTH = Fraction(1, 10)
SOUND = (tone(6, SAMPLE_RATE), SAMPLE_RATE, "aac")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of 6 s, by suffix."""
    folder = tmp_path_factory.mktemp("whole")
    times = even(10, 6)
    return {
        "mp4": write_clip(
            folder / "a.mp4", times, base=TENTH, sound=SOUND, muxer={"movflags": "faststart"}
        ),
        "late.mp4": write_clip(folder / "b.mp4", times, base=TENTH, sound=SOUND),
        "mkv": write_clip(folder / "a.mkv", times, base=TENTH, sound=SOUND),
        "avi": write_clip(folder / "a.avi", times, "mpeg4", base=TENTH),
    }


def decoded(path, half_pixel_centers=False, **limits):
    decoder = Decoder(str(path), Limits(**limits), half_pixel_centers)
    try:
        frames = list(decoder.frames())
        return frames, decoder.decoded
    finally:
        decoder.close()


def reason(path, **limits):
    with pytest.raises(InputError) as caught:
        decoded(path, **limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("half_pixel_centers", [False, True])
def test_frames_and_sound_are_those_of_the_media(half_pixel_centers, clips):
    frames, rest = decoded(clips["mp4"], half_pixel_centers)
    media, sampling = Media(str(clips["mp4"])), Sampling()
    images = list(media.images(300, sampling))
    assert len(frames) == len(images) == 6
    for frame, image in zip(frames, images, strict=True):
        expected = resize(image, half_pixel_centers=half_pixel_centers)
        np.testing.assert_array_equal(frame, expected)
    np.testing.assert_array_equal(rest.sound, media.samples(6, 0.0)[0])
    assert rest.track == vars(media.track)
    assert tuple(rest.track) == TRACK_FIELDS
    assert set(rest.met) == set(MET_FIELDS)
    assert rest.met == {
        "frames": 6, "has_audio": True, "sound_seconds": len(rest.sound) / SAMPLE_RATE,
        "broken_audio_packets": 0, **vars(sampling),
    }  # fmt: skip


def test_the_real_clip():
    frames, rest = decoded(real_clip())
    assert [frame.shape for frame in frames] == [(299, 299, 3)] * 6
    assert (rest.track["width"], rest.track["height"]) == (1280, 720)
    assert len(rest.sound) == 84_992
    assert rest.met["broken"] == rest.met["broken_audio_packets"] == 0


@pytest.mark.parametrize(("limits", "frames"), [({"frames": 2}, 2), ({"seconds": 3}, 3)])
def test_limits_of_frames_and_seconds(limits, frames, clips):
    found, rest = decoded(clips["mp4"], **limits)
    assert len(found) == rest.met["frames"] == frames
    assert len(rest.sound) == frames * SAMPLE_RATE


def test_a_turned_clip_is_described_upright(clips, tmp_path):
    _, rest = decoded(turned(clips["mp4"], tmp_path / "t.mp4", 0, 1, -1, 0), frames=1)
    assert (rest.track["width"], rest.track["height"]) == (48, 64)


def test_no_sound(clips):
    _, rest = decoded(clips["avi"])
    assert rest.sound.shape == (0,)
    assert rest.met["has_audio"] is False


def test_pictures_that_end_before_the_sound_are_whole(tmp_path):
    path = write_clip(tmp_path / "a.mkv", even(10, 2), base=TENTH, sound=SOUND)
    frames, rest = decoded(path)
    assert len(frames) == 2
    assert rest.met["sound_seconds"] == 2


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_a_file_that_is_cut_off(kind, clips, tmp_path):
    content = clips[kind].read_bytes()
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(content[: len(content) * 8 // 10])
    assert "cut off" in reason(path)
    frames, rest = decoded(path, accept_damaged=True)
    assert 1 <= len(frames) < 6
    assert rest.met["end"] < 5


def test_a_file_without_its_index(clips, tmp_path):
    content = clips["late.mp4"].read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: content.index(b"moov")])
    for accept_damaged in (False, True):
        assert "no video that FFmpeg opens" in reason(path, accept_damaged=accept_damaged)


def spoilt(source, target, count, start):
    chance, content = random.Random(5), bytearray(source.read_bytes())
    for _ in range(count):
        content[chance.randrange(start, len(content))] = chance.randrange(256)
    target.write_bytes(content)
    return target


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_bytes_that_are_spoilt(kind, clips, tmp_path):
    path = spoilt(clips[kind], tmp_path / f"bad.{kind}", 100, 6000)
    assert "packets read of its video track do not decode" in reason(path)
    frames, rest = decoded(path, accept_damaged=True)
    assert frames
    assert rest.met["broken"]


def test_sound_that_is_spoilt(tmp_path):
    times = even(10, 6)
    path = write_clip(tmp_path / "a.mp4", times, "mpeg4", base=TENTH, gop=100, sound=SOUND)
    content = bytearray(path.read_bytes())
    for offset, size in sound_packets(path)[10:30]:
        content[offset : offset + size] = b"\xff" * size
    path.write_bytes(content)
    assert "packets of its sound track do not decode" in reason(path)
    frames, rest = decoded(path, accept_damaged=True)
    assert len(frames) == 6
    assert rest.met["broken_audio_packets"]


def sound_packets(path):
    """Offset and size of each in the file."""
    with av.open(str(path)) as container:
        return [(one.pos, one.size) for one in container.demux(audio=0) if one.size]


@pytest.mark.parametrize("seconds", [1e9, 1e300, math.inf, math.nan, -5.0, 0.0])
def test_a_duration_that_is_none(seconds, clips, tmp_path):
    content = clips["mkv"].read_bytes()
    place = content.index(b"\x44\x89\x88") + 3  # Duration, 8 bytes, milliseconds
    path = tmp_path / "ages.mkv"
    stored = struct.pack(">d", seconds * 1000)
    path.write_bytes(content[:place] + stored + content[place + 8 :])
    if seconds == 1e9:
        assert reason(path) == "ends after 6.0 s, its header says 1000000000.0 s: cut off"
    frames, rest = decoded(path, accept_damaged=True)
    assert len(frames) == 6
    assert rest.met["end"] == 6


def test_files_that_are_no_videos(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "text.mp4").write_bytes(b"no video\n")
    song = write_clip(tmp_path / "song.mp4", [], sound=SOUND)
    assert reason(tmp_path / "fifo.mp4") == "is no regular file"
    assert reason("/dev/zero") == "is no regular file"
    assert reason(tmp_path / "loop.mp4").startswith("can not be read")
    assert reason(tmp_path / "text.mp4").startswith("its 9 bytes are no video that FFmpeg opens")
    assert reason(song) == "has no video track (found: audio)"


def test_frames_of_too_many_pixels(clips):
    assert reason(clips["mp4"], most_pixels=3000).startswith("its frames are 64 × 48 pixels")


def test_processor_seconds_run_out(tmp_path):
    path = write_clip(tmp_path / "a.mkv", even(2, 600), "mpeg4", base=Fraction(1, 2))
    found = reason(path, processor_seconds=1, seconds=600, frames=600)
    assert found == "its decoder took more than 1 s of processor time"


def test_memory_runs_out(tmp_path):
    path = write_clip(
        tmp_path / "a.mkv",
        [0],
        "mpeg4",
        base=TENTH,
        size=(4096, 4096),
        draw=lambda number, width, height: np.zeros((height, width, 3), np.uint8),
    )
    assert reason(path, memory_mb=250) == "needs more than 250 MB to decode"


def test_the_process_takes_rights_from_itself():
    script = (
        "from components.extract_features.decoder_process import Limits, _limit\n"
        "import resource as r\n"
        "_limit(Limits(processor_seconds=9, memory_mb=3000))\n"
        "kinds = r.RLIMIT_AS, r.RLIMIT_FSIZE, r.RLIMIT_CORE, r.RLIMIT_CPU\n"
        "print([r.getrlimit(kind) for kind in kinds])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd=ROOT)
    memory = 3000 << 20
    assert run.stdout.decode().strip() == str([(memory, memory), (0, 0), (0, 0), (9, 14)])
