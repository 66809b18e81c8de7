"""VGGish: the network that made the audio features of YouTube-8M and of AudioSet.

Hershey et al., "CNN architectures for large-scale audio classification", 2017
(https://arxiv.org/abs/1609.09430), in the form of
https://github.com/tensorflow/models/tree/master/research/audioset/vggish.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from os import PathLike

import keras
import numpy as np
from numpy.typing import NDArray

from trainer.feature_networks.log_mel import MEL_BANDS, PATCH_FRAMES
from trainer.feature_networks.vggish_weights import Arrays, read_weights
from trainer.record_format import AUDIO_SIZE

_KERNELS = {
    "vggish/conv1": (3, 3, 1, 64),
    "vggish/conv2": (3, 3, 64, 128),
    "vggish/conv3/conv3_1": (3, 3, 128, 256),
    "vggish/conv3/conv3_2": (3, 3, 256, 256),
    "vggish/conv4/conv4_1": (3, 3, 256, 512),
    "vggish/conv4/conv4_2": (3, 3, 512, 512),
    "vggish/fc1/fc1_1": (6 * 4 * 512, 4096),
    "vggish/fc1/fc1_2": (4096, 4096),
    "vggish/fc2": (4096, AUDIO_SIZE),
}
LAYERS = tuple(_KERNELS)
"""Scopes of the layers in the published graph, from the input on."""
VARIABLES: dict[str, tuple[int, ...]] = {
    f"{layer}/{name}": shape
    for layer, kernel in _KERNELS.items()
    for name, shape in (("weights", kernel), ("biases", kernel[-1:]))
}
"""Shapes of the published variables by their names; this order is the canonical one."""
_POOLED = {"conv1": "pool1", "conv2": "pool2", "conv3_2": "pool3", "conv4_2": "pool4"}

BATCH_SIZE = 32
"""Patches of a call of the network, always. TensorFlow on a CPU multiplies one row by another
routine than many: alone, a patch's embedding would differ in its last bits from the same patch's
among others. Larger calls are no faster."""


def build_vggish() -> keras.Model:
    """The network with all weights at zero.

    Input log-mel patches float32 [N,96,64], output embeddings float32 [N,128]. The embedding has no
    activation, as in the published definition of today (older ones end with a ReLU): MediaPipe's
    YouTube-8M graph takes `vggish/fc2/BiasAdd`. The layers are named as the published scopes end
    (`conv1`, `conv3_1`, …); 72,141,184 parameters.
    """
    # Neither the precision nor the order of the axes depends on Keras's settings of the process,
    # and initial weights that are random would take numbers from its generator.
    dtype, order = {"dtype": "float32"}, {"data_format": "channels_last"}
    zeros = {"kernel_initializer": "zeros"}
    inputs = keras.Input((PATCH_FRAMES, MEL_BANDS), dtype="float32")
    x = keras.layers.Reshape((PATCH_FRAMES, MEL_BANDS, 1), **dtype)(inputs)
    for layer in LAYERS:
        name, width = _last(layer), VARIABLES[f"{layer}/biases"][0]
        if name.startswith("conv"):
            x = keras.layers.Conv2D(
                width, 3, padding="same", activation="relu", name=name, **zeros, **order, **dtype
            )(x)
        else:
            activation = None if layer == LAYERS[-1] else "relu"
            x = keras.layers.Dense(width, activation=activation, name=name, **zeros, **dtype)(x)
        if name in _POOLED:
            pool = _POOLED[name]
            x = keras.layers.MaxPooling2D(2, padding="same", name=pool, **order, **dtype)(x)
        if name == "conv4_2":
            x = keras.layers.Flatten(**order, **dtype)(x)
    return keras.Model(inputs, x, name="vggish")


class VGGish:
    """Embeddings of log-mel patches.

    Attributes:
        name: `vggish`, or `vggish-random` where the weights are.
        digest: of the weights: equal for equal ones, in whatever form they were kept.

    Call arguments:
        patches: float32 [N,96,64] of `log_mel.patches`; N may be 0.

    Returns:
        float32 [N,128], before PCA. A patch's row is the same to the bit in every batch.

    Raises:
        ValueError: the patches are of another type or shape.
    """

    def __init__(self, weights: Arrays, name: str = "vggish") -> None:
        self.name = name
        self.digest = weights_digest({variable: weights[variable] for variable in VARIABLES})
        self._model = build_vggish()
        for layer in LAYERS:
            self._model.get_layer(_last(layer)).set_weights(
                [weights[f"{layer}/weights"], weights[f"{layer}/biases"]]
            )

    @classmethod
    def load(cls, path: str | PathLike[str]) -> VGGish:
        """The network with weights that `read_weights` finds at a path.

        Raises:
            InputError: see there.
        """
        return cls(read_weights(path, VARIABLES))

    @classmethod
    def random(cls, seed: int) -> VGGish:
        """The network with `random_weights`, to try things out without the published ones."""
        return cls(random_weights(seed), "vggish-random")

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        if patches.dtype != np.float32 or patches.shape[1:] != (PATCH_FRAMES, MEL_BANDS):
            raise ValueError(
                f"expected patches of type float32 [N,{PATCH_FRAMES},{MEL_BANDS}], received "
                f"{patches.dtype} {list(patches.shape)}"
            )
        output = np.empty((len(patches), AUDIO_SIZE), np.float32)
        for start in range(0, len(patches), BATCH_SIZE):
            piece = patches[start : start + BATCH_SIZE]
            rows = len(piece)
            if rows < BATCH_SIZE:
                piece = np.pad(piece, ((0, BATCH_SIZE - rows), (0, 0), (0, 0)))
            embeddings = keras.ops.convert_to_numpy(self._model(piece, training=False))
            output[start : start + rows] = embeddings[:rows]
        return output


def random_weights(seed: int) -> Arrays:
    """Weights of a seed by the published names; no other generator is touched.

    Kernels are normal with variance 2 / fan-in (He et al., https://arxiv.org/abs/1502.01852), of
    the last layer, which no ReLU follows, 1 / fan-in: the scale of a patch comes through. Biases
    are 0.
    """
    weights: Arrays = {}
    for number, layer in enumerate(LAYERS):
        shape = VARIABLES[f"{layer}/weights"]
        generator = np.random.Generator(np.random.PCG64([seed, number]))
        kernel = generator.standard_normal(shape, np.float32)
        kernel *= np.float32(np.sqrt((1 if layer == LAYERS[-1] else 2) / np.prod(shape[:-1])))
        weights[f"{layer}/weights"] = kernel
        weights[f"{layer}/biases"] = np.zeros(shape[-1], np.float32)
    return weights


def weights_digest(arrays: Mapping[str, NDArray[np.float32]]) -> str:
    """Digest of names, shapes and values in the order given, whatever file they came from."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array, "<f4").data)
    return digest.hexdigest()[:32]


def _last(scope: str) -> str:
    return scope.rpartition("/")[2]
