"""A small graph with the published one's nodes: batches against the public way, image by image."""

import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from trainer.errors import InputError
from trainer.feature_networks import inception_graph
from trainer.feature_networks.bilinear import resize
from trainer.feature_networks.inception_graph import GRAPH_FILE, InceptionGraph

v1 = tf.compat.v1
FILTERS = 7 * 7 * 3 * 8 + 3 * 3 * 8 * 16 + 16 * 2048


def small_graph(width=2048):
    """Of the version of 2015, with the batch norm of that time."""
    values = np.random.default_rng(2)
    vectors = {"moving_mean": 0.1, "moving_variance": 1.0, "beta": 0.2, "gamma": 1.0}

    def convolution(inputs, name, shape, stride):
        filters = values.normal(size=shape) * np.sqrt(2 / np.prod(shape[:3]))
        filters = tf.constant(filters.astype(np.float32), name=f"{name}/conv2d_params")
        outputs = tf.nn.conv2d(inputs, filters, stride, "SAME", name=f"{name}/Conv2D")
        for vector, around in vectors.items():
            numbers = around * values.uniform(0.8, 1.2, shape[-1])
            tf.constant(numbers.astype(np.float32), name=f"{name}/batchnorm/{vector}")
        return tf.nn.relu(tf.identity(outputs, name=f"{name}/batchnorm"), name=name)

    with tf.Graph().as_default() as graph:
        contents = tf.constant(b"", name="DecodeJpeg/contents")
        image = tf.io.decode_jpeg(contents, channels=3, name="DecodeJpeg")
        images = tf.expand_dims(tf.cast(image, tf.float32, name="Cast"), 0, name="ExpandDims")
        size = tf.constant([299, 299], name="ResizeBilinear/size")
        resized = tf.raw_ops.ResizeBilinear(images=images, size=size, name="ResizeBilinear")
        outputs = tf.multiply(tf.subtract(resized, 128.0, name="Sub"), 0.0078125, name="Mul")
        outputs = convolution(outputs, "conv", (7, 7, 3, 8), 8)
        outputs = convolution(outputs, "conv_1", (3, 3, 8, 16), 5)
        outputs = convolution(outputs, "mixed_10/join", (1, 1, 16, width), 1)
        outputs = tf.nn.avg_pool2d(outputs, 8, 1, "VALID", name="pool_3")
        tf.reshape(outputs, [1, width], name="pool_3/_reshape")
    definition = graph.as_graph_def()
    for node in definition.node:
        if node.name.endswith("/batchnorm"):
            node.op = "BatchNormWithGlobalNormalization"
            node.input.extend(f"{node.name}/{vector}" for vector in vectors)
            node.attr["variance_epsilon"].f = 0.001
            node.attr["scale_after_normalization"].b = True
    definition.versions.producer = 8
    return definition


@pytest.fixture(scope="module")
def definition():
    return small_graph()


@pytest.fixture(autouse=True)
def small_is_enough(monkeypatch):
    monkeypatch.setattr(inception_graph, "FILTER_WEIGHTS", FILTERS)


@pytest.fixture
def graph_file(definition, tmp_path):
    file = tmp_path / GRAPH_FILE
    file.write_bytes(definition.SerializeToString())
    return file


def without(definition, *names):
    """The graph without nodes and all that needs them."""
    found = type(definition)()
    found.CopyFrom(definition)
    gone = set(names)
    del found.node[:]
    for node in definition.node:
        if node.name in gone or gone & {name.split(":")[0].lstrip("^") for name in node.input}:
            gone.add(node.name)
        else:
            found.node.append(node)
    return found


def archive(path, members):
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def test_batches_are_the_public_way(rng, definition, graph_file):
    images = [
        rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in ((37, 53), (299, 299), (360, 641), (1, 9), (720, 480))
    ]
    with tf.Graph().as_default() as graph:
        v1.import_graph_def(definition, name="")
        with v1.Session() as session:
            expected = [
                session.run("pool_3/_reshape:0", {"DecodeJpeg:0": image})[0] for image in images
            ]
    assert graph.as_graph_def().versions.producer == 8
    network = InceptionGraph(graph_file)
    assert (network.name, network.half_pixel_centers) == ("inception-2015-12-05", False)
    frames = np.array([resize(image, half_pixel_centers=False) for image in images])
    found = network(frames)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.std(found, axis=0).mean() > 1e-3

    many = np.concatenate([frames] * 4)  # more than a piece
    np.testing.assert_array_equal(network(many), np.concatenate([found] * 4))
    np.testing.assert_array_equal(network(frames[3:4]), found[3:4])
    assert network(frames[:0]).shape == (0, 2048)


