"""Pictures against ffmpeg's and by hand, sound against ffmpeg's, and files that are no videos."""

import itertools
import os
import random
from fractions import Fraction

import av
import numpy as np
import pytest

from components.extract_features.media import Media, upright
from components.extract_features.sampling import Sampling
from tests.components.extract_features.clips import (
    even,
    ffmpeg,
    number_of,
    picture,
    real_clip,
    tone,
    turned,
    write_clip,
)
from trainer.errors import InputError
from trainer.feature_networks.log_mel import SAMPLE_RATE

TENTH = Fraction(1, 10)
RATES = (8_000, 44_100, 48_000)
TURNS = {
    "as it is": (1, 0, 0, 1),
    "by 90 degrees": (0, 1, -1, 0),
    "by 180 degrees": (-1, 0, 0, -1),
    "by 270 degrees": (0, -1, 1, 0),
    "left is right": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed the other way": (0, -1, -1, 0),
}


def first_image(path):
    media = Media(str(path))
    return next(media.images(1, Sampling())), media.track


def raw_image(path, height, width):
    """The first frame as the program ffmpeg shows it."""
    content = ffmpeg("-i", path, "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def flat(folder):
    """A clip of 64 × 48 pixels whose track may be turned."""
    return write_clip(folder / "flat.mp4", even(10, 2), base=TENTH)


def by_hand(image, a, b, c, d):
    """Each pixel put where the matrix takes it, moved until all places are from 0."""
    height, width = image.shape[:2]
    places = {
        (a * x + c * y, b * x + d * y): image[y, x] for y in range(height) for x in range(width)
    }
    left, top = min(x for x, _ in places), min(y for _, y in places)
    right, bottom = max(x for x, _ in places), max(y for _, y in places)
    found = np.empty((bottom - top + 1, right - left + 1, 3), np.uint8)
    for (x, y), pixel in places.items():
        found[y - top, x - left] = pixel
    return found


@pytest.mark.parametrize("matrix", TURNS.values(), ids=TURNS)
def test_images_are_upright(matrix, flat, tmp_path):
    image, track = first_image(turned(flat, tmp_path / "t.mp4", *matrix))
    np.testing.assert_array_equal(image, by_hand(first_image(flat)[0], *matrix))
    assert (track.height, track.width) == image.shape[:2]


@pytest.mark.parametrize("matrix", TURNS.values(), ids=TURNS)
def test_ffmpeg_turns_the_same_way(matrix, flat, tmp_path):
    path = turned(flat, tmp_path / "t.mp4", *matrix)
    image, _ = first_image(path)
    np.testing.assert_array_equal(image, raw_image(path, *image.shape[:2]))


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "most"),
    [
        ("odd.mkv", "ffv1", "yuv420p", 5),
        ("odd444.mp4", "libx264", "yuv444p", 0),
        ("odd422.mkv", "ffv1", "yuv422p", 5),
        ("odd_gray.mkv", "ffv1", "gray", 0),
        ("odd10.mkv", "ffv1", "yuv420p10le", 5),
        ("odd.gif", "gif", "rgb8", 0),
        ("odd_full.avi", "mjpeg", "yuvj420p", 6),
        ("odd_rgb.mkv", "ffv1", "bgr0", 0),
    ],
)
def test_pixels_of_any_kind_and_odd_sizes(name, codec, pixels, most, tmp_path):
    path = write_clip(
        tmp_path / name, even(10, 1), codec, base=TENTH, size=(321, 243), pixels=pixels
    )
    image, track = first_image(path)
    assert image.shape == (243, 321, 3)
    assert (track.width, track.height) == (321, 243)
    assert number_of(image) == 0
    difference = np.abs(image.astype(int) - raw_image(path, 243, 321))
    assert difference.max() <= most
    assert np.abs(image.astype(int) - picture(0, 321, 243)).mean() < 32


def test_the_real_clip_has_the_pixels_that_ffmpeg_shows():
    image, track = first_image(real_clip())
    assert (track.width, track.height, track.codec, track.audio_codec) == (1280, 720, "h264", "aac")
    assert (track.duration, track.frame_rate) == (pytest.approx(5.28), 25)
    np.testing.assert_array_equal(image, raw_image(real_clip(), 720, 1280))


