"""Which networks, and what is said where a file of them is missing."""

import numpy as np
import pytest

from components.extract_features.networks import NetworkSource, load_networks
from trainer.errors import InputError
from trainer.feature_networks.frame_network import YOUTUBE8M_NETWORK
from trainer.feature_networks.projection import Projection, check_pair


def test_kinds_are_named():
    with pytest.raises(InputError, match=r"features is 'imagnet', .* did you mean imagenet\?"):
        NetworkSource("imagnet")
    assert NetworkSource("random", seed=4).random_seed == 4
    assert NetworkSource("imagenet", seed=4).random_seed is None


@pytest.mark.parametrize("features", ["youtube8m", "imagenet"])
def test_a_missing_file_is_named_with_its_address(features, tmp_path):
    with pytest.raises(InputError) as raised:
        load_networks(NetworkSource(features, str(tmp_path)))
    assert str(tmp_path / "vggish_model.ckpt") in str(raised.value)
    assert "https://storage.googleapis.com/audioset/vggish_model.ckpt" in str(raised.value)


def write_public(folder, rng):
    """YouTube-8M's PCA and AudioSet's, in form; equal but for the numbers."""
    np.save(folder / "mean.npy", rng.normal(size=(2048, 1)).astype(np.float32))
    np.save(folder / "eigenvals.npy", rng.uniform(0.1, 1, (2048, 1)).astype(np.float32))
    np.save(folder / "eigenvecs.npy", rng.normal(size=(2048, 2048)).astype(np.float32))
    np.savez(
        folder / "vggish_pca_params.npz",
        pca_eigen_vectors=rng.normal(size=(128, 128)).astype(np.float32),
        pca_means=rng.normal(size=(128, 1)).astype(np.float32),
    )


def test_the_public_projections_go_with_youtube8m_alone(tmp_path, rng):
    write_public(tmp_path, rng)
    rgb, audio = NetworkSource("youtube8m", str(tmp_path)).projections()
    assert rgb.matrix.shape == (1024, 2048)
    assert audio.matrix.shape == (128, 128)
    values = rng.normal(size=(3, 128))
    with np.load(tmp_path / "vggish_pca_params.npz") as public:
        expected = (values - public["pca_means"][:, 0]) @ public["pca_eigen_vectors"].T
    np.testing.assert_allclose(audio.project(values), expected, rtol=1e-6)
    check_pair(YOUTUBE8M_NETWORK, rgb)
    for features in ("imagenet", "random"):
        source = NetworkSource(features, str(tmp_path))
        assert source.projections() is None
        with pytest.raises(InputError, match="another network"):
            source.projections(str(tmp_path))


def test_a_missing_projection_is_named_with_its_address(tmp_path, rng):
    source = NetworkSource("youtube8m", str(tmp_path))
    with pytest.raises(InputError, match=r"data\.yt8m\.org/yt8m_pca\.tgz"):
        source.projections()
    write_public(tmp_path, rng)
    (tmp_path / "vggish_pca_params.npz").unlink()
    with pytest.raises(InputError, match=r"audioset/vggish_pca_params\.npz"):
        source.projections()
    assert Projection.youtube8m(tmp_path).rank == 1024
