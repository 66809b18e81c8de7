"""Open a file that may be hostile, and take its pictures and sound out of it.

Runs in a process of its own (`components.extract_features.decoder_process`): decoders of media are
large, written in C, and meet whatever people upload.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from components.extract_features.sampling import Sampling, frames_each_second
from trainer.errors import InputError
from trainer.feature_networks.log_mel import SAMPLE_RATE

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf",
    "ogg", "mxf", "nut", "rm", "h264", "hevc", "m4v", "ivf", "obu", "dv", "gif", "swf",
)  # fmt: skip
"""FFmpeg's names of the containers that are opened. Those that name other files or addresses (hls,
concat, dash, sdp, image sequences) are not among them: a video is one file."""
_GAP = 0.1  # seconds that sound may be away from where it is expected before it is placed anew


@dataclasses.dataclass(frozen=True)
class Track:
    """What a file says of its video track, and of a sound track if it has one.

    Attributes:
        container, codec: FFmpeg's names.
        width, height: pixels, upright, as they are to be seen (with the pixels' own aspect).
        duration: seconds by the header; 0: it does not say.
        frame_rate: frames a second, on average; 0: it does not say.
        audio_codec: empty: there is no sound track.
    """

    container: str
    codec: str
    width: int
    height: int
    duration: float
    frame_rate: float
    audio_codec: str


class Media:
    """A video file.

    Args:
        path: of the file.
        most_pixels: a frame may have.

    Raises:
        InputError: it is no video that can be opened.
    """

    def __init__(self, path: str, most_pixels: int = 8192 * 8192) -> None:
        self.path = Path(path)
        self.start = 0.0
        self._most_pixels = most_pixels
        try:
            status = self.path.stat()
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            raise InputError(
                "no such file" if missing else f"can not be read ({error.strerror})"
            ) from None
        if not stat.S_ISREG(status.st_mode):
            raise InputError("is no regular file")
        if not status.st_size:
            raise InputError("is empty")
        with self._opened() as container:
            stream = _video_track(container)
            self._time_base = stream.time_base
            self._audio = _audio_track(container) is not None
            self.track = self._described(container, stream)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            opened = self.path.open("rb")
        except OSError as error:
            raise InputError(f"can not be read ({error.strerror})") from None
        with opened as file:
            container = _container(file)
            try:
                yield container
            finally:
                container.close()

    def _described(self, container: Any, stream: Any) -> Track:
        context = stream.codec_context
        if context.width * context.height > self._most_pixels:
            raise InputError(
                f"its frames are {context.width:,} × {context.height:,} pixels, expected at most "
                f"{self._most_pixels:,}"
            )
        duration = float(stream.duration * stream.time_base) if stream.duration else 0.0
        self._of_whole_file = not duration
        if not duration and container.duration:
            duration = container.duration / 1e6
        aspect = stream.sample_aspect_ratio or 1
        rate = stream.average_rate
        return Track(
            container.format.name, context.codec.canonical_name,
            round(context.width * aspect), context.height,
            max(duration, 0.0), float(rate) if rate else 0.0,
            audio.codec_context.name if (audio := _audio_track(container)) else "",
        )  # fmt: skip

    def images(
        self, seconds: int, sampling: Sampling, sparing: bool = True
    ) -> Iterator[NDArray[np.uint8]]:
        """Upright RGB images [H,W,3] of the seconds 0, 1, 2, …, at most so many."""
        with contextlib.ExitStack() as stack:

            def opened() -> tuple[Any, Any]:
                container = stack.enter_context(self._opened())
                stream = _video_track(container)
                # Of several videos each has a decoder of its own; threads would only cost memory.
                stream.codec_context.thread_count = 1
                return container, stream

            first = True
            for _, frame in frames_each_second(opened, seconds, sampling, sparing):
                if first:
                    # Not the frame's own base, which those that a decoder held back do not have.
                    self.start = float(frame.pts * self._time_base) if frame.pts else 0.0
                    if _is_turned(_matrix(frame)):
                        width, height = self.track.height, self.track.width
                        self.track = dataclasses.replace(self.track, width=width, height=height)
                    first = False
                if frame.width * frame.height > self._most_pixels:
                    raise InputError(f"a frame is {frame.width:,} × {frame.height:,} pixels")
                yield upright(frame)

    def samples(self, seconds: float, start: float) -> tuple[NDArray[np.float32], int]:
        """Mono sound at 16 kHz, float32 [n] in [-1, 1], and how many of its packets are broken.

        Args:
            seconds: how much at most.
            start: the first frame's timestamp; the sound begins with it. Where there is none then
                or later, there is silence.
        """
        found = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
        broken = end = 0
        if not self._audio:
            return found[:0], 0
        with self._opened() as container:
            track = _audio_track(container)
            track.codec_context.thread_count = 1
            placed = _Placed(found, start)
            packets = container.demux(track)
            while placed.time < start + seconds:
                try:
                    packet = next(packets)
                except StopIteration:
                    break
                except MemoryError:
                    raise
                except av.error.FFmpegError:
                    broken += 1
                    break
                try:
                    frames = track.codec_context.decode(packet if packet.size else None)
                except av.error.EOFError:
                    break
                except MemoryError:
                    raise
                except av.error.FFmpegError:
                    broken += 1
                    continue
                broken += sum(not placed.add(frame) for frame in frames)
            end = placed.finish()
        # Samples that are stored as floats may be anything.
        sound = np.nan_to_num(found[:end], copy=False, posinf=1, neginf=-1)
        return np.clip(sound, -1, 1, out=sound), broken

    def is_cut_off(self, end: float, expected: float) -> bool:
        """Whether the file ends before its header says.

        Args:
            end: seconds at which the pictures end.
            expected: seconds at which they should.
        """
        if end >= expected - 1:
            return False
        if not self._audio or not self._of_whole_file:
            return True
        # The header speaks of the longest track, and sound may go on without pictures.
        with self._opened() as container, contextlib.suppress(av.error.FFmpegError):
            track = _audio_track(container)
            for packet in container.demux(track):
                if packet.pts is not None:
                    sound_end = float((packet.pts + (packet.duration or 0)) * track.time_base)
                    if sound_end - self.start >= expected - 1:
                        return False
        return True


class _Placed:
    """Sound put where its timestamps say, resampled as one piece as long as it has no gaps."""

    def __init__(self, found: NDArray[np.float32], start: float) -> None:
        self._found, self._start = found, start
        self._resampler: Any = None
        self._form: tuple[str, str, int] | None = None
        self._at = self._end = 0
        self.time = start

    def add(self, frame: Any) -> bool:
        """Whether it can be resampled: a damaged packet may decode to any layout."""
        time = self.time if frame.pts is None else float(frame.pts * frame.time_base)
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form != self._form or abs(time - self.time) > _GAP:
            self._flush()
            self._form = form
            self._resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
            self._at = round((time - self._start) * SAMPLE_RATE)
            self.time = time
        self.time += frame.samples / frame.sample_rate
        frame.pts = None  # the resampler would fill what it takes for a gap
        try:
            self._put(self._resampler.resample(frame))
        except (av.error.FFmpegError, ValueError):
            self._resampler = self._form = None
            return False
        return True

    def finish(self) -> int:
        """How many samples there are."""
        self._flush()
        return self._end

    def _flush(self) -> None:
        if self._resampler:
            self._put(self._resampler.resample(None))
            self._resampler = None

    def _put(self, pieces: list[Any]) -> None:
        for piece in pieces:
            values = piece.to_ndarray()[0]
            first, last = max(self._at, 0), min(self._at + len(values), len(self._found))
            if first < last:
                self._found[first:last] = values[first - self._at : last - self._at]
                self._end = max(self._end, last)
            self._at += len(values)


def upright(frame: Any) -> NDArray[np.uint8]:
    """RGB [H,W,3] of a frame, turned and mirrored as its display matrix says.

    https://ffmpeg.org/doxygen/trunk/group__lavu__video__display.html: the matrix takes a pixel's
    (x, y) to a·x + c·y, b·x + d·y.
    """
    image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24", threads=1)
    a, b, c, d = matrix = _matrix(frame)
    if _is_turned(matrix):
        image = image.swapaxes(0, 1)
        down, right = b, c
    else:
        down, right = d, a
    if down < 0:
        image = image[::-1]
    if right < 0:
        image = image[:, ::-1]
    return image


def _matrix(frame: Any) -> tuple[int, int, int, int]:
    """a, b, c, d of its display matrix."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return a, b, c, d


def _is_turned(matrix: tuple[int, int, int, int]) -> bool:
    """Whether by a quarter: x becomes y."""
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _container(file: BinaryIO) -> Any:
    # Not by its name: FFmpeg would look for files beside it. No protocol: nor for others by name.
    options = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}
    try:
        return av.open(file, container_options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        size = os.fstat(file.fileno()).st_size
        words = getattr(error, "strerror", None) or str(error)
        raise InputError(f"its {size:,} bytes are no video that FFmpeg opens ({words})") from None


def _audio_track(container: Any) -> Any:
    """The first that can be decoded; None: there is no such track."""
    return next((one for one in container.streams.audio if one.codec_context), None)


def _video_track(container: Any) -> Any:
    for stream in container.streams.video:
        # Of a song the picture of its cover is a video track, too.
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise InputError("its video track is of an unknown codec")
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise InputError(f"has no video track (found: {', '.join(kinds) or 'no tracks'})")
