"""One file says what made features, and holds the projections."""

import dataclasses
import io

import numpy as np
import pytest

from trainer.errors import InputError
from trainer.feature_networks.feature_extractor import (
    FEATURE_EXTRACTOR,
    FeatureExtractor,
    NetworkId,
    extractor_facts,
    keep_extractor,
    parse_feature_extractor,
    read_feature_extractor,
)
from trainer.feature_networks.frame_network import YOUTUBE8M_NETWORK
from trainer.feature_networks.projection import YOUTUBE8M, Projection
from trainer.manifest import Manifest

INCEPTION, VGGISH = NetworkId("inception-v3-imagenet", "a" * 32), NetworkId("vggish", "b" * 32)


@pytest.fixture
def extractor():
    rng = np.random.default_rng(0)
    rgb = Projection(rng.normal(size=5), rng.normal(size=(3, 5)), np.ones(3), "Zürich’s videos")
    audio = Projection(rng.normal(size=4), rng.normal(size=(2, 4)), None, "AudioSet's")
    return FeatureExtractor(INCEPTION, VGGISH, rgb, audio, 360, 300)


def test_it_is_read_as_it_was_written(extractor, tmp_path):
    extractor.write(tmp_path)
    found = read_feature_extractor(tmp_path)
    assert found.digest == extractor.digest
    assert (found.rgb_network, found.audio_network) == (INCEPTION, VGGISH)
    assert (found.seconds, found.frames, found.seed, found.mark) == (360, 300, None, "")
    assert found.rgb.source == "Zürich’s videos"
    np.testing.assert_array_equal(found.rgb.eigenvalues, np.ones(3))
    assert found.audio.eigenvalues is None
    values = np.random.default_rng(1).normal(size=(7, 5))
    np.testing.assert_array_equal(found.rgb.codes(values), extractor.rgb.codes(values))
    assert found.to_bytes() == extractor.to_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"rgb_network": NetworkId("inception-v3-imagenet", "c" * 32)},
        {"audio_network": NetworkId("other", "b" * 32)},
        {"seed": 0},
    ],
)
def test_what_changes_codes_changes_the_digest(extractor, change):
    assert dataclasses.replace(extractor, **change).digest != extractor.digest
    shorter = dataclasses.replace(extractor, seconds=100, frames=100)
    assert shorter.digest == extractor.digest


def test_the_public_pca_goes_with_its_network_alone(extractor):
    public = dataclasses.replace(extractor.rgb, source=YOUTUBE8M)
    with pytest.raises(InputError, match="another network"):
        dataclasses.replace(extractor, rgb=public)
    own = NetworkId(YOUTUBE8M_NETWORK, "d" * 32)
    dataclasses.replace(extractor, rgb=public, rgb_network=own)


def test_another_projection_is_another_extractor(extractor):
    rgb = dataclasses.replace(extractor.rgb, matrix=extractor.rgb.matrix * 2)
    assert dataclasses.replace(extractor, rgb=rgb).digest != extractor.digest


def test_random_weights_are_marked(extractor):
    assert dataclasses.replace(extractor, seed=7).mark == "random weights (seed 7)"


def test_other_networks_are_refused(extractor):
    extractor.check_networks(INCEPTION, VGGISH, "f")
    with pytest.raises(InputError, match=r"f: its features of frames .*aaaa, found .*ccc"):
        extractor.check_networks(NetworkId(INCEPTION.name, "c" * 32), VGGISH, "f")
    with pytest.raises(InputError, match="f: its features of sound"):
        extractor.check_networks(INCEPTION, NetworkId("other", "b" * 32), "f")


def test_a_model_keeps_what_its_data_was_made_by(extractor, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "model").mkdir()
    extractor.write(tmp_path / "data")
    place = str(tmp_path / "data" / FEATURE_EXTRACTOR)
    manifest = Manifest("s", "frame", 2, (), feature_extractor=place, features_mark="bad")
    assert extractor_facts(manifest) == {
        "feature_extractor": extractor.digest, "features_of": "", "features_mark": "bad",
    }  # fmt: skip
    keep_extractor(manifest, tmp_path / "model")
    kept = tmp_path / "model" / FEATURE_EXTRACTOR
    assert kept.read_bytes() == (tmp_path / "data" / FEATURE_EXTRACTOR).read_bytes()
    unknown = Manifest("s", "frame", 2, ())
    assert extractor_facts(unknown) == {
        "feature_extractor": "", "features_of": "", "features_mark": "",
    }  # fmt: skip
    (tmp_path / "other").mkdir()
    keep_extractor(unknown, tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


def npz(**content):
    stream = io.BytesIO()
    np.savez(stream, **content)
    return stream.getvalue()


def test_damaged_files(extractor, tmp_path):
    with pytest.raises(InputError, match=rf"{FEATURE_EXTRACTOR}: no such file"):
        read_feature_extractor(tmp_path)
    whole = extractor.to_bytes()
    about = np.frombuffer(b'{"version": 1}', np.uint8)
    for content in (
        b"", b"no archive", whole[:300], whole[:200] + b"\xff" * 9 + whole[209:],
        npz(mean=np.zeros(3)), npz(about=np.zeros(3)), npz(about=about),
        npz(about=np.array([{}, []], object)),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"x: is no {FEATURE_EXTRACTOR} of a feature"):
            parse_feature_extractor(content, "x")
    later = np.frombuffer(b'{"version": 2}', np.uint8)
    with pytest.raises(InputError, match="x: is of version 2, expected 1"):
        parse_feature_extractor(npz(about=later), "x")
