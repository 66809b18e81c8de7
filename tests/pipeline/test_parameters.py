import inspect
import json
import re

import pytest

from pipeline.parameters import CONFIGS, pipeline_parameters
from pipeline.targets.local import local_target
from pipeline.training_pipeline import build
from trainer.config import FLAT, Config, run_config
from trainer.configuration_file import (
    KNOWN,
    configured,
    merged,
    parse_settings,
    read_configuration,
)
from trainer.errors import InputError


def test_the_pipeline_s_defaults_are_the_dataclasses():
    spec = build(local_target()).pipeline_spec.root.input_definitions.parameters
    compiled = {name: json_value(value.default_value) for name, value in spec.items()}
    assert compiled == pipeline_parameters({})
    assert set(compiled) == set(KNOWN)


def json_value(value):
    kind = value.WhichOneof("kind")
    found = getattr(value, kind)
    return int(found) if kind == "number_value" and found == int(found) else found


def test_every_pipeline_parameter_is_described():
    spec = build(local_target()).pipeline_spec.root.input_definitions.parameters
    assert all(len(value.description) > 10 for value in spec.values())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_in_the_repository_is_right(path):
    parameters = pipeline_parameters(read_configuration(path) | {"data_source": "some folder"})
    # The trainer's command reads the same file to the same end.
    config = run_config(parameters["overrides"], **{name: parameters[name] for name in FLAT})
    assert configured(Config(), path) == config
    assert path.read_text().startswith("# make pipeline-run")


def test_settings_go_over_the_file():
    base = {"epochs": 3, "overrides": {"model": {"groups": 4, "hidden_size": 8}}}
    settings = parse_settings(["epochs=5", "model.groups=2", "learning_rate=1e-3", "model=moe"])
    parameters = pipeline_parameters(merged(base, settings))
    assert parameters["epochs"] == 5
    assert parameters["learning_rate"] == 0.001
    assert parameters["model"] == "moe"
    assert json.loads(parameters["overrides"]) == {"model": {"groups": 2, "hidden_size": 8}}


def test_nothing_is_empty_text():
    parameters = pipeline_parameters(parse_settings(["training.baseline=", "destination="]))
    assert parameters["destination"] == ""
    assert json.loads(parameters["overrides"]) == {"training": {"baseline": ""}}


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ({"epoch": 3}, "unknown parameter 'epoch', expected one of data_source"),
        ({"epoch": 3}, "; did you mean epochs?"),
        ({"holdout_shards": 3}, "; did you mean data.holdout_shards?"),
        (
            {"data_source": ""},
            "data_source is empty, expected `sample`, youtube8m:RELEASE/LEVEL or a folder",
        ),
        ({"overrides": 0}, "overrides is 0, expected sections"),
        ({"overrides": None}, "overrides is None, expected sections"),
        ({"learning_rate": 10**400}, "learning_rate is a number of 401 digits"),
        (
            {"model": "nextvald"},
            "expected one of nextvlad, nextvlad_mixture, netvlad, dbof, mean_pooling, logistic, "
            "moe, mlp; did you mean nextvlad",
        ),
        ({"epochs": "three"}, "epochs is 'three' (str), expected a whole number"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1, expected more than 0"),
        ({"min_gap": 2}, "min_gap is 2.0, expected at most 1"),
        ({"data_source": 3}, "data_source is 3, expected text"),
        ({"overrides": {"model": {"cluster": 3}}}, "unknown parameter model.cluster"),
        ({"overrides": {"training": {"epochs": 3}}}, "is the pipeline parameter epochs; set that"),
        ({"overrides": [1]}, "overrides is [1], expected sections"),
        ({"overrides": {"training": 3}}, "training is 3, expected parameters"),
    ],
)
def test_what_can_not_be_is_said(configuration, words):
    with pytest.raises(InputError, match=re.escape(words)):
        pipeline_parameters(configuration)


@pytest.mark.parametrize(
    "setting",
    [
        "epochs",
        "epochs=[",
        "=3",
        "epochs=2024-13-45",
        "epochs=1:30",
        "overrides=x",
        "overrides={model: 3}",
    ],
)
def test_settings_that_are_none(setting):
    with pytest.raises(InputError):
        pipeline_parameters(parse_settings([setting]))


def test_the_dag_is_readable_in_one_screen():
    body = inspect.getsource(build).split('"""')[-1]
    assert len(body.splitlines()) < 70
