"""Inception-v3 of Keras, with its ImageNet weights or with random ones.

Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015,
https://arxiv.org/abs/1512.00567; https://keras.io/api/applications/inceptionv3/. Not the network
that made YouTube-8M's features (`trainer.feature_networks.inception_graph` runs that one).
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError
from trainer.feature_networks.frame_network import PIECE, POOLED_SIZE, SIDE, check_frames, in_pieces

WEIGHTS_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
PUBLISHED = {
    "bcbd6486424b2319ff4ef7d526e38f63": False,
    "9a0d58056eeedaa3f26cb7ebd46da564": True,
}
"""MD5 of Keras's files of weights, as in keras/src/applications/inception_v3.py of 3.15, and
whether the file has the classifier (its name then lacks `_notop`)."""
IMAGENET_NETWORK, RANDOM_NETWORK = "inception-v3-imagenet", "inception-v3-random"
_GAIN = 2 / (1 - 1 / np.pi)


class InceptionV3:
    """Inception-v3 up to its average pooling; a `FrameNetwork`.

    Made by `imagenet` or `random`, not by itself.

    Attributes:
        model: the Keras model, from [N,299,299,3] in −1 … 1 to [N,2048].
    """

    half_pixel_centers = True
    """As `tf.image.resize` of TensorFlow 2, with which Keras's layers resize."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self.model = model
        self.digest = _digest(model)
        if keras.config.backend() == "tensorflow":
            # Keras would have XLA compile it: on a CPU, a third fewer frames a second.
            model.jit_compile = False

    @classmethod
    def imagenet(cls, path: str | PathLike[str] | None = None) -> InceptionV3:
        """With Keras's ImageNet weights.

        Args:
            path: either of Keras's two files of them; None: Keras's copy below `~/.keras/models`,
                which it downloads if there is none.

        Raises:
            InputError: the file is absent or not as it was published, or the download failed.
        """
        if path is None:
            return cls(IMAGENET_NETWORK, _downloaded())
        file = Path(path)
        if not file.is_file():
            raise InputError(
                f"{file}: no such file; expected Inception-v3's ImageNet weights, which are at "
                f"{WEIGHTS_URL}"
            )
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "md5").hexdigest()
        if found not in PUBLISHED:
            raise InputError(
                f"{file}: expected Inception-v3's ImageNet weights as Keras publishes them (MD5 "
                f"{' or '.join(PUBLISHED)}), found another or damaged file (MD5 {found}); they are "
                f"at {WEIGHTS_URL}"
            )
        model = _architecture(include_top=PUBLISHED[found])
        model.load_weights(file)
        if PUBLISHED[found]:
            model = keras.Model(model.inputs, model.get_layer("avg_pool").output)
        return cls(IMAGENET_NETWORK, model)

    @classmethod
    def random(cls, seed: int) -> InceptionV3:
        """With weights drawn from NumPy's PCG64, for trials and tests without a download.

        He et al., "Delving deep into rectifiers", 2015, https://arxiv.org/abs/1502.01852: normal
        with a variance over the fan-in, so that activations keep their size through the layers.
        Each filter's mean is taken off: otherwise the part that all frames have in common grows
        from layer to layer, as all activations are positive, and the features hardly differ. That
        variance is then 2 / (1 − 1/π): Brock, De, Smith, "Characterizing signal propagation", 2021,
        https://arxiv.org/abs/2101.08692.
        """
        model = _architecture(include_top=False)
        generator = np.random.Generator(np.random.PCG64(seed))
        for weight in model.weights:
            if weight.name == "kernel":
                values = generator.standard_normal(weight.shape, np.float32)
                values -= values.mean(axis=(0, 1, 2))
                values *= np.float32(np.sqrt(_GAIN / np.prod(weight.shape[:3])))
                weight.assign(values)
        return cls(RANDOM_NETWORK, model)

    def __call__(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pooled features float32 [N,2048] of frames float32 [N,299,299,3] (RGB, 0 … 255).

        Raises:
            ValueError: frames of another type or shape.
        """
        check_frames(frames)
        return in_pieces(frames, PIECE, POOLED_SIZE, self._run)

    def _run(self, piece: NDArray[np.float32]) -> NDArray[np.float32]:
        # As keras.applications.inception_v3.preprocess_input, which would write to its argument.
        scaled = piece / np.float32(127.5)
        scaled -= 1
        return np.asarray(self.model.predict_on_batch(scaled))


def _downloaded() -> Any:
    try:
        return _architecture(include_top=False, weights="imagenet")
    except Exception as error:
        # Keras raises a bare Exception if a download fails, a ValueError if the hash differs.
        raise InputError(
            f"{WEIGHTS_URL}: Inception-v3's ImageNet weights can not be downloaded "
            f"({' '.join(str(error).split())}); download the file elsewhere and give its path"
        ) from None


def _architecture(include_top: bool, weights: str | None = None) -> Any:
    with _undisturbed():
        return keras.applications.InceptionV3(
            include_top=include_top,
            pooling=None if include_top else "avg",
            weights=weights,
            input_shape=(SIDE, SIDE, 3),
        )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Float32 whatever the policy is, and Python's random numbers, from which Keras draws seeds of
    initial weights that are replaced anyway, as they were.
    """
    state, policy = random.getstate(), keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        random.setstate(state)


def _digest(model: Any) -> str:
    """Of the weights in the model's order.

    Names are those within a layer: Keras numbers layers by how many it has made before.
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        values = np.asarray(keras.ops.convert_to_numpy(weight), "<f4")
        digest.update(f"{weight.name}\0{list(values.shape)}\0".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:32]
