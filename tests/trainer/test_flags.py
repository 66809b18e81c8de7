"""Flags of the parameters: their names, their values, their help."""

import dataclasses
import re
import typing

import pytest

from trainer.config import FLAT, Config
from trainer.errors import InputError
from trainer.flags import SECTIONS, FlagParser, add_flags, flag_overrides
from trainer.parameter import parameter, range_text

PARAMETERS = [
    (section, field)
    for section in SECTIONS
    for field in dataclasses.fields(getattr(Config(), section))
]
NAMES = [f"{section}.{field.name}" for section, field in PARAMETERS]


@pytest.fixture
def parser():
    parser = FlagParser(prog="task")
    parser.add_argument("--output")
    add_flags(parser)
    return parser


@pytest.fixture
def config_of(parser):
    return lambda *arguments: Config().updated(flag_overrides(parser.parse(arguments)))


def test_nothing_given_is_nothing_set(parser):
    assert flag_overrides(parser.parse(["--output", "x"])) == {}


def another_value(section, field):
    """A value that is not the default, as text and as itself."""
    value = getattr(getattr(Config(), section), field.name)
    kind = typing.get_type_hints(type(getattr(Config(), section)))[field.name]
    limits = field.metadata
    if limits["choices"]:
        value = next(one for one in limits["choices"] if one not in (value, ""))
    elif kind is bool:
        return ("false", False) if value else ("true", True)
    elif kind is str:
        value = "some text: [1, 2]"
    elif limits["maximum"] is not None:
        value = kind(limits["maximum"])
    else:
        value += 3
    return str(value), value


@pytest.mark.parametrize(
    ("section", "field"), PARAMETERS, ids=lambda one: getattr(one, "name", one)
)
def test_every_parameter_has_its_flags(section, field, config_of):
    text, value = another_value(section, field)
    expected = Config().updated({section: {field.name: value}})
    assert expected != Config()
    assert config_of(f"--{section}.{field.name}", text) == expected
    names = [name for name, place in FLAT.items() if place == (section, field.name)]
    if [one.name for _, one in PARAMETERS].count(field.name) == 1:
        names.append(field.name)
    for name in names:
        assert config_of(f"--{name}={text}") == expected


def test_names_of_two_sections_are_the_pipeline_s(config_of):
    assert config_of("--batch_size=8").training.batch_size == 8
    assert config_of("--batch_size=8").evaluation == Config().evaluation
    assert config_of("--evaluation.batch_size=8").training == Config().training


def test_the_last_of_two_flags_holds(config_of):
    assert config_of("--epochs=3", "--training.epochs=4").training.epochs == 4
    assert config_of("--training.epochs=4", "--epochs=3").training.epochs == 3


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--batch_size=128.0", 128),  # as Vertex AI's tuning passes a discrete value
        ("--batch_size=010", 10),
        ("--learning_rate=1", 1),
        ("--learning_rate=1e-3", 0.001),
        ("--prior_bias=False", False),
        ("--baseline=", ""),
        ("--warm_start=2024", "2024"),
        ("--profile_steps=100-110", "100-110"),
        ('--optimizer_arguments={"beta_2": 0.98}', '{"beta_2": 0.98}'),
    ],
)
def test_values(flag, value, parser):
    ((_, found),) = next(iter(flag_overrides(parser.parse([flag])).values())).items()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "0"], "training.epochs is 0, expected at least 1"),
        (["--epochs=1.5"], "training.epochs is 1.5 (float), expected a whole number"),
        (["--epochs=three"], "training.epochs is 'three' (str), expected a whole number"),
        (["--epochs="], "training.epochs is '' (str), expected a whole number"),
        (["--epochs=inf"], "training.epochs is inf (float), expected a whole number"),
        (["--epochs", "-1"], "training.epochs is -1, expected at least 1"),
        (["--epochs=1e400"], "training.epochs is inf (float), expected a whole number"),
        (["--learning_rate=nan"], "training.learning_rate is nan, expected a finite number"),
        (["--weight_decay=inf"], "training.weight_decay is inf, expected a finite number"),
        ([f"--batch_size={'9' * 400}"], "99, expected at most 65536"),
        ([f"--learning_rate={'9' * 400}"], "training.learning_rate is a number of 400 digits"),
        (["--prior_bias=1"], "model.prior_bias is '1' (str), expected true or false"),
        (["--model=nextvald"], "expected one of nextvlad, nextvlad_mixture"),
        (["--model=nextvald"], "; did you mean nextvlad"),
        (["--epochs"], "argument --epochs: expected one argument"),
        (["--epoch", "3"], "unknown flag --epoch, --help has all; did you mean --epochs?"),
        (["--batch-size=3"], "unknown flag --batch-size, --help has all; did you mean --batch_"),
        (["--trainig.epochs=3"], "--help has all; did you mean --training.epochs"),
        (["-epochs=3"], "unknown flag -epochs, --help has all; did you mean --epochs?"),
        (["--outptu", "x"], "unknown flag --outptu, --help has all; did you mean --output?"),
        (["--sample.seed=3"], "unknown flag --sample.seed"),
        (["--export.top_k=3"], "unknown flag --export.top_k"),
        (["--qqqq"], "unknown flag --qqqq, --help has all"),
        (["epochs=3"], "unrecognized arguments: epochs=3"),
        (["-5"], "unrecognized arguments: -5"),
    ],
)
def test_what_can_not_be_is_one_line(arguments, words, config_of):
    with pytest.raises(InputError, match=re.escape(words)) as error:
        config_of(*arguments)
    assert "\n" not in str(error.value)


def test_a_flag_far_from_all_has_no_proposal(parser):
    with pytest.raises(InputError, match=r"--help has all$"):
        parser.parse(["--qqqq"])


@pytest.mark.parametrize("columns", [80, 120])
def test_the_help_has_every_parameter_and_fits(columns, parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = parser.format_help()
    # The usage of the command itself is written by hand.
    described = text[text.index("options:") :]
    assert max(map(len, described.splitlines())) <= columns
    words = " ".join(described.split())
    for section, field in PARAMETERS:
        assert re.search(rf"--({section}\.)?{field.name} ", words), field.name
        assert " ".join(field.metadata["description"].split()) in words
    for one in (
        "--batch_size N videos a step (author: 160) [1 to 65536; default 160]",
        "--learning_rate X of the optimiser (author: 2e-4) [more than 0, at most 10; default 0.0",
        "--prior_bias true|false start the classifier",
        "--padding NAME frames beyond the last one: 0 after normalisation, or as the author 0 "
        "before it [one of zero, author; default zero]",
        "logistic, moe, mlp, or empty; default empty]",
        "--model NAME, --name NAME, --model.name NAME",
        "--evaluation.batch_size N videos a step",
        "The optimiser and the loop. Each is also --training.NAME.",
    ):
        assert one in words
    assert "--training.epochs" not in words  # it follows from the line above
    for section in ("sample", "export"):
        assert f"--{section}" not in words


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({}, ""),
        ({"minimum": 1}, "at least 1"),
        ({"maximum": 0}, "at most 0"),
        ({"minimum": 0, "maximum": 0.95}, "0 to 0.95"),
        ({"above": 0}, "more than 0"),
        ({"above": 0, "maximum": 10}, "more than 0, at most 10"),
        ({"choices": ("a", "b")}, "one of a, b"),
        ({"choices": ("", "b")}, "one of b, or empty"),
    ],
)
def test_ranges_are_said(limits, text):
    assert range_text(parameter(0, "", **limits)) == text
