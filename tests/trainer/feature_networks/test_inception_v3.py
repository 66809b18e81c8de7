"""Keras's Inception-v3: the published sizes, weights from files, and features of a frame alone."""

import hashlib
import random
import urllib.error

import h5py
import keras
import numpy as np
import pytest

from trainer.errors import InputError
from trainer.feature_networks import inception_v3
from trainer.feature_networks.bilinear import resize
from trainer.feature_networks.inception_graph import FILTER_WEIGHTS
from trainer.feature_networks.inception_v3 import InceptionV3


@pytest.fixture(scope="module")
def network():
    return InceptionV3.random(3)


@pytest.fixture(scope="module")
def frames():
    """From smooth to noisy ones."""
    values = np.random.default_rng(5)
    sides = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 299]
    images = [values.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in sides]
    return np.array([resize(image, half_pixel_centers=True) for image in images])


@pytest.fixture(scope="module")
def features(network, frames):
    return network(frames)


def test_the_published_sizes(network):
    """Table 1 of the paper; counts of https://keras.io/api/applications/ and of Keras's summary."""
    assert network.model.count_params() == 21_802_784
    grids = {
        0: (35, 35, 256), 1: (35, 35, 288), 2: (35, 35, 288), 3: (17, 17, 768), 4: (17, 17, 768),
        5: (17, 17, 768), 6: (17, 17, 768), 7: (17, 17, 768), 8: (8, 8, 1280), 9: (8, 8, 2048),
        10: (8, 8, 2048),
    }  # fmt: skip
    for block, shape in grids.items():
        assert network.model.get_layer(f"mixed{block}").output.shape[1:] == shape
    kernels = [weight for weight in network.model.weights if weight.name == "kernel"]
    assert len(kernels) == 94
    assert sum(np.prod(kernel.shape) for kernel in kernels) == FILTER_WEIGHTS


def test_features_of_a_frame_do_not_depend_on_the_others(network, frames, features):
    assert features.dtype == np.float32
    assert features.shape == (16, 2048)
    np.testing.assert_array_equal(network(frames[5:6]), features[5:6])
    order = [*np.random.default_rng(1).permutation(16), 7]  # more than a piece
    np.testing.assert_array_equal(network(frames[order]), features[order])
    assert network(frames[:0]).shape == (0, 2048)


def test_it_is_the_model_on_kerass_preprocessed_frames(network, frames, features):
    before = frames.copy()
    prepared = keras.applications.inception_v3.preprocess_input(before.copy())
    np.testing.assert_array_equal(network.model.predict_on_batch(prepared), features)
    np.testing.assert_array_equal(frames, before)


def test_random_weights_keep_the_size_of_activations(network, frames, features):
    blocks = [network.model.get_layer(f"mixed{block}").output for block in range(11)]
    inner = keras.Model(network.model.inputs, blocks)
    for activations in inner.predict_on_batch(frames[::5] / 127.5 - 1):
        assert 0.2 < np.sqrt(np.mean(np.square(activations))) < 1
    spread = features.std(axis=0) / features.mean(axis=0)
    assert np.median(spread) > 0.2
    assert (spread > 0.01).mean() > 0.99


def test_random_weights_are_those_of_the_seed(network):
    random.seed(4)
    expected = random.random()
    random.seed(4)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        again = InceptionV3.random(3)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert random.random() == expected
    assert again.model.output.dtype == "float32"
    assert again.name == "inception-v3-random"
    assert again.half_pixel_centers
    assert again.digest == network.digest
    assert len(again.digest) == 32
    again.model.weights[1].assign_add(np.full(again.model.weights[1].shape, 1e-3))
    assert inception_v3._digest(again.model) != network.digest


def write_published(path, model):
    """Weights in the form of Keras's published files: a group a layer, in Keras 2's HDF5."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group.create_dataset(name, data=keras.ops.convert_to_numpy(weight))
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_weights_from_a_file(network, tmp_path, monkeypatch):
    file = tmp_path / "notop.h5"
    monkeypatch.setattr(inception_v3, "PUBLISHED", {write_published(file, network.model): False})
    loaded = InceptionV3.imagenet(file)
    assert loaded.name == "inception-v3-imagenet"
    assert loaded.digest == network.digest


def test_weights_from_the_file_with_the_classifier(network, tmp_path, monkeypatch):
    whole = keras.applications.InceptionV3(weights=None)
    assert whole.count_params() == 23_851_784
    weights = network.model.get_weights()
    whole.set_weights([*weights, *whole.get_weights()[len(weights) :]])
    file = tmp_path / "top.h5"
    monkeypatch.setattr(inception_v3, "PUBLISHED", {write_published(file, whole): True})
    loaded = InceptionV3.imagenet(str(file))
    assert loaded.digest == network.digest
    assert loaded.model.output.shape == (None, 2048)


def test_absent_and_other_files(tmp_path):
    file = tmp_path / "weights.h5"
    with pytest.raises(InputError, match=r"weights\.h5: no such file; .*notop\.h5$"):
        InceptionV3.imagenet(file)
    file.write_bytes(b"of something else")
    with pytest.raises(InputError, match=r"weights\.h5: expected .* another .*\(MD5 ce6e01d3"):
        InceptionV3.imagenet(file)


def test_a_download_that_fails(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    monkeypatch.setattr("keras.src.backend.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"notop\.h5: .*no route.* give its path$"):
        InceptionV3.imagenet()
