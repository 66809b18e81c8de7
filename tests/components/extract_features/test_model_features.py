"""A model is given features of the networks that it was trained on, or none."""

import dataclasses
import json

import numpy as np
import pytest

from components.extract_features.model_features import (
    extractor_of_model,
    features_of_model,
    vocabulary_of_model,
)
from components.extract_features.networks import NetworkSource
from trainer.errors import InputError
from trainer.feature_networks.feature_extractor import FeatureExtractor, NetworkId
from trainer.feature_networks.projection import Projection

PROJECTION = Projection(np.zeros(2), np.eye(2), None, "test")


def extractor(network, seed=None):
    ids = NetworkId(network, "a" * 32), NetworkId("vggish", "b" * 32)
    return FeatureExtractor(*ids, PROJECTION, PROJECTION, 360, 300, seed)


def write_about(folder, **about):
    known = {
        "level": "frame", "top_k": 3, "num_classes": 3, "max_frames": 300,
        "data_fingerprint": "f", "vocabulary_digest": "",
    }  # fmt: skip
    (folder / "export.json").write_text(json.dumps(known | about))


def features_of(folder):
    return features_of_model(folder, extractor_of_model(folder), "w")


@pytest.mark.parametrize(
    ("network", "seed", "source"),
    [
        ("inception-2015-12-05", None, NetworkSource("youtube8m", "w", 0)),
        ("inception-v3-imagenet", None, NetworkSource("imagenet", "w", 0)),
        ("inception-v3-random", 7, NetworkSource("random", "w", 7)),
    ],
)
def test_a_model_of_own_videos_has_its_extractor_beside_it(network, seed, source, tmp_path):
    made = extractor(network, seed)
    made.write(tmp_path)
    write_about(tmp_path, data_source="videos", feature_extractor=made.digest)
    assert features_of(tmp_path) == source
    assert extractor_of_model(tmp_path).digest == made.digest


@pytest.mark.parametrize("about", [{}, {"data_source": "youtube8m:2/frame"}, {"data_source": "/d"}])
def test_any_other_takes_the_features_of_youtube8m(about, tmp_path):
    write_about(tmp_path, **about)
    assert features_of(tmp_path) == NetworkSource("youtube8m", "w")
    assert extractor_of_model(tmp_path) is None


def test_no_network_makes_the_samples_features(tmp_path):
    write_about(tmp_path, data_source="sample", feature_extractor="")
    with pytest.raises(InputError, match="was trained on the built-in sample, whose features are"):
        features_of(tmp_path)


def test_an_extractor_that_went_away_is_missed(tmp_path):
    write_about(tmp_path, data_source="videos", feature_extractor="a" * 32)
    with pytest.raises(InputError, match=r"feature_extractor\.npz: no such file, but export\.json"):
        features_of(tmp_path)


def test_records_for_a_model_have_its_classes(tmp_path):
    write_about(tmp_path, num_classes=3, vocabulary_digest="")
    assert vocabulary_of_model(tmp_path).names == ("class 0", "class 1", "class 2")
    write_about(tmp_path, num_classes=2, vocabulary_digest="abcd")
    with pytest.raises(InputError, match=r"vocabulary\.csv: no such file; an earlier version"):
        vocabulary_of_model(tmp_path)
    (tmp_path / "vocabulary.csv").write_text("Index,Name,Vertical1\n1,dog,\n0,cat,\n")
    assert vocabulary_of_model(tmp_path).names == ("cat", "dog")


def test_an_unknown_network(tmp_path):
    made = dataclasses.replace(extractor("resnet"))
    made.write(tmp_path)
    write_about(tmp_path, feature_extractor=made.digest)
    with pytest.raises(InputError, match="its network resnet is none of inception-2015-12-05"):
        features_of(tmp_path)
