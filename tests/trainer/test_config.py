import dataclasses
import re

import pytest

from trainer.config import Config, parse_overrides, run_config
from trainer.errors import InputError


def test_overrides_go_where_they_belong_and_nothing_else_moves():
    config = Config().updated({"training": {"epochs": 7, "learning_rate": 1}})
    assert config.training.epochs == 7
    assert config.training.learning_rate == 1.0
    assert isinstance(config.training.learning_rate, float)
    assert config.updated({"training": {"epochs": 5, "learning_rate": 2e-4}}) == Config()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"trainning": {}}, "unknown section 'trainning', expected one of sample"),
        ({"model": {"cluster": 3}}, "trainer/config.py has all; did you mean model.cluster_size"),
        ({"model": 3}, "model is 3, expected parameters and their values"),
        ({"training": {"epochs": 2.5}}, "training.epochs is 2.5 (float), expected a whole number"),
        ({"training": {"epochs": True}}, "training.epochs is True (bool)"),
        ({"training": {"epochs": "3"}}, "training.epochs is '3' (str)"),
        ({"training": {"batch_size": 0}}, "training.batch_size is 0, expected at least 1"),
        ({"training": {"learning_rate": -1}}, "learning_rate is -1.0, expected more than 0"),
        ({"training": {"learning_rate": float("nan")}}, "learning_rate is nan, expected"),
        ({"evaluation": {"min_gap": 1.5}}, "evaluation.min_gap is 1.5, expected at most 1"),
        ({"model": {"form": "best"}}, "expected one of auto, direct, folded, fast"),
        ({"model": {"prior_bias": 1}}, "model.prior_bias is 1 (int), expected true or false"),
        ({"sample": {"min_frames": 90}}, "sample.min_frames is 90, expected at most sample.max"),
    ],
)
def test_what_can_not_be_is_said(overrides, words):
    with pytest.raises(InputError, match=re.escape(words)):
        Config().updated(overrides)


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_overrides_are_a_json_object(text):
    with pytest.raises(InputError, match=r"^overrides: expected"):
        parse_overrides(text)
    assert parse_overrides("") == {}


def test_pipeline_parameters_have_one_place():
    config = run_config('{"model": {"groups": 4}}', epochs=3, model="moe")
    assert (config.training.epochs, config.model.name, config.model.groups) == (3, "moe", 4)
    with pytest.raises(InputError, match="is the pipeline parameter epochs; set that"):
        run_config('{"training": {"epochs": 3}}')


def test_every_parameter_is_described_and_its_default_is_in_range():
    for section in dataclasses.fields(Config):
        current = getattr(Config(), section.name)
        values = dataclasses.asdict(current)
        assert Config().updated({section.name: values}) == Config()
        for field in dataclasses.fields(current):
            assert field.metadata["description"], field.name


def test_an_interval_needs_resamples_beyond_its_ends():
    Config().updated({"evaluation": {"confidence": 0.99}})
    with pytest.raises(
        InputError, match=r"resamples is 200, expected at least 1,000 with .* 0\.99"
    ):
        Config().updated({"evaluation": {"confidence": 0.99, "resamples": 200}})
