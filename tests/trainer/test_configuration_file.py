import json
import re

import pytest

from trainer.config import Config
from trainer.configuration_file import (
    KNOWN,
    check_names,
    configured,
    load_yaml,
    merged,
    overrides_of,
    parse_settings,
    read_configuration,
)
from trainer.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("+5", 5),
        ("010", 10),  # 8 in YAML 1.1
        ("1:30", "1:30"),  # 90 in YAML 1.1
        ("2024-12-13", "2024-12-13"),
        ("yes", "yes"),
        ("True", True),
        ("~", None),
        ("100-110", "100-110"),
    ],
)
def test_scalars_are_what_they_look_like(text, value):
    assert load_yaml(text) == value
    assert type(load_yaml(text)) is type(value)


def test_settings_become_a_configuration():
    settings = parse_settings(["epochs=5", "model.groups=2", "learning_rate=1e-3", "data.a="])
    assert settings == {
        "epochs": 5, "learning_rate": 0.001,
        "overrides": {"model": {"groups": 2}, "data": {"a": ""}},
    }  # fmt: skip


def test_settings_go_over_the_file():
    base = {"epochs": 3, "overrides": {"model": {"groups": 4, "hidden_size": 8}}}
    assert merged(base, parse_settings(["epochs=5", "model.groups=2"])) == {
        "epochs": 5, "overrides": {"model": {"groups": 2, "hidden_size": 8}}
    }  # fmt: skip
    assert base == {"epochs": 3, "overrides": {"model": {"groups": 4, "hidden_size": 8}}}


@pytest.mark.parametrize("setting", ["epochs", "epochs=[", "a=!!int [1]", "a=!!int b"])
def test_settings_that_are_none(setting):
    with pytest.raises(InputError, match=re.escape(f"setting {setting!r}: expected")):
        parse_settings([setting])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [", "expected YAML"),
        (b"\xff", "expected YAML"),
        (b"- 1", "expected parameters and their values, found [1]"),
        (b"", "expected parameters and their values, found None"),
    ],
)
def test_files_that_are_no_configuration(content, words, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{path}: {words}")):
        read_configuration(path)


def test_a_file_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    (tmp_path / "one.yaml").write_text("epochs: 1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "two.yaml").write_text("epochs: 2")
    with pytest.raises(InputError, match=r"absent.yaml: no such configuration .*; there are .*one"):
        read_configuration(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match=r"there are \S*other/two.yaml$"):
        read_configuration(tmp_path / "absent.yaml", tmp_path / "other")
    with pytest.raises(InputError, match=r"no such configuration \(No such file or directory\)$"):
        read_configuration(tmp_path / "nowhere" / "absent.yaml")


def test_names_are_checked():
    check_names(dict.fromkeys(KNOWN))
    with pytest.raises(InputError, match=r"unknown parameter 'epoch', .*; did you mean epochs\?"):
        check_names({"epoch": 3})
    with pytest.raises(InputError, match=r"did you mean data.holdout_shards\?"):
        check_names({"holdout_shards": 3})
    with pytest.raises(InputError, match="unknown parameter 3, expected one of"):
        check_names({3: 3})


def test_overrides_are_a_mapping():
    assert overrides_of({}) == {}
    with pytest.raises(InputError, match="overrides is None, expected sections"):
        overrides_of({"overrides": None})


def test_a_file_goes_over_a_configuration(tmp_path):
    path = tmp_path / "run.yaml"
    content = {
        "data_source": "gs://somewhere", "checkpoint_root": "", "model": "moe", "epochs": 7,
        "min_gap": 0.5, "overrides": {"training": {"schedule": "cosine"}, "export": {"top_k": 5}},
    }  # fmt: skip
    path.write_text(json.dumps(content))
    base = Config().updated({"training": {"epochs": 2, "seed": 4}, "model": {"groups": 4}})
    assert configured(base, path) == Config().updated(
        {
            "training": {"epochs": 7, "seed": 4, "schedule": "cosine"},
            "model": {"name": "moe", "groups": 4},
            "evaluation": {"min_gap": 0.5},
            "export": {"top_k": 5},
        }
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("epoch: 3", "unknown parameter 'epoch'"),
        ("epochs: 0", "training.epochs is 0, expected at least 1"),
        ("overrides:", "overrides is None, expected sections"),
        ("overrides: {training: {epochs: 3}}", "is the pipeline parameter epochs; set that"),
        ("overrides: {model: {group: 3}}", "did you mean model.groups"),
    ],
)
def test_what_can_not_be_is_said_with_the_file(content, words, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{re.escape(words)}"):
        configured(Config(), path)
