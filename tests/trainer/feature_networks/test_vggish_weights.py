import re

import numpy as np
import pytest

from trainer.errors import InputError
from trainer.feature_networks.vggish import VARIABLES
from trainer.feature_networks.vggish_weights import load_vggish_pca, read_weights

# The published names, with sizes of at most 4.
SHAPES = {name: tuple(min(size, 4) for size in shape) for name, shape in VARIABLES.items()}
OTHERS = {
    "global_step": np.array(7, np.int64),
    "vggish/conv1/weights/Adam": np.ones(SHAPES["vggish/conv1/weights"], np.float32),
    "vggish/logits/weights": np.ones((4, 2), np.float32),
}


@pytest.fixture
def arrays(rng):
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def in_a_graph(arrays, done):
    """Call `done` with a session whose variables are the arrays, as the published code's are."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in arrays.items():
            tf.compat.v1.get_variable(name, initializer=value, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        done(session)


def checkpoint_of_version_1(path, arrays):
    import tensorflow as tf

    def save(session):
        saver = tf.compat.v1.train.Saver(write_version=tf.compat.v1.train.SaverDef.V1)
        saver.save(session, str(path), write_meta_graph=False)

    in_a_graph(arrays, save)
    assert path.is_file()
    return path


def checkpoint_of_version_2(path, arrays):
    import tensorflow as tf

    def save(session):
        saver = tf.compat.v1.train.Saver(write_version=tf.compat.v1.train.SaverDef.V2)
        saver.save(session, str(path), write_meta_graph=False)

    in_a_graph(arrays, save)
    assert not path.exists()
    return path


def frozen_graph(path, arrays):
    import tensorflow as tf

    path = path.with_suffix(".pb")

    def freeze(session):
        graph = tf.compat.v1.graph_util.convert_variables_to_constants(
            session, session.graph_def, [f"{name}/read" for name in arrays]
        )
        path.write_bytes(graph.SerializeToString())

    in_a_graph(arrays, freeze)
    return path


def archive(path, arrays):
    path = path.with_suffix(".npz")
    np.savez(path, **arrays)
    return path


def saved_model_of_tensorflow_1(path, arrays):
    import tensorflow as tf

    def save(session):
        builder = tf.compat.v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()

    in_a_graph(arrays, save)
    return path


def saved_model_of_tf_hub(path, arrays):
    """Variables in a list of a module, named as in the graph that was wrapped.

    As https://github.com/tensorflow/models/blob/master/research/audioset/vggish/vggish_export_tfhub.py
    """
    import tensorflow as tf

    kept = []

    def define(x):
        def creator(create, **kwargs):
            kept.append(create(**kwargs))
            return kept[-1]

        with tf.variable_creator_scope(creator):
            for name, value in arrays.items():
                variable = tf.compat.v1.get_variable(name, initializer=value, use_resource=True)
                x += tf.reduce_sum(tf.cast(variable, tf.float32))
        return x

    module = tf.Module()
    wrapped = tf.compat.v1.wrap_function(define, signature=[tf.TensorSpec([], tf.float32)])
    module.kept, module.wrapped = kept, wrapped

    def call(x):
        return wrapped(x)

    module.run = tf.function(call, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(path), signatures=module.run)
    assert "kept/0/.ATTRIBUTES/VARIABLE_VALUE" in dict(
        tf.train.list_variables(str(path / "variables" / "variables"))
    )
    return path


def saved_model_of_layers(path, arrays):
    """Variables that say their layer and their role, but in other words."""
    import tensorflow as tf

    parts = {}
    for name, value in arrays.items():
        scope, _, role = name.rpartition("/")
        part = parts.setdefault(scope.rpartition("/")[2] or "none", tf.Module())
        setattr(part, {"weights": "kernel", "biases": "bias"}.get(role, role), tf.Variable(value))
    module = tf.Module()
    module.parts = parts
    tf.saved_model.save(module, str(path))
    return path


FORMS = [
    checkpoint_of_version_1, checkpoint_of_version_2, frozen_graph, archive,
    saved_model_of_tensorflow_1, saved_model_of_tf_hub, saved_model_of_layers,
]  # fmt: skip


@pytest.mark.parametrize("write", FORMS)
def test_weights_are_the_same_in_every_form(write, arrays, tmp_path):
    found = read_weights(write(tmp_path / "vggish", arrays | OTHERS), SHAPES)
    assert list(found) == list(SHAPES)
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, arrays[name])


def refusal(path, shapes=SHAPES):
    with pytest.raises(InputError) as error:
        read_weights(path, shapes)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("write", FORMS)
def test_a_missing_variable_is_named(write, arrays, tmp_path):
    del arrays["vggish/fc2/biases"]
    message = refusal(write(tmp_path / "vggish", arrays))
    assert "no variable vggish/fc2/biases, expected one of shape [4]; found " in message
    assert re.search(r"and \d+ more$", message)


@pytest.mark.parametrize("write", [checkpoint_of_version_1, frozen_graph, archive])
def test_another_shape_is_named(write, arrays, tmp_path):
    arrays["vggish/fc1/fc1_1/weights"] = np.ones((4, 3), np.float32)
    message = refusal(write(tmp_path / "vggish", arrays))
    expected = "vggish/fc1/fc1_1/weights has float32 [4, 3], expected floats of shape [4, 4]"
    assert message.endswith(expected)


def test_other_types_are_named(arrays, tmp_path):
    arrays["vggish/conv2/biases"] = np.zeros(4, np.int64)
    assert "vggish/conv2/biases has int64 [4]" in refusal(archive(tmp_path / "a", arrays))
    arrays["vggish/conv2/biases"] = np.zeros(4, np.float16)  # as good
    found = read_weights(archive(tmp_path / "b", arrays), SHAPES)["vggish/conv2/biases"]
    assert found.dtype == np.float32


def test_values_that_are_not_finite_are_counted(arrays, tmp_path):
    arrays["vggish/conv2/biases"][1:3] = np.nan, np.inf
    message = refusal(archive(tmp_path / "vggish", arrays))
    assert "vggish/conv2/biases has 2 of 4 values that are not finite, expected none" in message


@pytest.mark.parametrize("name", ["vggish_model.ckpt", "vggish.pb", "vggish.npz"])
def test_an_absent_file_is_where_the_published_one_is(name, tmp_path):
    assert refusal(tmp_path / name).endswith(
        "no such file; the published one is "
        "https://storage.googleapis.com/audioset/vggish_model.ckpt (277 MB)"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vggish_model.ckpt", "expected a TensorFlow checkpoint"),
        ("vggish.pb", "expected a frozen graph"),
        ("vggish.npz", "expected an archive of NumPy arrays"),
    ],
)
@pytest.mark.parametrize("content", [b"<html>Not found</html>\n", b""])
def test_another_file_is_refused(name, expected, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(path)
    # No bytes at all are a graph, one without nodes.
    assert expected in message or (name == "vggish.pb" and "found none" in message)


@pytest.mark.parametrize("write", [checkpoint_of_version_1, frozen_graph, archive])
def test_half_a_file_is_refused(write, arrays, tmp_path):
    path = write(tmp_path / "vggish", arrays)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "expected a" in refusal(path)


def test_a_checkpoint_without_its_data_is_refused(arrays, tmp_path):
    path = checkpoint_of_version_2(tmp_path / "vggish", arrays)
    (tmp_path / "vggish.data-00000-of-00001").unlink()
    refusal(path)


def test_an_archive_of_one_array_is_refused(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(3))
    path = (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    assert "expected an archive of NumPy arrays" in refusal(path)


def test_a_folder_without_variables_is_refused(tmp_path):
    message = refusal(tmp_path)
    assert "no variables/variables.index, expected the folder of a SavedModel" in message


def test_two_variables_for_one_name_are_refused(arrays, tmp_path):
    twice = {f"{scope}/{name}": a for scope in ("left", "right") for name, a in arrays.items()}
    message = refusal(saved_model_of_tf_hub(tmp_path / "model", twice))
    assert "vggish/conv1/weights may be any of" in message
    assert message.endswith("expected one variable")


def test_variables_without_names_are_refused(arrays, tmp_path):
    nameless = {f"w{number}": array for number, array in enumerate(arrays.values())}
    message = refusal(saved_model_of_tf_hub(tmp_path / "model", nameless))
    assert "no variable vggish/conv1/weights" in message


@pytest.mark.parametrize("shape", [(128,), (128, 1)])
def test_pca_is_read_as_it_was_published(shape, rng, tmp_path):
    means, vectors = rng.normal(size=128), rng.normal(size=(128, 128))
    path = tmp_path / "vggish_pca_params.npz"
    np.savez(path, pca_means=means.reshape(shape), pca_eigen_vectors=vectors)
    mean, matrix = load_vggish_pca(path)
    assert mean.dtype == matrix.dtype == np.float64
    # The published code multiplies columns: vectors · (embeddingsᵀ − means)
    embeddings = rng.normal(size=(5, 128))
    expected = (vectors @ (embeddings.T - means[:, None])).T
    found = np.stack([matrix @ (embedding - mean) for embedding in embeddings])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"pca_means": np.zeros(128)}, r"no variable pca_eigen_vectors, .*; found pca_means$"),
        ({"pca_means": np.zeros((1, 128))}, r"pca_means has float64 \[1, 128\], .* shape \[128\]$"),
        ({"pca_means": np.full(128, np.nan)}, r"pca_means has 128 of 128 values that are not"),
        ({"pca_means": np.array([{}])}, "expected an archive of NumPy arrays .*allow_pickle"),
        ({}, "no variable pca_means, .*; found none"),
    ],
)
def test_another_pca_is_refused(content, found, tmp_path):
    path = tmp_path / "pca.npz"
    np.savez(path, **content)
    with pytest.raises(InputError, match=f"pca.npz: {found}"):
        load_vggish_pca(path)


def test_an_absent_pca_is_where_the_published_one_is(tmp_path):
    with pytest.raises(InputError, match=r"the published one is https://.*/vggish_pca_params.npz$"):
        load_vggish_pca(tmp_path / "vggish_pca_params.npz")
