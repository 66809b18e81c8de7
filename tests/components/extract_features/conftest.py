"""Small videos that look and sound differently by class, and networks that cost nothing."""

import numpy as np
import pytest

from components.extract_features import beam_pass, step
from components.extract_features.decoder_process import Limits
from components.extract_features.features import Networks, Pace
from components.extract_features.networks import NetworkSource
from components.extract_features.request import Request
from tests.components.extract_features.clips import even, tone, write_clip

CLASSES = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
RANDOM = NetworkSource("random", "absent", 3)


class FakeFrames:
    """Colours of a frame's parts, mixed to 1,024 values: the fewest that a record is made of."""

    name, digest, half_pixel_centers = "inception-v3-random", "f" * 32, True
    mixing = np.random.default_rng(1).normal(0, 0.3, (75, 1024)).astype(np.float32)

    def __call__(self, frames):
        parts = frames[:, ::60, ::60].reshape(len(frames), -1) / 255
        # Each row on its own, so that it does not depend on the others.
        return np.stack([row @ self.mixing for row in parts]) if len(parts) else parts[:, :0]


class FakeSound:
    """Of a patch the mean of each band, twice."""

    name, digest = "vggish-random", "a" * 32

    def __call__(self, patches):
        return np.stack([np.tile(patch.mean(axis=0), 2) for patch in patches])


NETWORKS = Networks(FakeFrames(), FakeSound())


def coloured(colour):
    def draw(number, width, height):
        image = np.full((height, width, 3), colour, np.uint8)
        image[:, : 1 + number % width] //= 2
        return image

    return draw


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Three videos of each class, of two to four seconds, one of each class without sound."""
    folder = tmp_path_factory.mktemp("videos")
    for place, (name, colour) in enumerate(CLASSES.items()):
        for number in range(3):
            seconds = 2 + number
            sound = (tone(seconds, 16_000, hertz=200.0 * 3**place), 16_000, "aac")
            write_clip(
                folder / f"{name}{number}.mp4", even(6, seconds), draw=coloured(colour),
                sound=None if number == 2 else sound,
            )  # fmt: skip
    return folder


@pytest.fixture
def listed(clips, tmp_path):
    """A CSV file of them."""
    rows = [f"{path},{path.stem[:-1]};thing\n" for path in sorted(clips.glob("*.mp4"))]
    (tmp_path / "list.csv").write_text("video,labels\n" + "".join(rows))
    return tmp_path / "list.csv"


@pytest.fixture
def quick(monkeypatch):
    """The networks that cost nothing in place of Inception-v3 and VGGish."""
    for module in (beam_pass, step):
        monkeypatch.setattr(module, "load_networks", lambda source: NETWORKS)


def request_of(videos, **changes):
    return Request(str(videos), RANDOM, limits=Limits(), pace=Pace(8, 2), **changes)
