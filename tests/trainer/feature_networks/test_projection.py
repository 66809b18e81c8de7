"""PCA, whitening and codes against NumPy and loops; files that are damaged; YouTube-8M's own."""

import io
import tarfile
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainer.errors import InputError
from trainer.feature_networks.matrix_data import MatrixData, parse_matrix
from trainer.feature_networks.projection import YOUTUBE8M, Projection, check_pair
from trainer.record_format import dequantise, quantise
from trainer.statistics.covariance import ValueCovariance


def fitted(rows, size, count=None):
    covariance = np.cov(rows.T, bias=True)
    return Projection.fitted(rows.mean(axis=0), covariance, count or len(rows), size, "test")


def mixed(rng, rows, size):
    """Numbers that depend on each other."""
    return rng.normal(size=(rows, size)) @ rng.normal(size=(size, size)) + 3


def slow_code(feature):
    """In exact arithmetic, halves to the even code."""
    clipped = min(max(Fraction(float(np.float32(feature))), Fraction(-2)), Fraction(2))
    return round((clipped + 2) * Fraction(255, 4))


def test_projection_and_codes_by_loops(rng):
    mean, matrix = rng.normal(size=5), rng.normal(size=(3, 5))
    values = rng.normal(size=(7, 5)).astype(np.float32)
    projection = Projection(mean, matrix, None, "test")
    found = projection.project(values)
    assert found.dtype == np.float64
    for n in range(7):
        for k in range(3):
            expected = sum((float(values[n, d]) - mean[d]) * matrix[k, d] for d in range(5))
            assert found[n, k] == pytest.approx(expected, abs=1e-12)
    codes = projection.codes(values)
    assert codes.dtype == np.uint8
    assert codes.tolist() == [[slow_code(feature) for feature in row] for row in found]
    assert projection.codes(values[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match=r"features \[N,5\], received \[7, 4\]"):
        projection.project(values[:, :4])


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(-5, 5, width=32)))
@settings(max_examples=100, deadline=None)
def test_the_error_of_8_bits(features):
    clipped = np.clip(features.astype(np.float64), -2, 2)
    error = dequantise(quantise(features)) - clipped
    assert np.abs(error).max() <= 4 / 512 + 2 / 255 + 1e-6
    found = quantise(features)
    exact = (clipped + 2) * 255 / 4
    # Float32 may take a number that is a half, but for its last bits, to the other side.
    assert np.abs(found - exact).max() <= 0.5 + 1e-4


def test_features_of_a_row_do_not_depend_on_the_others(rng):
    projection = Projection(rng.normal(size=2048), rng.normal(size=(1024, 2048)), None, "test")
    values = rng.normal(size=(130, 2048)).astype(np.float32)
    whole = projection.project(values)
    order = rng.permutation(130)
    np.testing.assert_array_equal(projection.project(values[order]), whole[order])
    for few in (slice(0, 1), slice(77, 79), slice(3, 68)):
        np.testing.assert_array_equal(projection.project(values[few]), whole[few])


def test_fitted_data_is_white(rng):
    rows = mixed(rng, 500, 8)
    projection = fitted(rows, 5)
    assert projection.rank == 5
    found = projection.project(rows)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(5), atol=1e-3)
    # NumPy's singular values of the centred data, the other way to the same components.
    _, singular, directions = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    variances = singular[:5] ** 2 / len(rows)
    np.testing.assert_allclose(projection.eigenvalues, variances)
    expected = (rows - rows.mean(axis=0)) @ directions[:5].T / np.sqrt(variances + 1e-4)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-8)


def test_directions_without_data_give_zero(rng):
    rows = np.repeat(mixed(rng, 200, 4), 2, axis=1)  # 8 dimensions, 4 of them copies
    projection = fitted(rows, 7)
    assert projection.rank == 4
    assert not projection.matrix[4:].any()
    assert (projection.codes(rng.normal(size=(6, 8)))[:, 4:] == quantise([0.0])).all()
    few = fitted(rows[:3], 7)
    assert few.rank == 2
    assert fitted(rows, 7, count=3).rank == 2
    same = np.ones((5, 8))
    assert fitted(same, 3).rank == 0
    assert (fitted(same, 3).codes(same) == quantise([0.0])).all()
    for size in (0, 9):
        with pytest.raises(ValueError, match=f"size of 1 … 8, received {size}"):
            fitted(rows, size)


