"""Which frame of a video is on the screen at each second, decoding as few others as can be.

The frame of second k is the last one whose timestamp is not after the first frame's plus k
seconds: what a viewer sees then, whatever the frame rate, constant or not. Which one that is
follows from the packets' timestamps before anything is decoded. So whole groups of pictures that
hold none of these frames are passed over, and within a group the frames that no other one refers
to.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
from av.video.frame import PictureType

from trainer.errors import InputError

_REORDERED = 32
"""Packets of which the one that is shown first may be the last: no codec reorders more."""


_UNTIMED = ("avi", "asf")
"""Containers that say when packets are decoded; when they are shown, FFmpeg guesses."""
_MADE_OF_OTHERS = (PictureType.P, PictureType.B)


class _UnknownTimesError(Exception):
    """What a packet says is no reliable guide to what is shown when, or needed for it."""


@dataclasses.dataclass
class Sampling:
    """What was met in a video track.

    Attributes:
        packets: that were read.
        decoded: of them, those that the decoder was given to decode whole.
        broken: that it refused or could only guess at.
        end: seconds from the first frame to the end of the last one that was read.
        ended: whether the track was read to its end, not to the last second that was asked for.
    """

    packets: int = 0
    decoded: int = 0
    broken: int = 0
    end: float = 0.0
    ended: bool = False


def frames_each_second(
    opened: Callable[[], tuple[Any, Any]], seconds: int, sampling: Sampling, sparing: bool = True
) -> Iterator[tuple[int, Any]]:
    """The frames on the screen at the seconds 0, 1, 2, … of a video.

    Args:
        opened: gives a container of PyAV of which nothing was read yet, and its video track.
        seconds: how many of them at most.
        sampling: filled in on the way.
        sparing: whether frames that are not asked for are passed over; else all are decoded.

    Yields:
        (second, frame of PyAV); a frame that stays on the screen comes again.

    Raises:
        InputError: there is no frame.
    """
    given = 0
    for way in (_sparing, _by_presentation, _by_decoding)[not sparing :]:
        try:
            for second, frame in way(*opened(), seconds, sampling):
                if second >= given:
                    yield second, frame
                    given = second + 1
            return
        except _UnknownTimesError:
            vars(sampling).update(vars(Sampling()))


def _sparing(
    container: Any, stream: Any, seconds: int, sampling: Sampling
) -> Iterator[tuple[int, Any]]:
    if _are_made_up(container, stream):
        raise _UnknownTimesError
    yield from _Sparing(container, stream, sampling).frames(seconds)


def _by_presentation(
    container: Any, stream: Any, seconds: int, sampling: Sampling
) -> Iterator[tuple[int, Any]]:
    if _are_made_up(container, stream):
        raise _UnknownTimesError
    yield from _all_decoded(container, stream, seconds, sampling, False)


def _by_decoding(
    container: Any, stream: Any, seconds: int, sampling: Sampling
) -> Iterator[tuple[int, Any]]:
    yield from _all_decoded(container, stream, seconds, sampling, True)


def _are_made_up(container: Any, stream: Any) -> bool:
    """Whether the times of presentation are, as the container knows those of decoding alone."""
    context = stream.codec_context
    reorders = context.has_b_frames or context.codec.canonical_name in ("h264", "hevc")
    return container.format.name in _UNTIMED and reorders


def _all_decoded(
    container: Any, stream: Any, seconds: int, sampling: Sampling, by_decoding: bool
) -> Iterator[tuple[int, Any]]:
    """The same without looking ahead, by the frames' own times, or those of decoding them."""
    base, usual = Fraction(stream.time_base), _usual_duration(stream)
    shown, start, time, second = None, 0, 0, 0
    for frame in _decoded(container, stream, sampling):
        known = frame.dts if by_decoding else frame.pts
        if known is None:
            known = 0 if shown is None else time + usual
        if shown is None:
            start = known
        elif known < time and not by_decoding:
            raise _UnknownTimesError  # a decoder gives frames in the order in which they are shown
        time = known
        while shown is not None and second < seconds and time > start + int(second / base):
            yield second, shown
            second += 1
        if second >= seconds:
            return
        shown = frame
        sampling.end = float((time - start + (frame.duration or usual)) * base)
    if shown is None:
        raise _no_frames(sampling)
    sampling.ended = True
    while second < seconds and (second < sampling.end or not second):
        yield second, shown
        second += 1


def _decoded(container: Any, stream: Any, sampling: Sampling) -> Iterator[Any]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except MemoryError:
            raise
        except av.error.FFmpegError:
            sampling.broken += 1
            yield from _frames_of(stream.codec_context, av.Packet(), sampling)
            return
        sampling.packets += packet.size > 0
        sampling.decoded += packet.size > 0
        yield from _frames_of(stream.codec_context, packet, sampling)


