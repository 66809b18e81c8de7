"""Raw video to records, stage by stage, and the whole beside the bare network.

    python -m benchmarks.feature_extraction              # ten minutes on 2 cores
    python -m benchmarks.feature_extraction --seconds 20 --rounds 2

Clips are made here, of moving noise in H.264 with B-frames, with groups of pictures of half a
second to ten seconds. Decoding that passes over what nobody asked for is timed in turn with
decoding all; the extraction of frames in turn with Keras's `predict` on the same frames. Weights
are random, which costs the same.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import machine, time_in_turn
from components.extract_features.decoder_process import Limits
from components.extract_features.features import Networks, Pace, VideoFeatures, features_of
from components.extract_features.media import Media
from components.extract_features.sampling import Sampling
from trainer import records
from trainer.feature_networks import log_mel
from trainer.feature_networks.bilinear import resize
from trainer.feature_networks.inception_v3 import InceptionV3
from trainer.feature_networks.log_mel import SAMPLE_RATE
from trainer.feature_networks.projection import Projection
from trainer.feature_networks.vggish import VGGish

FRAMES_PER_SECOND = 25
SIZES = {"320 × 240": (320, 240), "1280 × 720": (1280, 720)}
_CLIPS = 8
GROUPS = (12, 50, 250)
"""Frames from one key frame to the next: half a second, two, ten (x264's default)."""


def write_clip(path: Path, size: tuple[int, int], group: int, seconds: int, sound: bool) -> None:
    """A clip of blurred noise that drifts, with white noise as its sound."""
    width, height = size
    random = np.random.default_rng(group)
    coarse = random.integers(0, 255, (height // 8 + 64, width // 8 + 64, 3), np.uint8)
    picture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", FRAMES_PER_SECOND)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"preset": "veryfast", "bf": "3", "g": str(group), "sc_threshold": "0"}
        audio: Any = container.add_stream("aac", 44_100) if sound else None
        for number in range(seconds * FRAMES_PER_SECOND):
            right, down = number * 3 % 400, number * 2 % 400
            image = np.ascontiguousarray(picture[down : down + height, right : right + width])
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            if audio is not None:
                _encode_sound(container, audio, random, number)
        container.mux(video.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))


def _encode_sound(container: Any, audio: Any, random: np.random.Generator, number: int) -> None:
    count = 44_100 // FRAMES_PER_SECOND
    values = random.normal(0, 0.1, (1, count)).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(values, "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 44_100, number * count, Fraction(1, 44_100)
    container.mux(audio.encode(frame))


def decoding(folder: Path, seconds: int, rounds: int) -> None:
    """Frames a second (of those asked for), all decoded and sparing."""
    print("\n| decoding, one process | group | all decoded | sparing | decoded of all | ratio |")
    print("|---|---|---|---|---|---|")
    for name, size in SIZES.items():
        for group in GROUPS:
            path = folder / f"{size[1]}-{group}.mp4"
            write_clip(path, size, group, seconds, sound=False)
            met = Sampling()

            def run(sparing: bool, path: Path, met: Sampling) -> None:
                vars(met).update(vars(Sampling()))
                for _ in Media(str(path)).images(seconds, met, sparing):
                    pass

            timed = time_in_turn(
                {
                    "all": functools.partial(run, False, path, met),
                    "sparing": functools.partial(run, True, path, met),
                },
                rounds,
                1,
            )
            every, sparing = timed["all"].median, timed["sparing"].median
            print(
                f"| {name} | {group} | {seconds / every:,.0f} frames/s | "
                f"{seconds / sparing:,.0f} | {met.decoded / met.packets:.0%} | "
                f"{every / sparing:.2f} |"
            )


def stages(networks: Networks, frames: NDArray[np.float32], rounds: int) -> None:
    """Each stage alone, per second of video."""
    count = len(frames)
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (720, 1280, 3), np.uint8)
    sound = random.normal(0, 0.1, count * SAMPLE_RATE).astype(np.float32).clip(-1, 1)
    patches = log_mel.patches(sound, count)
    pooled = random.normal(size=(count, 2048)).astype(np.float32)
    projection = Projection(np.zeros(2048), random.normal(size=(1024, 2048)) / 45, None, "noise")
    with tempfile.TemporaryDirectory() as scratch:

        def write() -> None:
            rgb = projection.codes(pooled)
            video = records.VideoRecord("id", np.zeros(1, np.int64), rgb, rgb[:, :128])
            records.write_records(Path(scratch) / "shard", [records.encode(video)])

        things: dict[str, Callable[[], Any]] = {
            "resize (720p)": lambda: [resize(image, half_pixel_centers=True) for _ in range(count)],
            "Inception-v3": lambda: networks.rgb(frames),
            "log-mel": lambda: log_mel.patches(sound, count),
            "VGGish": lambda: networks.audio(patches),
            "PCA, quantise, write": write,
        }
        timed = time_in_turn(things, rounds, 1)
    print("\n| stage | frames (seconds of video) a second | ± |\n|---|---|---|")
    for name, one in timed.items():
        print(f"| {name} | {count / one.median:,.0f} | {one.spread:.0%} |")


def whole(networks: Networks, folder: Path, seconds: int, rounds: int) -> None:
    """The extraction's frames a second beside `predict` on the same frames."""
    print("\n| whole | `predict` | extraction | share | with sound | videos/s |")
    print("|---|---|---|---|---|---|")
    model = networks.rgb.model  # type: ignore[attr-defined]
    for name, size in SIZES.items():
        paths = [folder / f"whole-{size[1]}-{number}.mp4" for number in range(_CLIPS)]
        loud = [path.with_name(f"loud-{path.name}") for path in paths]
        for path, other in zip(paths, loud, strict=True):
            write_clip(path, size, 50, seconds, sound=False)
            write_clip(other, size, 50, seconds, sound=True)
        frames = seconds * len(paths)
        inputs = np.random.default_rng(1).random((frames, 299, 299, 3), np.float32) * 255
        pace = Pace(32, len(os.sched_getaffinity(0)))

        def extract(paths: list[Path], pace: Pace, expected: int) -> None:
            found = list(features_of([str(path) for path in paths], networks, Limits(), pace))
            done = sum(len(one.rgb) for one in found if isinstance(one, VideoFeatures))
            assert done == expected

        timed = time_in_turn(
            {
                "predict": functools.partial(model.predict, inputs, batch_size=32, verbose=0),
                "extraction": functools.partial(extract, paths, pace, frames),
                "sound": functools.partial(extract, loud, pace, frames),
            },
            rounds,
            1,
        )
        bare, all_of_it = timed["predict"].median, timed["extraction"].median
        print(
            f"| {name} | {frames / bare:.1f} frames/s | {frames / all_of_it:.1f} | "
            f"{bare / all_of_it:.0%} | {frames / timed['sound'].median:.1f} | "
            f"{len(paths) / timed['sound'].median:.2f} of {seconds} s |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=40, help="of a clip [default 40]")
    parser.add_argument("--rounds", type=int, default=3, help="that count [default 3]")
    options = parser.parse_args()
    print(machine())
    networks = Networks(InceptionV3.random(0), VGGish.random(0))
    frames = np.random.default_rng(2).random((64, 299, 299, 3), np.float32) * 255
    with tempfile.TemporaryDirectory() as scratch:
        decoding(Path(scratch), options.seconds, options.rounds)
        stages(networks, frames, options.rounds)
        whole(networks, Path(scratch), options.seconds, options.rounds)


if __name__ == "__main__":
    main()
