"""A champion, trained or exported, scores as the model itself does; what is none is refused."""

import dataclasses
import shutil

import numpy as np
import pytest

from tests.conftest import TINY_MODEL
from trainer.champion import Champion
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
    """A folder of an export of its own, to spoil at will; each kind is made once."""
    made = {}

    def copied(vocabulary, top_k=12, cached=True):
        key = vocabulary.names, top_k, cached
        if key not in made:
            made[key] = tmp_path_factory.mktemp("exported")
            export_model(model, "frame", 12, vocabulary, top_k, made[key] / "saved_model")
        target = tmp_path_factory.mktemp("copy") / "export"
        return shutil.copytree(made[key], target)

    return copied


@pytest.mark.slow
def test_a_trained_and_an_exported_model_score_alike(model, manifest, trained, exported):
    shards = manifest.split("validate")
    expected = score_shards(model, manifest, shards, 12, 8)
    folder = exported(manifest.read_vocabulary())
    for path in (trained, folder, folder / "saved_model"):
        found = Champion(path, manifest).score(shards, 7)
        assert found.video_ids == expected.video_ids
        assert found.metrics.gap() == pytest.approx(expected.metrics.gap(), abs=1e-5)
        np.testing.assert_array_equal(found.metrics.counts, expected.metrics.counts)


def test_a_folder_without_a_model(manifest, tmp_path):
    with pytest.raises(InputError, match=r"is no champion: expected model\.keras .* or saved_m"):
        Champion(tmp_path, manifest)


def test_a_model_that_does_not_load(manifest, trained, tmp_path):
    (trained / "model.keras").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match=r"model\.keras: is no model that can be loaded"):
        Champion(trained, manifest)
    (tmp_path / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(InputError, match="does not load as a champion"):
        Champion(tmp_path, manifest)


def test_another_vocabulary_of_as_many_classes(manifest, trained, exported):
    shards = manifest.split("validate")
    facts = {"level": "frame", "num_classes": 12, "data": {"max_frames": 12}}
    write_json(trained / "config.json", facts | {"vocabulary_digest": "0123456789abcdef"})
    with pytest.raises(InputError, match="was trained with another vocabulary"):
        Champion(trained, manifest)
    own = manifest.read_vocabulary()
    other = Vocabulary(own.names[::-1], own.verticals[::-1])
    with pytest.raises(InputError, match="it is a model of another vocabulary"):
        Champion(exported(other), manifest).score(shards, 8)


def test_fewer_answers_than_the_metric_needs(manifest, exported):
    folder = exported(manifest.read_vocabulary(), top_k=5)
    with pytest.raises(InputError, match=r"answers with 5 classes .* GAP@20 needs 12"):
        Champion(folder, manifest).score(manifest.split("validate"), 8)


def test_a_class_that_the_data_does_not_have(manifest, exported):
    folder = exported(manifest.read_vocabulary())
    smaller = dataclasses.replace(manifest, num_classes=11, vocabulary="")
    with pytest.raises(InputError, match="knows a class 11, the data has 11 classes"):
        Champion(folder, smaller).score(smaller.split("validate"), 8)


@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
def test_an_export_whose_variables_were_cut_off(manifest, exported, kept):
    folder = exported(manifest.read_vocabulary())
    (variables,) = (folder / "saved_model" / "variables").glob("variables.data*")
    content = variables.read_bytes()
    variables.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(InputError, match=r"does not load as a champion \([^\n]+\)$"):
        Champion(folder, manifest)


def test_a_model_file_with_a_flipped_byte(manifest, trained):
    content = bytearray((trained / "model.keras").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (trained / "model.keras").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.keras: is no model that can be loaded"):
        Champion(trained, manifest)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "is no configuration of a trained model"),
        ([], "is no configuration of a trained model"),
        ({"data": {"max_frames": "many"}}, "is no configuration of a trained model"),
        ({"data": {"max_frames": 12}}, "the model's level is None, the data's frame"),
        (
            {"level": "frame", "num_classes": 12, "data": {"max_frames": 12, "segments": True}},
            "was trained on segments, the model on whole videos",
        ),
        (
            {"level": "frame", "num_classes": 12, "data": {"max_frames": 7}},
            "can not score the data's records",
        ),
    ],
)
def test_a_configuration_that_does_not_fit(manifest, trained, facts, words):
    write_json(trained / "config.json", facts)
    with pytest.raises(InputError, match=words):
        Champion(trained, manifest)


def test_a_model_that_answers_with_other_classes(manifest, trained):
    build_model(ModelConfig(**TINY_MODEL), 7, "frame", 12).save(trained / "model.keras")
    with pytest.raises(InputError, match="answers with 7 classes, the data has 12"):
        Champion(trained, manifest)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"level": "frame", "num_classes": 11}, "the model's num_classes is 11, the data's 12"),
        ({"level": "video", "num_classes": 12}, "the model's level is video, the data's frame"),
        (
            {"level": "frame", "num_classes": 12, "vocabulary_digest": "0123"},
            "was trained with another vocabulary",
        ),
        ([], "is no description of an export"),
    ],
)
def test_what_the_export_says_of_itself(manifest, exported, about, words):
    folder = exported(manifest.read_vocabulary())
    write_json(folder / "export.json", about)
    with pytest.raises(InputError, match=words):
        Champion(folder, manifest)


def test_scores_that_are_no_probabilities(manifest, exported, monkeypatch):
    monkeypatch.setattr("trainer.export.probabilities", lambda scores: scores - 1)
    folder = exported(manifest.read_vocabulary(), cached=False)
    with pytest.raises(InputError, match=r"has scores from -.* expected probabilities"):
        Champion(folder, manifest).score(manifest.split("validate"), 8)


def test_whether_the_names_were_compared(manifest, trained, exported):
    assert Champion(trained, manifest).vocabulary_known
    assert Champion(exported(manifest.read_vocabulary()), manifest).vocabulary_known
    nameless = dataclasses.replace(manifest, vocabulary="")
    assert not Champion(trained, nameless).vocabulary_known
    assert not Champion(exported(manifest.read_vocabulary()), nameless).vocabulary_known