class _Sparing:
    """A track whose packets are read ahead of what is decoded of them."""

    def __init__(self, container: Any, stream: Any, sampling: Sampling) -> None:
        self._packets = container.demux(stream)
        self._decoder = stream.codec_context
        self._base = Fraction(stream.time_base)
        self._usual = _usual_duration(stream)
        self._sampling = sampling
        self._ahead: collections.deque[Any] = collections.deque()
        self._times: list[int] = []  # at which packets are shown that may still be asked for
        self._ready: collections.deque[Any] = collections.deque()
        self._shown: Any = None
        self._fed = False
        self._begun = False  # whether a group of pictures has begun
        self._entry: int | None = None  # when the frame is shown at which decoding began anew
        self._start: int | None = None
        self._read_to = self._last = self._end = 0

    def frames(self, seconds: int) -> Iterator[tuple[int, Any]]:
        while len(self._times) < _REORDERED and self._read():
            pass
        if not self._times:
            raise _UnknownTimesError
        self._start = start = min(self._times)
        for second in range(seconds):
            target = start + int(second / self._base)
            while self._read_to <= target and self._read():
                pass
            if second and target >= self._end:
                return
            shown = self._at(target)
            if shown is None:
                raise _no_frames(self._sampling)
            yield second, shown

    def _read(self) -> bool:
        """Take one more packet, False at the end."""
        if self._sampling.ended:
            return False
        try:
            packet = next(self._packets)
        except StopIteration:
            self._sampling.ended = True
            return False
        except MemoryError:
            raise
        except av.error.FFmpegError:
            # Where the next packet begins is not known any more.
            self._sampling.ended = True
            self._sampling.broken += 1
            self._ahead.append(av.Packet())
            return False
        self._ahead.append(packet)
        if packet.size == 0:  # asks the decoder for what it holds back
            return True
        self._sampling.packets += 1
        if packet.pts is None:
            raise _UnknownTimesError
        self._begun = self._begun or packet.is_keyframe
        if self._begun and not packet.is_discard:
            if not self._times or packet.pts >= self._last:
                # Of the last one only: a duration may be the time between two decodings.
                self._last, self._end = packet.pts, packet.pts + (packet.duration or self._usual)
            self._times.append(packet.pts)
            start = min(self._times) if self._start is None else self._start
            self._sampling.end = float((self._end - start) * self._base)
        # What is shown until then is decoded before it: decoding never comes after showing.
        self._read_to = packet.pts if packet.dts is None else packet.dts
        return True

    def _at(self, target: int) -> Any:
        asked = max((time for time in self._times if time <= target), default=None)
        if asked is None:
            return self._shown
        self._times = [time for time in self._times if time >= asked]
        self._pass_over(target)
        while not (self._shown and self._shown.pts >= asked):
            if self._ready:
                if self._ready[0].pts > target:
                    break
                self._shown = self._ready.popleft()
            elif self._ahead or self._read():
                self._decode(asked)
            else:
                break
        if self._shown and self._shown.pts != asked:
            raise _UnknownTimesError  # it needs a frame that was passed over, or is damaged
        return self._shown

    def _pass_over(self, target: int) -> None:
        """Leave out what comes before the last group of pictures that begins by then."""
        places = [
            place
            for place, packet in enumerate(self._ahead)
            if packet.size and packet.is_keyframe and packet.pts <= target
        ]
        if not places or not places[-1]:
            return
        for _ in range(places[-1]):
            self._ahead.popleft()
        self._ready.clear()
        if self._fed:
            self._decoder.flush_buffers()
            self._fed = False
        first = self._ahead[0]
        self._entry = None if first.is_discard else first.pts

    def _decode(self, asked: int) -> None:
        packet = self._ahead.popleft()
        is_asked_for = packet.size == 0 or packet.pts == asked
        self._decoder.skip_frame = "DEFAULT" if is_asked_for else "NONREF"
        self._sampling.decoded += packet.size > 0
        self._fed = True
        for frame in _frames_of(self._decoder, packet, self._sampling):
            if frame.pts is None:
                raise _UnknownTimesError
            if self._entry is not None and frame.pts >= self._entry:
                # H.264 that is refreshed bit by bit marks points where that begins as keyframes.
                if frame.pts != self._entry or frame.pict_type in _MADE_OF_OTHERS:
                    raise _UnknownTimesError
                self._entry = None
            self._ready.append(frame)


def _frames_of(decoder: Any, packet: Any, sampling: Sampling) -> list[Any]:
    try:
        frames = decoder.decode(packet if packet.size else None)
    except av.error.EOFError:
        return []
    except MemoryError:
        raise
    except av.error.FFmpegError:
        sampling.broken += 1
        return []
    sampling.broken += sum(frame.is_corrupt for frame in frames)
    return list(frames)


def _usual_duration(stream: Any) -> int:
    """Ticks that a frame is shown where it does not say so itself."""
    rate = stream.average_rate or stream.guessed_rate
    return int(1 / (Fraction(stream.time_base) * Fraction(rate))) if rate else 0


def _no_frames(sampling: Sampling) -> InputError:
    if not sampling.packets:
        return InputError("its video track is empty")
    return InputError(f"none of the {sampling.packets:,} packets read of its video track decodes")