def test_file_folder_and_archive(definition, graph_file, tmp_path):
    content = graph_file.read_bytes()
    expected = InceptionGraph(graph_file).digest
    assert len(expected) == 32
    assert InceptionGraph(str(tmp_path)).digest == expected
    members = {"./LICENSE": b"text", f"./{GRAPH_FILE}": content}
    packed = archive(tmp_path / "any.tgz", members)
    assert InceptionGraph(packed).digest == expected
    folder = tmp_path / "folder"
    folder.mkdir()
    archive(folder / "inception-2015-12-05.tgz", members)
    assert InceptionGraph(folder).digest == expected
    assert [one.name for one in folder.iterdir()] == ["inception-2015-12-05.tgz"]
    graph_file.write_bytes(small_graph().SerializeToString() + b"\x12\x00")  # an empty field more
    assert InceptionGraph(graph_file).digest != expected


def test_what_is_absent(tmp_path):
    with pytest.raises(InputError, match=r"gone: expected .*, found nothing; it is at http://down"):
        InceptionGraph(tmp_path / "gone")
    with pytest.raises(InputError, match=r"found none of them; it is at .*2015-12-05\.tgz$"):
        InceptionGraph(tmp_path)
    packed = archive(tmp_path / "other.tgz", {"LICENSE": b"text"})
    with pytest.raises(InputError, match=r"other\.tgz: expected classify_image.* found none$"):
        InceptionGraph(packed)


def test_damaged_archives(rng, tmp_path):
    packed = archive(tmp_path / "graph.tgz", {GRAPH_FILE: rng.bytes(20_000)})
    whole = packed.read_bytes()
    for content in (whole[:9000], b"no archive", whole[:5000] + b"\xff" * 500 + whole[5500:]):
        packed.write_bytes(content)
        with pytest.raises(InputError, match=r"graph\.tgz: expected the archive at .* damaged"):
            InceptionGraph(packed)


def test_what_is_no_graph(graph_file):
    graph_file.write_bytes(b"\xff\xff of something else")
    with pytest.raises(InputError, match=r"\.pb: expected a frozen TensorFlow graph .* 20 bytes"):
        InceptionGraph(graph_file)
    graph_file.write_bytes(b"")
    with pytest.raises(InputError, match=r"one of 0 nodes without DecodeJpeg, ExpandDims, Resize"):
        InceptionGraph(graph_file)


def test_other_graphs(definition, graph_file, monkeypatch):
    graph_file.write_bytes(without(definition, "pool_3").SerializeToString())
    with pytest.raises(InputError, match=r"nodes without pool_3, pool_3/_reshape$"):
        InceptionGraph(graph_file)

    other = type(definition)()
    other.CopyFrom(definition)
    next(node for node in other.node if node.name == "pool_3").op = "MaxPool"
    graph_file.write_bytes(other.SerializeToString())
    with pytest.raises(InputError, match="expected a AvgPool at node pool_3, found a MaxPool"):
        InceptionGraph(graph_file)

    graph_file.write_bytes(small_graph(width=1024).SerializeToString())
    with pytest.raises(InputError, match=r"whose filters have 35,096 weights, found 18,712$"):
        InceptionGraph(graph_file)
    monkeypatch.setattr(inception_graph, "FILTER_WEIGHTS", FILTERS - 16 * 1024)
    with pytest.raises(InputError, match=r"expected 2048 features from pool_3, .* 1, 1, 1024\)"):
        InceptionGraph(graph_file)


def test_a_graph_that_tensorflow_refuses(definition, graph_file):
    other = type(definition)()
    other.CopyFrom(definition)
    next(node for node in other.node if node.name == "conv").op = "NoSuchOperation"
    graph_file.write_bytes(other.SerializeToString())
    with pytest.raises(InputError, match=r"\.pb: TensorFlow can not use this graph \(.*NoSuch"):
        InceptionGraph(graph_file)
