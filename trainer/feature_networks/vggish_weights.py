"""VGGish's published weights and PCA, in the forms that they are found in.

The weights are https://storage.googleapis.com/audioset/vggish_model.ckpt, the PCA is
https://storage.googleapis.com/audioset/vggish_pca_params.npz; both belong to
https://github.com/tensorflow/models/tree/master/research/audioset/vggish.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from trainer.errors import InputError
from trainer.record_format import AUDIO_SIZE

WEIGHTS_URL = "https://storage.googleapis.com/audioset/vggish_model.ckpt"
PCA_URL = "https://storage.googleapis.com/audioset/vggish_pca_params.npz"

Arrays = dict[str, NDArray[np.float32]]
Shapes = Mapping[str, tuple[int, ...]]
# What a file has under the wanted names, and the names of all that it has.
Found = tuple[dict[str, NDArray[Any]], Collection[str]]

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def read_weights(path: str | PathLike[str], shapes: Shapes) -> Arrays:
    """Read weights from a file or folder, whose other variables (of an optimiser) do not matter.

    Args:
        path: a TensorFlow checkpoint, of one file (V1, as the published one) or the beginning of
            the names of several (V2); a frozen graph (`.pb`), as MediaPipe's
            `generate_vggish_frozen_graph` writes; the folder of a SavedModel, as TF-Hub's
            google/vggish/1; or a `.npz`.
        shapes: what to read, by the published names.

    Returns:
        float32 arrays in the order of `shapes`.

    Raises:
        InputError: the path is absent or of none of these forms, a variable is missing, ambiguous,
            of another shape or not finite.
    """
    path = Path(path)
    if path.is_dir():
        found, names = _saved_model(path, shapes)
    elif path.suffix == ".npz":
        found, names = _archive(_present(path, f"{WEIGHTS_URL} (277 MB)"), shapes)
    elif path.suffix == ".pb":
        found, names = _frozen_graph(_present(path, f"{WEIGHTS_URL} (277 MB)"), shapes)
    else:
        if not _index(path).is_file():
            _present(path, f"{WEIGHTS_URL} (277 MB)")
        found, names = _checkpoint(path, shapes)
    return {name: _checked(path, name, shape, found, names) for name, shape in shapes.items()}


def load_vggish_pca(
    path: str | PathLike[str],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The PCA of the embeddings: `matrix @ (embedding − mean)`, whitening included.

    Args:
        path: `vggish_pca_params.npz`, with `pca_means` [128] or [128,1] and `pca_eigen_vectors`
            [128,128], a row a component.

    Returns:
        Mean [128] and matrix [128,128].

    Raises:
        InputError: the file is absent or another one, or an array is as in `read_weights`.
    """
    path = _present(Path(path), PCA_URL)
    shapes = {"pca_means": (AUDIO_SIZE,), "pca_eigen_vectors": (AUDIO_SIZE,) * 2}
    found, names = _archive(path, shapes)
    means = found.get("pca_means")
    if means is not None and means.shape == (AUDIO_SIZE, 1):
        found["pca_means"] = means[:, 0]
    mean, matrix = (
        _checked(path, name, shape, found, names).astype(np.float64)
        for name, shape in shapes.items()
    )
    return mean, matrix


def _present(path: Path, source: str) -> Path:
    if not path.is_file():
        raise InputError(f"{path}: no such file; the published one is {source}")
    return path


def _checked(
    path: Path, name: str, shape: tuple[int, ...], found: Mapping[str, Any], names: Collection[str]
) -> NDArray[np.float32]:
    """One array as float32, if it is what was expected."""
    if name not in found:
        raise InputError(
            f"{path}: no variable {name}, expected one of shape {list(shape)}; "
            f"found {_listed(names)}"
        )
    array = np.asarray(found[name])
    if array.shape != shape or array.dtype.kind != "f":
        raise InputError(
            f"{path}: {name} has {array.dtype} {list(array.shape)}, "
            f"expected floats of shape {list(shape)}"
        )
    array = np.asarray(array, np.float32)
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise InputError(
            f"{path}: {name} has {bad} of {array.size} values that are not finite, expected none"
        )
    return array


