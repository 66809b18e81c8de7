"""The networks of an extraction, and where their weights lie."""

from __future__ import annotations

import dataclasses
import functools
import threading

from components.download.bucket_folder import local_folder
from components.extract_features.feature_kinds import FEATURES, IMAGENET, RANDOM, YOUTUBE8M
from components.extract_features.features import Networks
from trainer.errors import InputError
from trainer.feature_networks.feature_extractor import FeatureExtractor, NetworkId
from trainer.feature_networks.frame_network import YOUTUBE8M_NETWORK
from trainer.feature_networks.inception_graph import InceptionGraph
from trainer.feature_networks.inception_v3 import (
    IMAGENET_NETWORK,
    RANDOM_NETWORK,
    InceptionV3,
)
from trainer.feature_networks.projection import Projection, check_pair
from trainer.feature_networks.vggish import VGGish
from trainer.feature_networks.vggish_weights import load_vggish_pca
from trainer.parameter import nearest

INCEPTION_FILE = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
VGGISH_FILE, VGGISH_PCA_FILE = "vggish_model.ckpt", "vggish_pca_params.npz"
_NETWORKS = {YOUTUBE8M: YOUTUBE8M_NETWORK, IMAGENET: IMAGENET_NETWORK, RANDOM: RANDOM_NETWORK}
_ONE_AT_A_TIME = threading.Lock()


@dataclasses.dataclass(frozen=True)
class NetworkSource:
    """Which networks.

    Attributes:
        features: one of `FEATURES`.
        weights: folder (or `gs://` prefix) with the published files, by their own names.
        seed: of random weights.
    """

    features: str = IMAGENET
    weights: str = "weights"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise InputError(
                f"features is {self.features!r}, expected one of {', '.join(FEATURES)}"
                f"{nearest(self.features, tuple(FEATURES))}"
            )

    @classmethod
    def of_extractor(cls, extractor: FeatureExtractor, weights: str, file: str) -> NetworkSource:
        """The networks that an extractor's features are of; `file`: its name, for messages.

        Raises:
            InputError: they are none that are known here.
        """
        name = extractor.rgb_network.name
        for features, network in _NETWORKS.items():
            if network == name:
                return cls(features, weights, extractor.seed or 0)
        raise InputError(f"{file}: its network {name} is none of {', '.join(_NETWORKS.values())}")

    @property
    def random_seed(self) -> int | None:
        return self.seed if self.features == RANDOM else None

    def projections(self, pca: str = "") -> tuple[Projection, Projection] | None:
        """Of frames and of sound, where they are known before any video is; None: to be fitted.

        Args:
            pca: the public matrices for frames, in place of a fitted PCA.

        Raises:
            InputError: a file is absent or none, or the matrices are of another network.
        """
        if self.features != YOUTUBE8M:
            if pca:
                check_pair(_NETWORKS[self.features], Projection.youtube8m(pca))
            return None
        with local_folder(self.weights, "weights") as folder:
            rgb = Projection.youtube8m(pca or folder)
            mean, matrix = load_vggish_pca(folder / VGGISH_PCA_FILE)
        return rgb, Projection(mean, matrix, None, "AudioSet's")


def load_networks(source: NetworkSource) -> Networks:
    """The networks, once a process.

    Raises:
        InputError: a file of weights is absent or none; the message says where it comes from.
    """
    with _ONE_AT_A_TIME:  # an engine's worker may have several threads
        return _loaded(source)


@functools.lru_cache(maxsize=1)
def _loaded(source: NetworkSource) -> Networks:
    if source.features == RANDOM:
        return Networks(InceptionV3.random(source.seed), VGGish.random(source.seed))
    with local_folder(source.weights, "weights") as folder:
        # The cheaper to look for first.
        audio = VGGish.load(folder / VGGISH_FILE)
        if source.features == YOUTUBE8M:
            return Networks(InceptionGraph(folder), audio)
        file = folder / INCEPTION_FILE
        return Networks(InceptionV3.imagenet(file if file.is_file() else None), audio)


def ids_of(networks: Networks) -> tuple[NetworkId, NetworkId]:
    """Of the networks for frames and sound."""
    rgb, audio = networks.rgb, networks.audio
    return NetworkId(rgb.name, rgb.digest), NetworkId(audio.name, audio.digest)