@pytest.mark.parametrize(
    ("aspect", "size", "matrix", "seen"),
    [
        (Fraction(4, 3), (48, 64), (1, 0, 0, 1), (64, 64)),
        # Upright in pixels, across on the screen.
        (Fraction(20, 11), (44, 64), (1, 0, 0, 1), (80, 64)),
        (Fraction(1, 2), (64, 48), (1, 0, 0, 1), (32, 48)),
        (Fraction(1, 2), (64, 48), (0, 1, -1, 0), (48, 32)),
        (Fraction(20, 11), (44, 64), (0, 1, -1, 0), (64, 80)),
    ],
)
def test_pixels_that_are_not_square(aspect, size, matrix, seen, tmp_path):
    flat = write_clip(tmp_path / "a.mp4", even(10, 1), base=TENTH, size=size, aspect=aspect)
    image, track = first_image(turned(flat, tmp_path / "b.mp4", *matrix))
    assert (track.width, track.height) == seen
    assert image.shape[:2] == (size if matrix[0] == 0 else size[::-1])


def test_upright_of_a_frame_without_a_matrix():
    frame = av.VideoFrame.from_ndarray(picture(5), format="rgb24")
    np.testing.assert_array_equal(upright(frame), picture(5))


def test_the_codec_is_named_not_its_decoder(tmp_path):
    path = write_clip(tmp_path / "a.flv", even(10, 1), "flv", base=TENTH)
    assert Media(str(path)).track.codec == "flv1"


def heard(path, seconds=300):
    """Sound of a file as far as it has pictures, with the count of broken packets."""
    media = Media(str(path))
    frames = len(list(media.images(seconds, Sampling())))
    return media.samples(frames, media.start)


def raw_sound(path):
    content = ffmpeg("-i", path, "-vn", "-ac", 1, "-ar", SAMPLE_RATE, "-f", "f32le", "-")
    return np.frombuffer(content, np.float32)


def test_the_real_sound_is_what_ffmpeg_makes_of_it():
    samples, broken = heard(real_clip())
    expected = raw_sound(real_clip())
    assert len(samples) == len(expected) == 84_992
    assert not broken
    np.testing.assert_allclose(samples, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("rate", "channels", "codec", "suffix"),
    [
        *((rate, channels, "pcm_s16le", "mkv") for rate in RATES for channels in (1, 2, 6)),
        *zip(RATES, (1, 2, 6), ["aac"] * 3, ["mp4"] * 3, strict=True),
    ],
)
def test_sound_of_any_rate_and_channels(channels, rate, codec, suffix, tmp_path):
    sound = (tone(2, rate, channels) / channels, rate, codec)
    path = write_clip(tmp_path / f"a.{suffix}", even(10, 2), base=TENTH, sound=sound)
    samples, broken = heard(path)
    assert len(samples) == 2 * SAMPLE_RATE
    assert not broken
    np.testing.assert_allclose(samples, raw_sound(path)[: len(samples)], atol=1e-6)


def test_a_tone_by_hand(tmp_path):
    sound = (tone(2, SAMPLE_RATE), SAMPLE_RATE, "pcm_s16le")
    path = write_clip(tmp_path / "a.mkv", even(10, 2), base=TENTH, sound=sound)
    samples, _ = heard(path)
    np.testing.assert_allclose(samples, sound[0][0], atol=1e-4)


def loud(samples):
    """Seconds at which sound begins and ends."""
    places = np.flatnonzero(np.abs(samples) > 0.02) / SAMPLE_RATE
    return [pytest.approx(places[0], abs=0.07), pytest.approx(places[-1], abs=0.07)]


@pytest.mark.parametrize(("codec", "suffix"), [("pcm_s16le", "mkv"), ("aac", "mp4"), ("mp2", "ts")])
def test_sound_that_begins_late_has_silence_before(codec, suffix, tmp_path):
    sound = (tone(2, SAMPLE_RATE), SAMPLE_RATE, codec, 2.0)
    path = write_clip(tmp_path / f"a.{suffix}", even(10, 4), base=TENTH, sound=sound)
    samples, broken = heard(path)
    assert not broken
    assert loud(samples) == [2.0, 4.0]
    assert not samples[: int(1.9 * SAMPLE_RATE)].any()


def test_a_hole_in_the_sound_is_silent(tmp_path):
    # 47 pieces of 64 ms; those from 1.536 s on come a second later.
    starts = [k * 0.064 + (k >= 24) for k in range(47)]
    sound = (tone(3, SAMPLE_RATE), SAMPLE_RATE, "pcm_s16le", starts)
    path = write_clip(tmp_path / "a.mkv", even(10, 4), base=TENTH, sound=sound)
    samples, _ = heard(path)
    assert len(samples) == 4 * SAMPLE_RATE
    first, second = 24 * 1024, 24 * 1024 + SAMPLE_RATE
    np.testing.assert_allclose(samples[:first], sound[0][0, :first], atol=1e-4)
    assert not samples[first:second].any()
    rest = sound[0][0, first:]
    np.testing.assert_allclose(samples[second : second + len(rest)], rest, atol=1e-4)