def _listed(names: Collection[str]) -> str:
    some = ", ".join(sorted(names)[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return some + more if names else "none"


def _archive(path: Path, shapes: Shapes) -> Found:
    """Arrays of a `.npz`."""
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: expected an archive of NumPy arrays (.npz), found another file")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive.keys())
            return {name: archive[name] for name in shapes if name in names}, names
    except (EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected an archive of NumPy arrays (.npz): {error}") from None


def _frozen_graph(path: Path, shapes: Shapes) -> Found:
    """Constants of a graph whose variables were frozen."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
        constants = {node.name: node for node in graph.node if node.op == "Const"}
        found = {
            name: tf.make_ndarray(constants[name].attr["value"].tensor)
            for name in shapes
            if name in constants
        }
    except (DecodeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a frozen graph (GraphDef): {error}") from None
    return found, constants


def _checkpoint(path: Path, shapes: Shapes) -> Found:
    """Variables of a checkpoint by their exact names."""
    reader, known = _opened(path)
    return {name: _tensor(path, reader, name) for name in shapes if name in known}, known


def _saved_model(path: Path, shapes: Shapes) -> Found:
    """Variables of a SavedModel.

    One of TensorFlow 2 names them by where they hang in its objects (google/vggish/1:
    `_variables/0`, …) and keeps the names that they were made with beside
    (https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/protobuf/trackable_object_graph.proto).
    """
    prefix = path / "variables" / "variables"
    if not _index(prefix).is_file():
        raise InputError(
            f"{path}: no {_index(prefix).relative_to(path)}, expected the folder of a SavedModel"
        )
    reader, known = _opened(prefix)
    labels = {key: {key.removesuffix(_VALUE)} for key in known}
    if _OBJECT_GRAPH in known:
        for key, name in _names_made_with(prefix, _tensor(prefix, reader, _OBJECT_GRAPH)):
            labels.setdefault(key, set()).add(name)
    found = {}
    for name in shapes:
        keys = _matching(name, labels)
        if len(keys) > 1:
            raise InputError(f"{path}: {name} may be any of {_listed(keys)}, expected one variable")
        if keys:
            found[name] = _tensor(prefix, reader, keys[0])
    return found, {max(names, key=len) for names in labels.values()}


def _names_made_with(path: Path, serialised: bytes) -> list[tuple[str, str]]:
    """Keys of a checkpoint of objects, each with the name that its variable was made with."""
    from tensorflow.core.protobuf import trackable_object_graph_pb2  # noqa: PLC0415 (see above)

    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    try:
        graph.ParseFromString(serialised)
    except (DecodeError, TypeError) as error:
        raise InputError(f"{path}: expected the checkpoint of a SavedModel: {error}") from None
    return [
        (attribute.checkpoint_key, attribute.full_name)
        for node in graph.nodes
        for attribute in node.attributes
    ]


def _matching(name: str, labels: Mapping[str, set[str]]) -> list[str]:
    """Keys whose variable has a published name, or else one that says the same layer and role."""
    exact = [
        key
        for key, names in labels.items()
        if any(f"/{label}".endswith(f"/{name}") for label in names)
    ]
    if exact:
        return exact
    *_, layer, role = name.split("/")
    roles = {"weights": {"weights", "kernel"}, "biases": {"biases", "bias"}}[role]
    return [
        key
        for key, names in labels.items()
        if any(layer in (parts := label.split("/"))[:-1] and parts[-1] in roles for label in names)
    ]


def _index(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")


def _opened(path: Path) -> tuple[Any, set[str]]:
    """A reader of a checkpoint and the names in it."""
    import tensorflow as tf  # noqa: PLC0415 (see above)

    try:
        reader = tf.train.load_checkpoint(str(path))
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: expected a TensorFlow checkpoint: {error}") from None
    return reader, set(reader.get_variable_to_shape_map())


def _tensor(path: Path, reader: Any, name: str) -> Any:
    import tensorflow as tf  # noqa: PLC0415 (see above)

    try:
        return reader.get_tensor(name)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: {name} can not be read: {error}") from None
