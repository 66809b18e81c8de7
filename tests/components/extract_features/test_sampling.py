"""The frames of whole seconds, against the times at which the clips were made and ffprobe."""

import functools
import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from components.extract_features.media import Media
from components.extract_features.sampling import Sampling, frames_each_second
from tests.components.extract_features.clips import (
    even,
    expected_numbers,
    ffprobe_times,
    number_of,
    program,
    real_clip,
    rewritten,
    write_clip,
)
from trainer.errors import InputError

STEADY = even(30, "4.3")
NTSC = even(Fraction(30000, 1001), "5.3")
VARIABLE = [time for k, time in enumerate(even(30, 8)) if not 50 <= k <= 130 and k * k % 3]
GAP = even(30, 2) + even(30, 2, start=9)
X265 = "log-level=none:pools=none:frame-threads=1"
VPX = {"deadline": "realtime", "cpu-used": "8"}
HIDDEN = {"deadline": "good", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "20"}


def clip(times, codec="libx264", share=1.0, **settings):
    """Times, codec, settings of a clip, and the share of its packets that are decoded at most."""
    return times, codec, share, settings


CLIPS = {
    "b_frames.mp4": clip(STEADY, b_frames=3, gop=45, share=0.8),
    "one_group.mkv": clip(
        STEADY, b_frames=3, gop=500, options={"x264-params": "scenecut=0"}
    ),
    "short_groups.mp4": clip(STEADY, b_frames=2, gop=10, share=0.3),
    "open_groups.ts": clip(
        STEADY, b_frames=3, gop=30, options={"x264-params": "open-gop=1"}, share=0.4
    ),
    "open_groups.mp4": clip(
        STEADY, b_frames=3, gop=30, options={"x264-params": "open-gop=1"}, share=0.4
    ),
    # No frame of it is a clean beginning but the first.
    "refreshed.ts": clip(STEADY, gop=30, options={"x264-params": "intra-refresh=1"}),
    "refreshed.mp4": clip(STEADY, gop=30, options={"x264-params": "intra-refresh=1"}),
    "hevc.mp4": clip(
        STEADY, "libx265", gop=40, b_frames=3, options={"x265-params": X265}, share=0.8
    ),
    "hevc_open.mkv": clip(
        STEADY, "libx265", gop=20, b_frames=3, options={"x265-params": X265 + ":open-gop=1"},
        share=0.4,
    ),
    "vp9.webm": clip(STEADY, "libvpx-vp9", gop=20, options=VPX, share=0.3),
    "vp8_hidden.webm": clip(STEADY, "libvpx", gop=60, options=HIDDEN, share=0.6),
    "vp8.ivf": clip(STEADY, "libvpx", options=VPX, share=0.2),
    "mpeg2.ts": clip(STEADY, "mpeg2video", b_frames=2, share=0.3),
    "mpeg2.mpg": clip(STEADY, "mpeg2video", b_frames=2),
    "mpeg2.mxf": clip(even(25, 6), "mpeg2video", base=Fraction(1, 25), b_frames=2, share=0.3),
    "mpeg4.avi": clip(STEADY, "mpeg4", share=0.2),
    "mpeg4_b.avi": clip(STEADY, "mpeg4", b_frames=2),
    "mpeg4.mp4": clip(STEADY, "mpeg4", b_frames=2, share=0.3),
    "h264.avi": clip(STEADY),
    "h264_b.avi": clip(STEADY, b_frames=2),
    "h264_b.wmv": clip(STEADY, b_frames=2),
    "wmv2.wmv": clip(STEADY, "wmv2", share=0.2),
    "sorenson.flv": clip(STEADY, "flv", share=0.2),
    "h264.flv": clip(STEADY, b_frames=2, share=0.3),
    "mjpeg.avi": clip(STEADY, "mjpeg", pixels="yuvj420p", share=0.05),
    "ffv1.mkv": clip(even(30, 3), "ffv1", share=0.2),
    "animation.gif": clip(even(10, 3), "gif", base=Fraction(1, 10), pixels="rgb8"),
    "h264.nut": clip(STEADY, b_frames=2, share=0.3),
    "ntsc.mp4": clip(NTSC, base=Fraction(1001, 30000), b_frames=3, share=0.4),
    "ntsc.mkv": clip(NTSC, base=Fraction(1001, 30000), b_frames=3, share=0.4),
    "variable.mp4": clip(VARIABLE, b_frames=2, share=0.7),
    "variable.mkv": clip(VARIABLE, b_frames=2, share=0.7),
    "gap.mp4": clip(GAP, b_frames=2, share=0.4),
    "gap.ts": clip(GAP, b_frames=2, share=0.4),
    "gap.avi": clip(GAP, "mpeg4", share=0.4),
    "gap_b.avi": clip(GAP, "mpeg4", b_frames=2),
    "gap_h264.avi": clip(GAP, b_frames=2),
    "late.ts": clip(STEADY, b_frames=2, muxer={"output_ts_offset": "12.5"}, share=0.3),
    "one.mp4": clip([0]),
    "one.mkv": clip([0]),
    "one_late.ts": clip([0], muxer={"output_ts_offset": "12.5"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


def made(folder, name):
    times, codec, _, settings = CLIPS[name]
    path = folder / name
    return path if path.exists() else write_clip(path, times, codec, **settings)


@functools.lru_cache(maxsize=8)  # three tests look at a clip one after the other
def images(path, sparing=True, seconds=300):
    sampling = Sampling()
    return list(Media(str(path)).images(seconds, sampling, sparing)), sampling


def numbers(path, **settings):
    found, sampling = images(path, **settings)
    return [number_of(image) for image in found], sampling


def same_either_way(path):
    """Whether passing frames over changes no bit of an image, nor what is said of the track."""
    found, sampling = images(path)
    every, all_decoded = images(path, sparing=False)
    assert len(found) == len(every)
    for one, other in zip(found, every, strict=True):
        np.testing.assert_array_equal(one, other)
    assert sampling.packets == all_decoded.packets
    assert sampling.end == pytest.approx(all_decoded.end, abs=0.01)
    assert sampling.ended
    assert not sampling.broken
    assert not all_decoded.broken


@pytest.fixture(scope="module", params=CLIPS)
def name(request):
    """Of a clip; all tests of it run before those of the next."""
    return request.param


def test_the_frame_of_a_second_is_the_last_that_began(name, folder):
    times, _, share, _ = CLIPS[name]
    found, sampling = numbers(made(folder, name))
    assert found == expected_numbers(times)
    assert sampling.packets == len(times)
    assert sampling.decoded <= share * len(times)
    assert sampling.end == pytest.approx(max(times) - min(times) + Fraction(1, 30), abs=0.07)


def test_what_is_passed_over_changes_no_image(name, folder):
    same_either_way(made(folder, name))


def test_ffprobe_says_the_same_times(name, folder):
    program("ffprobe")
    path = made(folder, name)
    assert numbers(path)[0] == expected_numbers(ffprobe_times(path))


def test_expected_numbers_by_hand():
    times = [Fraction(1, 2), Fraction(3, 2), Fraction(8, 5), Fraction(18, 5)]
    # The seconds are 0.5, 1.5, 2.5 and 3.5: none is at 3.6.
    assert expected_numbers(times) == [0, 1, 2, 2]


def test_an_edit_list_cuts_the_beginning_off(folder):
    path = rewritten(made(folder, "b_frames.mp4"), folder / "edited.mp4", later=-Fraction(137, 100))
    # The first frame is that of 42/30 = 1.4 s.
    assert numbers(path)[0] == [42, 72, 102]
    same_either_way(path)
    program("ffprobe")
    assert [42 + number for number in expected_numbers(ffprobe_times(path))] == numbers(path)[0]


def test_an_edit_list_that_leaves_nothing(folder):
    path = rewritten(made(folder, "mpeg4.mp4"), folder / "nothing.mp4", later=-100)
    with pytest.raises(InputError, match="video"):
        numbers(path)


def without_the_first(count):
    seen = itertools.count()
    return lambda packet: next(seen) >= count


def test_a_clip_that_begins_within_a_group(folder):
    source = made(folder, "short_groups.mp4")
    path = rewritten(source, folder / "begun.mp4", keep=without_the_first(7))
    assert numbers(path)[0] == numbers(path, sparing=False)[0]


def test_a_clip_in_which_no_group_begins(folder):
    source = made(folder, "one_group.mkv")
    path = rewritten(source, folder / "never.mkv", keep=without_the_first(7))
    with pytest.raises(InputError, match=r"none of the 12\d packets read of its video track"):
        images(path)


def test_the_limit_of_seconds_ends_the_reading(folder):
    times = even(2, 480)
    path = write_clip(
        folder / "long.mp4", times, "mpeg4", base=Fraction(1, 2), gop=24, b_frames=2
    )  # fmt: skip
    for seconds in (360, 300):
        found, sampling = numbers(path, seconds=seconds)
        assert found == [2 * second for second in range(seconds)]
        assert not sampling.ended
        assert sampling.packets < 2 * seconds + 50
        assert numbers(path, seconds=seconds, sparing=False)[0] == found
    assert len(numbers(path, seconds=1000)[0]) == 480


def test_streams_that_say_no_times_have_the_usual_rate(folder):
    path = write_clip(folder / "raw.h264", STEADY, b_frames=2)
    # FFmpeg takes 25 frames a second for a stream without any container.
    assert numbers(path)[0] == list(range(0, 129, 25))
    same_either_way(path)


def test_a_stream_whose_clock_begins_anew(folder):
    once = made(folder, "mpeg2.ts").read_bytes()
    path = folder / "twice.ts"
    path.write_bytes(once * 2)
    found, sampling = numbers(path)
    assert found[:4] == [0, 30, 60, 90]
    assert sampling.packets == 2 * len(STEADY)


def test_frames_that_stay_are_the_same_frame(folder):
    path = made(folder, "gap.mp4")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        given = list(frames_each_second(lambda: (container, stream), 300, Sampling()))
        assert [second for second, _ in given] == list(range(11))
        stays = [one[1] is other[1] for one, other in itertools.pairwise(given)]
        assert stays == [False, False, *[True] * 6, False, False]


def test_the_real_clip():
    path = real_clip()
    same_either_way(path)
    found, sampling = images(path)
    assert len(found) == 6
    assert sampling.packets == 132
    assert sampling.end == pytest.approx(5.28)
    program("ffprobe")
    with av.open(str(path)) as container:
        every = list(container.decode(video=0))
        for image, number in zip(found, expected_numbers(ffprobe_times(path)), strict=True):
            np.testing.assert_array_equal(image, every[number].to_ndarray(format="rgb24"))