def test_sound_begins_with_the_first_picture(tmp_path):
    sound = (tone(4, SAMPLE_RATE), SAMPLE_RATE, "pcm_s16le")
    path = write_clip(tmp_path / "a.mkv", even(10, 2, start=1), base=TENTH, sound=sound)
    samples, _ = heard(path)
    np.testing.assert_allclose(samples, sound[0][0, SAMPLE_RATE : 3 * SAMPLE_RATE], atol=1e-4)


def test_sound_that_ends_early_is_not_filled_up(tmp_path):
    sound = (tone(1, SAMPLE_RATE), SAMPLE_RATE, "pcm_s16le")
    path = write_clip(tmp_path / "a.mkv", even(10, 3), base=TENTH, sound=sound)
    assert len(heard(path)[0]) == SAMPLE_RATE


def test_no_sound(flat):
    samples, broken = heard(flat)
    assert samples.shape == (0,)
    assert samples.dtype == np.float32
    assert not broken
    assert Media(str(flat)).track.audio_codec == ""


def test_sound_that_is_no_numbers_is_silent_and_loud_sound_is_clipped(tmp_path):
    values = np.zeros((1, 2 * SAMPLE_RATE), np.float32)
    values[0, 5000], values[0, 9000:9005] = np.nan, (np.inf, -np.inf, 7.0, -7.0, 0.5)
    sound = (values, SAMPLE_RATE, "pcm_f32le")
    path = write_clip(tmp_path / "a.mkv", even(10, 2), base=TENTH, sound=sound)
    samples, _ = heard(path)
    assert samples[5000] == 0
    assert samples[9000:9005].tolist() == [1, -1, 1, -1, 0.5]


def test_sound_that_is_longer_than_the_pictures_is_no_cut(tmp_path):
    sound = (tone(6, SAMPLE_RATE), SAMPLE_RATE, "aac")
    for suffix in ("mkv", "mp4", "flv"):
        path = write_clip(tmp_path / f"a.{suffix}", even(10, 2), base=TENTH, sound=sound)
        media, sampling = Media(str(path)), Sampling()
        list(media.images(300, sampling))
        assert len(media.samples(2, media.start)[0]) == 2 * SAMPLE_RATE
        assert not media.is_cut_off(sampling.end, media.track.duration)


CONTENTS = {
    "nothing": (b"", "is empty"),
    "text": (b"hello world\n" * 100, "its 1,200 bytes are no video that FFmpeg opens"),
    "zeros": (bytes(5000), "its 5,000 bytes are no video"),
    "garbage": (random.Random(3).randbytes(50_000), "its 50,000 bytes are no video"),
    "playlist": (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\ngood.ts\n#EXT-X-ENDLIST\n", "no video"
    ),
    "list": (b"ffconcat version 1.0\nfile good.ts\n", "no video"),
    "session": (
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n", "no video",
    ),
    "manifest": (
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        b'mediaPresentationDuration="PT6S"><Period><AdaptationSet mimeType="video/mp4">'
        b'<Representation id="1"><BaseURL>good.ts</BaseURL></Representation></AdaptationSet>'
        b"</Period></MPD>", "no video",
    ),
}  # fmt: skip


@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_no_video(content, tmp_path):
    write_clip(tmp_path / "good.ts", even(10, 2), base=TENTH)
    data, words = CONTENTS[content]
    (tmp_path / "bad.mp4").write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        Media(str(tmp_path / "bad.mp4"))
    assert "\n" not in str(caught.value)


def test_a_playlist_would_open_its_neighbour(tmp_path, monkeypatch):
    """The one of `CONTENTS` is a good one: without the whitelist FFmpeg follows it."""
    write_clip(tmp_path / "good.ts", even(10, 2), base=TENTH)
    (tmp_path / "list.m3u8").write_bytes(CONTENTS["playlist"][0])
    with av.open(str(tmp_path / "list.m3u8")) as container:
        assert container.streams.video
    (tmp_path / "list.ffconcat").write_bytes(CONTENTS["list"][0])
    with av.open(str(tmp_path / "list.ffconcat")) as container:
        assert container.streams.video
    for name in ("list.m3u8", "list.ffconcat"):
        with pytest.raises(InputError, match="no video"):
            Media(str(tmp_path / name))