def test_what_was_summed_up_is_fitted(rng):
    rows = rng.normal(size=(40, 6)).astype(np.float32)
    sums = ValueCovariance(6)
    assert (Projection.of_sums(sums, 3, "test").codes(rows) == quantise([0.0])).all()
    sums.add(rows[:25])
    sums.add(rows[25:])
    wide = rows.astype(np.float64)
    expected = Projection.fitted(wide.mean(axis=0), np.cov(wide.T, bias=True), 40, 3, "test")
    np.testing.assert_allclose(Projection.of_sums(sums, 3, "test").matrix, expected.matrix)


def test_the_digest_is_of_the_numbers(rng):
    one = Projection(rng.normal(size=3), rng.normal(size=(2, 3)), None, "Zürich’s videos")
    assert Projection(one.mean, one.matrix * 2, None, one.source).digest != one.digest
    strided = Projection(one.mean[::-1][::-1], np.asfortranarray(one.matrix), None, "")
    assert strided.digest == one.digest


def npz(**content):
    stream = io.BytesIO()
    np.savez(stream, **content)
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.fixture(scope="module")
def published():
    """Arrays of the published sizes, made up."""
    rng = np.random.default_rng(8)
    return {
        "mean": rng.uniform(0, 1, (2048, 1)).astype(np.float32),
        "eigenvals": np.sort(rng.gamma(0.3, 1, (2048, 1)), axis=0)[::-1].astype(np.float32),
        "eigenvecs": rng.normal(0, 0.02, (2048, 2048)).astype(np.float32),
    }


def write(folder, content):
    folder.mkdir(exist_ok=True)
    for name, array in content.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def published_formula(content, x):
    vectors = content["eigenvecs"].astype(np.float64).T[:, :1024]
    variances = content["eigenvals"].astype(np.float64)[:1024, 0]
    return (x - content["mean"][:, 0]) @ vectors / np.sqrt(variances + 1e-4)


def test_youtube8ms_arrays(rng, published, tmp_path):
    folder = write(tmp_path / "pca", published)
    projection = Projection.youtube8m(folder)
    x = rng.uniform(0, 2, (3, 2048))
    np.testing.assert_allclose(
        projection.project(x), published_formula(published, x), rtol=1e-9, atol=1e-9
    )
    assert (projection.rank, projection.source) == (1024, YOUTUBE8M)
    with tarfile.open(tmp_path / "yt8m_pca.tgz", "w:gz", compresslevel=1) as archive:
        archive.add(folder, "yt8m")
    for place in (tmp_path / "yt8m_pca.tgz", tmp_path):
        assert Projection.youtube8m(str(place)).digest == projection.digest


