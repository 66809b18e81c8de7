"""Which networks and projections made the features of a data set, in one small file.

The file lies beside the records and beside every model that was trained on them: what extracts
features for that model later is held against it, so the two can not disagree.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError
from trainer.feature_networks.projection import YOUTUBE8M, Projection, check_pair
from trainer.files import local_path, write_file
from trainer.manifest import Manifest

FEATURE_EXTRACTOR = "feature_extractor.npz"
"""Its name, wherever it lies."""
VERSION = 1
_ABOUT = "about"
_OF_CODES = ("rgb_network", "audio_network", "seed")
# What NumPy raises for files that are no archive of arrays, or damaged.
_DAMAGED = (
    ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, RuntimeError,
    zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip
_ARRAYS = ("mean", "matrix", "eigenvalues")


@dataclasses.dataclass(frozen=True)
class NetworkId:
    """A network, by name and weights.

    Attributes:
        name: such as inception-v3-imagenet.
        weights: digest of them.
    """

    name: str
    weights: str


@dataclasses.dataclass(frozen=True)
class FeatureExtractor:
    """What makes a video's codes.

    Attributes:
        rgb_network, audio_network: whose outputs are projected.
        rgb, audio: the projections of these, to 1,024 and 128 values.
        seconds: of a video that are looked at, at most.
        frames: that are kept of them.
        seed: of random weights; None: the networks were trained.
    """

    rgb_network: NetworkId
    audio_network: NetworkId
    rgb: Projection
    audio: Projection
    seconds: int
    frames: int
    seed: int | None = None

    @property
    def mark(self) -> str:
        """What every record of it says of its features; empty: nothing is wrong with them."""
        return "" if self.seed is None else f"random weights (seed {self.seed})"

    def __post_init__(self) -> None:
        check_pair(self.rgb_network.name, self.rgb)

    @property
    def digest(self) -> str:
        """Equal for extractors that make the same codes of a frame, however many they look at."""
        about = self._about()
        facts = [{name: about[name] for name in _OF_CODES}, self.rgb.digest, self.audio.digest]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def check_networks(self, rgb: NetworkId, audio: NetworkId, file: str) -> None:
        """Whether these networks are its own.

        Raises:
            InputError: one is another.
        """
        for kind, mine, other in (
            ("frames", self.rgb_network, rgb),
            ("sound", self.audio_network, audio),
        ):
            if mine != other:
                raise InputError(
                    f"{file}: its features of {kind} are of the network {mine.name} with weights "
                    f"{mine.weights[:12]}, found {other.name} with weights {other.weights[:12]}"
                )

    def _about(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "rgb_network": dataclasses.asdict(self.rgb_network),
            "audio_network": dataclasses.asdict(self.audio_network),
            "rgb_projection": self.rgb.source,
            "audio_projection": self.audio.source,
            "seconds": self.seconds,
            "frames": self.frames,
            "seed": self.seed,
        }

    def to_bytes(self) -> bytes:
        """The file's content; equal extractors, equal bytes."""
        arrays = {_ABOUT: np.frombuffer(json.dumps(self._about()).encode(), np.uint8)}
        for name, projection in (("rgb", self.rgb), ("audio", self.audio)):
            for array in _ARRAYS:
                if (values := getattr(projection, array)) is not None:
                    arrays[f"{name}_{array}"] = values
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        return content.getvalue()

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write its file into a folder."""
        write_file(Path(folder) / FEATURE_EXTRACTOR, self.to_bytes())


def read_feature_extractor(path: str | os.PathLike[str]) -> FeatureExtractor:
    """Read the file, or the one in a folder.

    Raises:
        InputError: no such file, or none of this project's.
    """
    file = Path(path) / FEATURE_EXTRACTOR if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    return parse_feature_extractor(file.read_bytes(), str(file))


def parse_feature_extractor(content: bytes, file: str) -> FeatureExtractor:
    """An extractor of its file's content; `file`: its name, for messages.

    Raises:
        InputError: as `read_feature_extractor`.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        about = json.loads(arrays.pop(_ABOUT).tobytes())
        if about["version"] != VERSION:
            raise InputError(f"{file}: is of version {about['version']}, expected {VERSION}")
        return FeatureExtractor(
            NetworkId(**about["rgb_network"]),
            NetworkId(**about["audio_network"]),
            _projection("rgb", arrays, about["rgb_projection"]),
            _projection("audio", arrays, about["audio_projection"]),
            about["seconds"],
            about["frames"],
            about["seed"],
        )
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(
            f"{file}: is no {FEATURE_EXTRACTOR} of a feature extraction ({error})"
        ) from None


def extractor_of(manifest: Manifest) -> FeatureExtractor | None:
    """What made the features of a data set; None: that is not known.

    Raises:
        InputError: the file that the manifest names is not there, or is none.
    """
    if not manifest.feature_extractor:
        return None
    return read_feature_extractor(local_path(manifest.feature_extractor))


def extractor_facts(manifest: Manifest) -> dict[str, str]:
    """What a model's description says of the features that it was trained on."""
    made = extractor_of(manifest)
    return {
        "feature_extractor": made.digest if made else "",
        "features_of": YOUTUBE8M if made and made.rgb.source == YOUTUBE8M else "",
        "features_mark": manifest.features_mark,
    }


def keep_extractor(manifest: Manifest, folder: str | os.PathLike[str]) -> None:
    """Put what made the features into a model's folder, if it is known."""
    if made := extractor_of(manifest):
        made.write(folder)


def _projection(name: str, arrays: dict[str, NDArray[Any]], source: str) -> Projection:
    mean, matrix, eigenvalues = (arrays.get(f"{name}_{array}") for array in _ARRAYS)
    if mean is None or matrix is None or matrix.shape[1:] != mean.shape:
        raise ValueError(f"no projection of {name}")
    return Projection(mean, matrix, eigenvalues, source)
