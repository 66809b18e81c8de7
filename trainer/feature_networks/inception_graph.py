"""The Inception-v3 of 2015-12-05, the network that made YouTube-8M's frame features.

A frozen graph, http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz, that
https://github.com/google/youtube-8m/blob/master/feature_extractor/feature_extractor.py gives one
uint8 image at `DecodeJpeg:0` and asks for `pool_3/_reshape:0`. In between are Cast, ExpandDims,
ResizeBilinear (to 299 × 299, TensorFlow 1's convention), Sub (128), Mul (1/128) and the network.
"""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError
from trainer.feature_networks.archives import read_members
from trainer.feature_networks.frame_network import (
    PIECE,
    POOLED_SIZE,
    SIDE,
    YOUTUBE8M_NETWORK,
    check_frames,
    in_pieces,
)

GRAPH_FILE = "classify_image_graph_def.pb"
ARCHIVE_FILE = "inception-2015-12-05.tgz"
GRAPH_URL = f"http://download.tensorflow.org/models/image/imagenet/{ARCHIVE_FILE}"
OPERATIONS = {
    "DecodeJpeg": "DecodeJpeg",
    "ExpandDims": "ExpandDims",
    "ResizeBilinear": "ResizeBilinear",
    "Sub": "Sub",
    "Mul": "Mul",
    "pool_3": "AvgPool",
    "pool_3/_reshape": "Reshape",
}
"""Nodes of the published graph that the features depend on, and their kinds."""
FILTER_WEIGHTS = 21_751_136
"""Numbers in the filters (constants of four dimensions) of Inception-v3's 94 convolutions."""


class InceptionGraph:
    """The frozen graph up to its average pooling; a `FrameNetwork`.

    That a graph is the published one is recognised by its structure: the names and kinds of the
    nodes above, and how many weights its filters have. No trustworthy hash of the published file
    is known to us; `digest` is that of the file's bytes, and tells any two files apart.

    Args:
        path: the graph's file, a folder with it, or the published archive, which is read in memory.

    Raises:
        InputError: the file is absent, unreadable or another graph.
    """

    name = YOUTUBE8M_NETWORK
    half_pixel_centers = False

    def __init__(self, path: str | PathLike[str]) -> None:
        where, content = _read(Path(path))
        self.digest = hashlib.sha256(content).hexdigest()[:32]
        definition = _parsed(where, content)
        _check_structure(where, definition)
        self._features = _imported(where, definition)

    def __call__(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pooled features float32 [N,2048] of frames float32 [N,299,299,3] (RGB, 0 … 255).

        Raises:
            ValueError: frames of another type or shape.
        """
        check_frames(frames)
        return in_pieces(frames, PIECE, POOLED_SIZE, self._features)


def _read(path: Path) -> tuple[str, bytes]:
    """What to call the graph's file in messages, and its bytes."""
    file = path
    if path.is_dir():
        file = path / GRAPH_FILE if (path / GRAPH_FILE).exists() else path / ARCHIVE_FILE
    if not file.is_file():
        raise InputError(
            f"{path}: expected the file {GRAPH_FILE}, a folder with it, or {ARCHIVE_FILE}, found "
            f"{'none of them' if path.exists() else 'nothing'}; it is at {GRAPH_URL}"
        )
    if not file.name.endswith((".tgz", ".tar.gz")):
        return str(file), file.read_bytes()
    content = read_members(file, [GRAPH_FILE], GRAPH_URL).get(GRAPH_FILE)
    if content is None:
        raise InputError(f"{file}: expected {GRAPH_FILE} in the archive, found none")
    return f"{file}: {GRAPH_FILE}", content


def _parsed(where: str, content: bytes) -> Any:
    import tensorflow as tf  # noqa: PLC0415 (seconds)
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        definition = tf.compat.v1.GraphDef.FromString(content)
    except DecodeError:
        raise InputError(
            f"{where}: expected a frozen TensorFlow graph (GraphDef), found {len(content)} bytes "
            "that are none"
        ) from None
    return definition


def _check_structure(where: str, definition: Any) -> None:
    kinds = {node.name: node.op for node in definition.node}
    missing = [name for name in OPERATIONS if name not in kinds]
    if missing:
        raise InputError(
            f"{where}: expected the graph at {GRAPH_URL}, found one of {len(kinds)} nodes without "
            f"{', '.join(missing)}"
        )
    for name, kind in OPERATIONS.items():
        if kinds[name] != kind:
            raise InputError(f"{where}: expected a {kind} at node {name}, found a {kinds[name]}")
    shapes = [
        [one.size for one in node.attr["value"].tensor.tensor_shape.dim]
        for node in definition.node
        if node.op == "Const"
    ]
    weights = sum(int(np.prod(shape)) for shape in shapes if len(shape) == 4)
    if weights != FILTER_WEIGHTS:
        raise InputError(
            f"{where}: expected Inception-v3, whose filters have {FILTER_WEIGHTS:,} weights, found "
            f"{weights:,}"
        )


def _imported(where: str, definition: Any) -> Any:
    """A function from [N,299,299,3] to [N,2048]."""
    import tensorflow as tf  # noqa: PLC0415 (seconds)

    # A session, not a function of TensorFlow 2: those lose the version of the graph, and with it
    # the right to operations that are gone since, such as BatchNormWithGlobalNormalization.
    with tf.Graph().as_default() as graph:
        frames = tf.compat.v1.placeholder(tf.float32, [None, SIDE, SIDE, 3], "frames")
        try:
            (pooled,) = tf.graph_util.import_graph_def(
                definition,
                input_map={"ResizeBilinear:0": frames},
                return_elements=["pool_3:0"],
                name="",
            )
        except (ValueError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{where}: TensorFlow can not use this graph ({reason})") from None
        if pooled.shape.rank != 4 or list(pooled.shape[1:]) != [1, 1, POOLED_SIZE]:
            raise InputError(
                f"{where}: expected {POOLED_SIZE} features from pool_3, of the shape "
                f"[N, 1, 1, {POOLED_SIZE}], found the shape {pooled.shape}"
            )
        features = tf.squeeze(pooled, [1, 2])
    session = tf.compat.v1.Session(graph=graph)
    return session.make_callable(features, feed_list=[frames])