def test_youtube8ms_damaged_arrays(published, tmp_path):
    with pytest.raises(InputError, match=r"gone: no such file or folder; .*yt8m_pca\.tgz"):
        Projection.youtube8m(tmp_path / "gone")
    folder = write(tmp_path, {"mean": published["mean"], "eigenvals": published["eigenvals"]})
    with pytest.raises(InputError, match=r"from http://data.*found no eigenvecs\.npy$"):
        Projection.youtube8m(folder)
    write(folder, {"eigenvecs": published["eigenvecs"][:, :100]})
    with pytest.raises(InputError, match=r"\[2048, 2048\] in eigenvecs\.npy, found .* 100\]"):
        Projection.youtube8m(folder)
    write(folder, {"eigenvals": -published["eigenvals"]})
    with pytest.raises(InputError, match=r"expected variances in eigenvals\.npy, found -"):
        Projection.youtube8m(folder)
    write(folder, {"mean": published["mean"] * np.nan})
    with pytest.raises(InputError, match=r"expected finite numbers in mean\.npy"):
        Projection.youtube8m(folder)
    (folder / "mean.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"expected an array in mean\.npy, found a damaged"):
        Projection.youtube8m(folder)
    (folder / "yt8m_pca.tgz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"yt8m_pca\.tgz: expected the archive at .* damaged"):
        Projection.youtube8m(folder / "yt8m_pca.tgz")


def matrix_bytes(matrix, layout=None):
    message = MatrixData(rows=matrix.shape[0], cols=matrix.shape[1])
    message.packed_data.extend(matrix.ravel(order="C" if layout else "F").tolist())
    if layout is not None:
        message.layout = layout
    return message.SerializeToString()


def test_mediapipes_matrices(rng, tmp_path):
    """Column by column unless the layout says otherwise."""
    by_hand = b"\x08\x02\x10\x03\x1a\x18" + np.arange(6, dtype="<f4").tobytes()
    assert parse_matrix(by_hand).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert parse_matrix(by_hand + b"\x20\x01").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert parse_matrix(by_hand + b"\x20\x00").tolist() == [[0, 2, 4], [1, 3, 5]]

    mean = rng.uniform(0, 1, (2048, 1)).astype(np.float32)
    matrix = rng.normal(size=(1024, 2048)).astype(np.float32)
    names = ("inception3_mean_matrix_data.pb", "inception3_projection_matrix_data.pb")
    (tmp_path / names[0]).write_bytes(matrix_bytes(mean))
    with pytest.raises(InputError, match=r"pca_matrix_data/\), found no inception3_projection"):
        Projection.youtube8m(tmp_path)
    x = rng.uniform(0, 2, (3, 2048))
    for layout in (None, 1):
        (tmp_path / names[1]).write_bytes(matrix_bytes(matrix, layout))
        projection = Projection.youtube8m(tmp_path)
        expected = [matrix.astype(np.float64) @ (row - mean[:, 0]) for row in x]
        np.testing.assert_allclose(projection.project(x), expected, rtol=1e-9, atol=1e-9)
        assert projection.eigenvalues is None
    (tmp_path / names[1]).write_bytes(matrix_bytes(matrix[:, :5]))
    with pytest.raises(InputError, match=r"\[1024, 2048\] in inception3_proj.*\[1024, 5\]"):
        Projection.youtube8m(tmp_path)
    (tmp_path / names[1]).write_bytes(b"\xff\xff")
    with pytest.raises(InputError, match=r"projection_matrix_data\.pb: expected a MatrixData"):
        Projection.youtube8m(tmp_path)
    (tmp_path / names[1]).write_bytes(b"\x08\x02\x10\x03")
    with pytest.raises(InputError, match=r"expected 2 × 3 numbers in the MatrixData, found 0"):
        Projection.youtube8m(tmp_path)


def test_the_real_mean_and_eigenvalues(real_data, rng, published, tmp_path):
    """Of the published archive, with made-up directions, which are not at hand."""
    names = ("mean", "eigenvals")
    if not all((real_data / "pca" / f"{name}.npy").is_file() for name in names):
        pytest.skip(f"no mean.npy and eigenvals.npy of YouTube-8M's PCA at {real_data / 'pca'}")
    content = {name: np.load(real_data / "pca" / f"{name}.npy") for name in names}
    content["eigenvecs"] = published["eigenvecs"]
    projection = Projection.youtube8m(write(tmp_path, content))
    assert (np.diff(projection.eigenvalues) <= 0).all()
    x = rng.uniform(0, 2, (3, 2048))
    np.testing.assert_allclose(
        projection.project(x), published_formula(content, x), rtol=1e-9, atol=1e-9
    )


def test_youtube8ms_projection_is_for_its_own_network(rng):
    arrays_of = (rng.normal(size=3), rng.normal(size=(2, 3)), None)
    own = Projection(*arrays_of, YOUTUBE8M)
    check_pair("inception-2015-12-05", own)
    with pytest.raises(InputError, match=r"inception-2015-12-05, found the network inception-v3-i"):
        check_pair("inception-v3-imagenet", own)
    check_pair("inception-v3-imagenet", Projection(*arrays_of, "our videos"))
