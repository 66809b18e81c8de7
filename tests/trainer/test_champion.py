"""A champion, trained or exported, scores as the model itself does; what is none is refused."""

import dataclasses

import numpy as np
import pytest

from tests.conftest import TINY_MODEL
from trainer.champion import score_champion
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.evaluation import score_shards
from trainer.export import export_model
from trainer.files import write_json
from trainer.models import build_model
from trainer.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def model():
    return build_model(ModelConfig(**TINY_MODEL), 12, "frame", 12)


@pytest.fixture
def trained(model, manifest, tmp_path):
    folder = tmp_path / "trained"
    folder.mkdir()
    model.save(folder / "model.keras")
    facts = {"level": "frame", "num_classes": 12, "data": {"max_frames": 12}}
    write_json(folder / "config.json", facts | {"vocabulary_digest": manifest.vocabulary_digest()})
    return folder


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    def made(vocabulary, top_k=12, frames=12):
        folder = tmp_path_factory.mktemp("exported") / "saved_model"
        export_model(model, "frame", frames, vocabulary, top_k, folder)
        return folder.parent

    return made


def test_a_trained_and_an_exported_model_score_alike(model, manifest, trained, exported):
    shards = manifest.split("validate")
    expected = score_shards(model, manifest, shards, 12, 8)
    folder = exported(manifest.read_vocabulary())
    for path in (trained, folder, folder / "saved_model"):
        found = score_champion(path, manifest, shards, 7)
        assert found.video_ids == expected.video_ids
        assert found.metrics.gap() == pytest.approx(expected.metrics.gap(), abs=1e-5)
        np.testing.assert_array_equal(found.metrics.counts, expected.metrics.counts)


def test_a_folder_without_a_model(manifest, tmp_path):
    with pytest.raises(InputError, match=r"is no champion: expected model\.keras .* or saved_m"):
        score_champion(tmp_path, manifest, manifest.split("validate"), 8)


def test_a_model_that_does_not_load(manifest, trained, tmp_path):
    (trained / "model.keras").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match=r"model\.keras: is no model that can be loaded"):
        score_champion(trained, manifest, manifest.split("validate"), 8)
    (tmp_path / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(InputError, match="does not load as a champion"):
        score_champion(tmp_path, manifest, manifest.split("validate"), 8)


def test_another_vocabulary_of_as_many_classes(manifest, trained, exported):
    shards = manifest.split("validate")
    facts = {"level": "frame", "num_classes": 12, "data": {"max_frames": 12}}
    write_json(trained / "config.json", facts | {"vocabulary_digest": "0123456789abcdef"})
    with pytest.raises(InputError, match="was trained with another vocabulary"):
        score_champion(trained, manifest, shards, 8)
    own = manifest.read_vocabulary()
    other = Vocabulary(own.names[::-1], own.verticals[::-1])
    with pytest.raises(InputError, match="it is a model of another vocabulary"):
        score_champion(exported(other), manifest, shards, 8)


def test_fewer_answers_than_the_metric_needs(manifest, exported):
    folder = exported(manifest.read_vocabulary(), top_k=5)
    with pytest.raises(InputError, match=r"answers with 5 classes .* GAP@20 needs 12"):
        score_champion(folder, manifest, manifest.split("validate"), 8)


def test_a_class_that_the_data_does_not_have(manifest, exported):
    folder = exported(manifest.read_vocabulary())
    smaller = dataclasses.replace(manifest, num_classes=11, vocabulary="")
    with pytest.raises(InputError, match="knows a class 11, the data has 11 classes"):
        score_champion(folder, smaller, smaller.split("validate"), 8)
