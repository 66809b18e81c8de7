"""Networks and projections that cost nothing, and a model that was trained on their features."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import numpy as np

from components.extract_features.features import Networks
from trainer import records
from trainer.exported_model import ExportedModel
from trainer.feature_networks.feature_extractor import FeatureExtractor, NetworkId
from trainer.feature_networks.projection import Projection
from trainer.record_format import AUDIO_SIZE, RGB_SIZE

SEED = 3
WIDTH = 64


class FakeFrames:
    """Mean colours of a frame's parts, spread over 64 values."""

    name, digest, half_pixel_centers = "inception-v3-random", "f" * 32, True

    def __call__(self, frames):
        parts = frames[:, ::60, ::60].reshape(len(frames), -1) / 255
        mixing = np.random.default_rng(1).normal(0, 0.3, (parts.shape[1], WIDTH))
        return (parts @ mixing).astype(np.float32)


class FakeSound:
    name, digest = "vggish-random", "a" * 32

    def __call__(self, patches):
        return np.repeat(patches[:, 0, :1], AUDIO_SIZE, axis=1)


NETWORKS = Networks(FakeFrames(), FakeSound())


def fake_extractor(seed=SEED, seconds=360, frames=300):
    rng = np.random.default_rng(2)
    rgb = Projection(np.zeros(WIDTH), rng.normal(0, 0.1, (RGB_SIZE, WIDTH)), None, "fitted")
    audio = Projection(
        np.zeros(AUDIO_SIZE), rng.normal(0, 0.05, (AUDIO_SIZE, AUDIO_SIZE)), None, "fitted"
    )
    ids = (
        NetworkId(FakeFrames.name, FakeFrames.digest),
        NetworkId(FakeSound.name, FakeSound.digest),
    )
    return FeatureExtractor(*ids, rgb, audio, seconds, frames, seed)


def model_of_own_videos(source, folder, extractor, **about):
    """A copy of a model, as one that was trained on the extractor's features."""
    shutil.copytree(source, folder)
    extractor.write(folder)
    change(folder, data_source="videos.csv", feature_extractor=extractor.digest, **about)
    return folder


def change(folder, **about):
    """Say other things in a model's `export.json`."""
    path = folder / "export.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | about))


def other_weights(extractor):
    return dataclasses.replace(extractor, rgb_network=NetworkId("inception-v3-random", "b" * 32))


def loaded(folder):
    """The model, loaded once."""
    return _loaded(folder, (Path(folder) / "export.json").read_text())


@functools.cache
def _loaded(folder, _about):
    return ExportedModel(folder)


def record_in(folder):
    """What `video.tfrecord` of a prediction holds."""
    (found,) = records.read_records(folder / "video.tfrecord")
    return records.parse(found)
