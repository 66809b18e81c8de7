import hashlib
import random

import keras
import numpy as np
import pytest

from trainer.feature_networks import vggish
from trainer.feature_networks.log_mel import patches
from trainer.feature_networks.vggish import VARIABLES, VGGish


@pytest.fixture(scope="module")
def weights():
    """Random weights, biases too, by the published names."""
    rng = np.random.default_rng(1)
    arrays = vggish.random_weights(3)
    biases = {
        name: rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in VARIABLES.items()
        if name.endswith("biases")
    }
    return arrays | biases  # in the order of the arrays


@pytest.fixture(scope="module")
def network(weights):
    return VGGish(weights)


@pytest.fixture
def sounds(rng):
    """Log-mel patches [37,96,64] of noises that differ in loudness."""
    levels = np.geomspace(1e-3, 0.5, 37)
    samples = np.concatenate([rng.normal(0, level, 16_000) for level in levels])
    return patches(samples.astype(np.float32), 37)


def slow_network(weights, x):
    """The definition in float64: shifted copies for convolutions, [96,64] to [128]."""
    x = x[:, :, None].astype(np.float64)
    for layer in ("conv1", "conv2", "conv3/conv3_1", "conv3/conv3_2", "conv4/conv4_1",
                  "conv4/conv4_2"):  # fmt: skip
        height, width = x.shape[:2]
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        kernel = weights[f"vggish/{layer}/weights"].astype(np.float64)
        x = 0
        for row in range(3):
            for column in range(3):
                shifted = padded[row : row + height, column : column + width]
                x += shifted.reshape(height * width, -1) @ kernel[row, column]
        x = np.maximum(x + weights[f"vggish/{layer}/biases"], 0).reshape(height, width, -1)
        if layer not in ("conv3/conv3_1", "conv4/conv4_1"):
            x = x.reshape(height // 2, 2, width // 2, 2, -1).max((1, 3))
    x = x.reshape(-1)
    for layer in ("fc1/fc1_1", "fc1/fc1_2", "fc2"):
        x = x @ weights[f"vggish/{layer}/weights"].astype(np.float64)
        x = x + weights[f"vggish/{layer}/biases"]
        if layer != "fc2":
            x = np.maximum(x, 0)
    return x


def published_graph(weights, x):
    """The operations that the published graph is made of, [N,96,64] to [N,128]."""
    import tensorflow as tf

    x = x[..., None]
    for layer, pooled in (
        ("conv1", True), ("conv2", True), ("conv3/conv3_1", False), ("conv3/conv3_2", True),
        ("conv4/conv4_1", False), ("conv4/conv4_2", True),
    ):  # fmt: skip
        x = tf.nn.conv2d(x, weights[f"vggish/{layer}/weights"], 1, "SAME")
        x = tf.nn.relu(tf.nn.bias_add(x, weights[f"vggish/{layer}/biases"]))
        if pooled:
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
    x = tf.reshape(x, (len(x), -1))
    for layer in ("fc1/fc1_1", "fc1/fc1_2"):
        x = tf.nn.relu(
            tf.matmul(x, weights[f"vggish/{layer}/weights"]) + weights[f"vggish/{layer}/biases"]
        )
    x = tf.matmul(x, weights["vggish/fc2/weights"]) + weights["vggish/fc2/biases"]
    return x.numpy()


def test_the_network_has_the_published_sizes():
    model = vggish.build_vggish()
    assert model.count_params() == 72_141_184
    assert sum(int(np.prod(shape)) for shape in VARIABLES.values()) == 72_141_184
    found = [layer.kernel.shape for layer in model.layers if layer.weights]
    assert found == [
        (3, 3, 1, 64), (3, 3, 64, 128), (3, 3, 128, 256), (3, 3, 256, 256), (3, 3, 256, 512),
        (3, 3, 512, 512), (12288, 4096), (4096, 4096), (4096, 128),
    ]  # fmt: skip
    assert model.output_shape == (None, 128)


def test_other_settings_of_keras_do_not_change_the_network(network, weights, sounds):
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_image_data_format("channels_first")
    try:
        model = vggish.build_vggish()
    finally:
        keras.config.set_dtype_policy("float32")
        keras.config.set_image_data_format("channels_last")
    model.set_weights(list(weights.values()))
    found = keras.ops.convert_to_numpy(model(sounds[:32]))
    np.testing.assert_array_equal(found, network(sounds[:32]))


def test_embeddings_are_those_of_a_slow_network(network, weights, sounds):
    found = network(sounds[20:21])[0]
    expected = slow_network(weights, sounds[20])
    assert found.dtype == np.float32
    assert (found < 0).any()  # no ReLU at the end
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_embeddings_are_those_of_the_published_operations(network, weights, sounds):
    expected = published_graph(weights, sounds[10:13])
    np.testing.assert_allclose(network(sounds[10:13]), expected, atol=1e-5 * np.abs(expected).max())


def test_a_patch_has_one_embedding_in_every_batch(network, sounds):
    assert len(sounds) > vggish.BATCH_SIZE
    expected = network(sounds)
    np.testing.assert_array_equal(network(sounds[::-1])[::-1], expected)
    np.testing.assert_array_equal(network(sounds[3:20]), expected[3:20])
    np.testing.assert_array_equal(network(sounds[36:]), expected[36:])
    among_others = sounds[5:].copy()
    among_others[:20] = np.nan
    np.testing.assert_array_equal(network(among_others)[20:], expected[25:])


def test_no_patches_have_no_embeddings(network):
    found = network(np.empty((0, 96, 64), np.float32))
    assert found.shape == (0, 128)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 96, 64)), np.zeros((96, 64), np.float32), np.zeros((2, 64, 96), np.float32)],
)
def test_other_patches_are_refused(network, wrong):
    with pytest.raises(ValueError, match=r"expected patches of type float32 \[N,96,64\], received"):
        network(wrong)