def test_only_the_file_itself_is_opened(flat, monkeypatch):
    """Even a container that is let in opens nothing by name."""
    opened = []
    real = av.open
    monkeypatch.setattr(av, "open", lambda file, **more: opened.append(more) or real(file, **more))
    first_image(flat)
    options = [one["container_options"] for one in opened]
    assert options
    assert {one["protocol_whitelist"] for one in options} == {"none"}


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    for path, words in (
        (tmp_path, "is no regular file"),
        ("/dev/zero", "is no regular file"),
        (tmp_path / "fifo.mp4", "is no regular file"),
        (tmp_path / "loop.mp4", "can not be read"),
        (tmp_path / "absent.mp4", "no such file"),
        (tmp_path / f"{'a' * 300}.mp4", "can not be read"),
    ):
        with pytest.raises(InputError, match=words):
            Media(str(path))


def test_sound_alone(tmp_path):
    path = write_clip(
        tmp_path / "song.mp4", [], sound=(tone(2, SAMPLE_RATE), SAMPLE_RATE, "aac")
    )  # fmt: skip
    with pytest.raises(InputError, match=r"has no video track \(found: audio\)"):
        Media(str(path))


def test_the_picture_of_a_cover_is_no_video(tmp_path):
    song = write_clip(
        tmp_path / "song.mp4", [], sound=(tone(2, SAMPLE_RATE), SAMPLE_RATE, "aac")
    )  # fmt: skip
    cover = write_clip(
        tmp_path / "cover.avi", [0], "mjpeg", base=TENTH, pixels="yuvj420p"
    )  # fmt: skip
    ffmpeg(
        "-i", song, "-i", cover, "-map", 0, "-map", 1, "-c", "copy",
        "-disposition:v:0", "attached_pic", tmp_path / "both.m4a",
    )  # fmt: skip
    with pytest.raises(InputError, match=r"has no video track \(found: audio, video\)"):
        Media(str(tmp_path / "both.m4a"))


def test_frames_of_too_many_pixels(flat):
    with pytest.raises(InputError, match="64 × 48 pixels, expected at most 3,071"):
        Media(str(flat), 64 * 48 - 1)
    Media(str(flat), 64 * 48)


def test_frames_that_grow_within_the_file(tmp_path):
    small = write_clip(tmp_path / "a.ts", even(10, 2), base=TENTH, gop=10)
    large = write_clip(
        tmp_path / "b.ts", even(10, 2, start=2), base=TENTH, gop=10, size=(128, 96)
    )  # fmt: skip
    (tmp_path / "c.ts").write_bytes(small.read_bytes() + large.read_bytes())
    shapes = [image.shape for image in Media(str(tmp_path / "c.ts")).images(9, Sampling())]
    assert shapes == [(48, 64, 3)] * 2 + [(96, 128, 3)] * 2
    with pytest.raises(InputError, match="a frame is 128 × 96 pixels"):
        list(Media(str(tmp_path / "c.ts"), 64 * 48).images(9, Sampling()))


def test_damaged_bytes_end_in_images_or_one_reason(flat, tmp_path):
    """Whatever is spoilt, there is no other error, and both ways of sampling agree on the end."""
    sources = [
        flat,
        write_clip(
            tmp_path / "a.mkv", even(10, 2), base=TENTH,
            sound=(tone(2, SAMPLE_RATE), SAMPLE_RATE, "aac"),
        ),
        write_clip(tmp_path / "a.ts", even(10, 2), base=TENTH, b_frames=2),
        write_clip(tmp_path / "a.avi", even(10, 2), "mpeg4", base=TENTH),
        write_clip(tmp_path / "a.flv", even(10, 2), base=TENTH),
    ]  # fmt: skip
    refused, seen = [], 0
    for source, seed in itertools.product(sources, range(12)):
        chance = random.Random(seed)
        content = bytearray(source.read_bytes())
        for _ in range(chance.choice([1, 5, 50])):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path = tmp_path / f"spoilt{source.suffix}"
        path.write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
        try:
            media = Media(str(path))
            seen += len(list(media.images(9, Sampling())))
            samples, _ = media.samples(9, media.start)
            assert np.isfinite(samples).all()
        except InputError as error:
            refused.append(str(error))
    assert refused
    assert not any("\n" in words for words in refused)
    assert seen
