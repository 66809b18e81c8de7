"""`python -m components.extract_features.decoder_process`: decode one file, within limits.

The child of `components.extract_features.decoder`, to which it writes messages: a letter, the
length of what follows in 4 bytes, and that. It imports no framework, so it starts in a fifth of a
second.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import struct
import sys
from typing import Any, BinaryIO

import av

from components.extract_features.media import Media, Track
from components.extract_features.sampling import Sampling
from trainer.errors import InputError
from trainer.feature_networks.bilinear import resize
from trainer.feature_networks.log_mel import SAMPLE_RATE

HEADER = struct.Struct(">cI")
TRACK, FRAME, SOUND, DONE, REFUSED = b"T", b"F", b"S", b"D", b"R"
"""What a message is: JSON of the track; float32 [299,299,3]; float32 samples; JSON of what was met;
or the reason why this video has no features."""
TRACK_FIELDS = tuple(field.name for field in dataclasses.fields(Track))
MET_FIELDS = (
    "frames", "has_audio", "sound_seconds", "broken_audio_packets",
    *(field.name for field in dataclasses.fields(Sampling)),
)  # fmt: skip
_SOUND_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """What decoding one video may take.

    Attributes:
        seconds: of the video that are looked at.
        frames: that are kept of them, one a second.
        processor_seconds: of the decoder's process.
        memory_mb: address space of it.
        waiting_seconds: that its reader may wait for it, all in all: more than the processor's, as
            other work shares the processors.
        most_pixels: of a frame.
        most_bytes: of a file in a bucket, which is copied to be decoded.
        accept_damaged: whether a video that is cut off or has packets that do not decode counts
            for what of it does.
    """

    seconds: int = 360
    frames: int = 300
    processor_seconds: int = 600
    memory_mb: int = 2048
    waiting_seconds: float = 2400.0
    most_pixels: int = 8192 * 8192
    most_bytes: int = 8 << 30
    accept_damaged: bool = False


def main() -> None:
    path, settings = sys.argv[1], json.loads(sys.argv[2])
    half_pixel_centers = settings.pop("half_pixel_centers")
    limits = Limits(**settings)
    out = sys.stdout.buffer
    _limit(limits)
    try:
        _decode(path, limits, half_pixel_centers, out)
    except InputError as error:
        _send(out, REFUSED, str(error).encode())
    except (MemoryError, av.error.MemoryError):
        _send(out, REFUSED, f"needs more than {limits.memory_mb:,} MB to decode".encode())
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads any more


def _limit(limits: Limits) -> None:
    """Take away from this process what decoding needs not."""
    for kind, most in (
        (resource.RLIMIT_AS, limits.memory_mb << 20),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))
    # The soft one alone: its signal has a name, that of the hard one is everybody's SIGKILL.
    resource.setrlimit(
        resource.RLIMIT_CPU, (limits.processor_seconds, limits.processor_seconds + 5)
    )


def _decode(path: str, limits: Limits, half_pixel_centers: bool, out: BinaryIO) -> None:
    media, sampling = Media(path, limits.most_pixels), Sampling()
    frames = 0
    for image in media.images(min(limits.seconds, limits.frames), sampling):
        if not frames:
            _send(out, TRACK, json.dumps(dataclasses.asdict(media.track)).encode())
        _send(out, FRAME, resize(image, half_pixel_centers=half_pixel_centers).tobytes())
        frames += 1
    samples, broken_sound = media.samples(frames, media.start)
    if not limits.accept_damaged:
        _check_whole(media, sampling, min(limits.seconds, limits.frames), broken_sound)
    sound = samples.tobytes()
    for start in range(0, len(sound), _SOUND_BYTES):
        _send(out, SOUND, sound[start : start + _SOUND_BYTES])
    met: dict[str, Any] = {
        "frames": frames,
        "has_audio": bool(media.track.audio_codec) and bool(len(samples)),
        "sound_seconds": len(samples) / SAMPLE_RATE,
        "broken_audio_packets": broken_sound,
        **dataclasses.asdict(sampling),
    }
    _send(out, DONE, json.dumps(met).encode())


def _check_whole(media: Media, sampling: Sampling, seconds: int, broken_sound: int) -> None:
    if sampling.broken:
        raise InputError(
            f"{sampling.broken:,} of the {sampling.packets:,} packets read of its video track do "
            "not decode"
        )
    expected = min(media.track.duration, seconds)
    if sampling.ended and media.is_cut_off(sampling.end, expected):
        raise InputError(
            f"ends after {sampling.end:.1f} s, its header says {media.track.duration:.1f} s: "
            "cut off"
        )
    if broken_sound:
        raise InputError(f"{broken_sound:,} packets of its sound track do not decode")


def _send(out: BinaryIO, kind: bytes, content: bytes | memoryview) -> None:
    out.write(HEADER.pack(kind, len(content)))
    out.write(content)
    out.flush()


if __name__ == "__main__":
    main()