def test_random_weights_let_the_scale_of_a_patch_through(weights, sounds):
    before = random.getstate(), global_state()
    network = VGGish.random(5)
    assert (random.getstate(), global_state()) == before
    assert network.name == "vggish-random"
    embeddings = network(sounds[5:])
    for some in (embeddings, embeddings[25:]):  # very different sounds, and similar ones
        assert 0.05 < some.std(axis=0).mean() < 50
    again = vggish.random_weights(5)
    assert network.digest == vggish.weights_digest(again)
    assert not np.array_equal(again["vggish/fc2/weights"], weights["vggish/fc2/weights"])


def global_state():
    return np.random.get_state()[1].tolist()  # noqa: NPY002 (the one not to touch)


def test_the_digest_is_of_names_shapes_and_values():
    arrays = {"a": np.array([1, 2], np.float32), "b": np.array([[3]], np.float32)}
    by_hand = b"a (2,)" + np.array([1, 2], "<f4").tobytes()
    by_hand += b"b (1, 1)" + np.array([3], "<f4").tobytes()
    assert vggish.weights_digest(arrays) == hashlib.sha256(by_hand).hexdigest()[:32]


def test_the_published_form_of_the_weights_loads_whole(weights, network, sounds, tmp_path):
    import tensorflow as tf

    path = tmp_path / "vggish_model.ckpt"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        # Values are fed: a constant of the graph may not be as large.
        variables = {
            name: tf.compat.v1.get_variable(name, shape, use_resource=False)
            for name, shape in VARIABLES.items()
        }
        for name, variable in variables.items():
            session.run(variable.initializer, {variable.initial_value: weights[name]})
        saver = tf.compat.v1.train.Saver(write_version=tf.compat.v1.train.SaverDef.V1)
        saver.save(session, str(path), write_meta_graph=False)
    assert path.stat().st_size > 4 * 72_141_184
    loaded = VGGish.load(path)
    path.unlink()  # pytest would keep it
    assert (loaded.name, loaded.digest) == ("vggish", network.digest)
    np.testing.assert_array_equal(loaded(sounds[:1]), network(sounds[:1]))
