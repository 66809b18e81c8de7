"""YouTube-8M's own PCA, in the two forms that it is published in."""

from __future__ import annotations

import io
import tokenize
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import InputError
from trainer.feature_networks.archives import read_members
from trainer.feature_networks.frame_network import POOLED_SIZE
from trainer.feature_networks.matrix_data import parse_matrix
from trainer.record_format import RGB_SIZE

ARCHIVE_FILE = "yt8m_pca.tgz"
PCA_URL = f"http://data.yt8m.org/{ARCHIVE_FILE}"
MEDIAPIPE_URL = "http://data.yt8m.org/pca_matrix_data/"
PCA_FILES = ("mean.npy", "eigenvals.npy", "eigenvecs.npy")
MEDIAPIPE_FILES = ("inception3_mean_matrix_data.pb", "inception3_projection_matrix_data.pb")

Parts = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]
WHITENING = 1e-4
"""Added to an eigenvalue before its root, as in google/youtube-8m's feature_extractor.py."""

_Contents = dict[str, bytes]


def read_pca(path: str | PathLike[str]) -> Parts:
    """Mean [2048], whitening matrix [1024,2048] and eigenvalues [1024] of YouTube-8M's frames.

    The eigenvalues are None where MediaPipe's form is read, which lacks them.

    Args:
        path: a folder with mean.npy, eigenvals.npy and eigenvecs.npy; or the archive of them,
            http://data.yt8m.org/yt8m_pca.tgz, which is read in memory; or a folder with
            MediaPipe's two matrices of http://data.yt8m.org/pca_matrix_data/.

    The three arrays are applied as google/youtube-8m's feature_extractor.py does it:
    (x − mean) · eigenvectors / √(eigenvalues + 1e-4), of the first 1024 directions. MediaPipe's
    two as its graphs/youtube8m/feature_extraction.pbtxt does it: projection · (x − mean), and
    nothing after it, so the whitening must be in the projection already.

    Raises:
        InputError: a file is absent, damaged or of other sizes.
    """
    place = Path(path)
    archive = place / ARCHIVE_FILE if place.is_dir() else place
    names: tuple[str, ...] = PCA_FILES
    if not place.exists():
        raise InputError(f"{place}: no such file or folder; expected YouTube-8M's PCA ({PCA_URL})")
    if place.is_dir() and any((place / name).exists() for name in MEDIAPIPE_FILES):
        names = MEDIAPIPE_FILES
    if archive.is_file() and not (place / PCA_FILES[0]).exists() and names is PCA_FILES:
        contents = read_members(archive, names, PCA_URL)
    else:
        contents = {name: (place / name).read_bytes() for name in names if (place / name).is_file()}
    missing = [name for name in names if name not in contents]
    if missing:
        raise InputError(
            f"{place}: expected YouTube-8M's PCA ({', '.join(names)}, from "
            f"{PCA_URL if names is PCA_FILES else MEDIAPIPE_URL}), found no {', '.join(missing)}"
        )
    try:
        return _of_arrays(contents) if names is PCA_FILES else _of_matrices(contents)
    except ValueError as error:
        raise InputError(f"{place}: {error}") from None


def _of_arrays(contents: _Contents) -> Parts:
    mean = _array("mean.npy", contents, (POOLED_SIZE, 1))[:, 0]
    values = _array("eigenvals.npy", contents, (POOLED_SIZE, 1))[:RGB_SIZE, 0]
    if values.min() < 0:
        raise ValueError(f"expected variances in eigenvals.npy, found {values.min()}")
    vectors = _array("eigenvecs.npy", contents, (POOLED_SIZE, POOLED_SIZE))[:RGB_SIZE]
    return mean, vectors / np.sqrt(values + WHITENING)[:, None], values


def _of_matrices(contents: _Contents) -> Parts:
    mean, matrix = (
        _checked(name, _matrix(name, contents), shape)
        for name, shape in zip(
            MEDIAPIPE_FILES, [(POOLED_SIZE, 1), (RGB_SIZE, POOLED_SIZE)], strict=True
        )
    )
    return mean[:, 0], matrix, None


def _matrix(name: str, contents: _Contents) -> NDArray[np.float32]:
    try:
        return parse_matrix(contents[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _array(name: str, contents: _Contents, shape: tuple[int, int]) -> NDArray[np.float64]:
    try:
        found = np.load(io.BytesIO(contents[name]), allow_pickle=False)
    except (ValueError, EOFError, tokenize.TokenError) as error:
        raise ValueError(f"expected an array in {name}, found a damaged file ({error})") from None
    return _checked(name, np.asarray(found), shape)


def _checked(name: str, found: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float64]:
    if found.shape != shape or found.dtype.kind != "f":
        raise ValueError(
            f"expected real numbers of shape {list(shape)} in {name}, found {found.dtype} "
            f"{list(found.shape)}"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"expected finite numbers in {name}, found others")
    return np.ascontiguousarray(found, np.float64)
