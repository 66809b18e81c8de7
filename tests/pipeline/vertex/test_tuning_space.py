"""TUNE="name=values" as Vertex AI's specs, and the command line of the trials."""

import dataclasses
import json
import re

import pytest
from google.cloud import aiplatform_v1 as v1
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.vertex.tuning import METRIC, parameter_specs, trainer_arguments
from tests.vertex_server import PARENT, parsed, task
from trainer.config import MODEL_NAMES, Config, run_config
from trainer.configuration_file import parse_settings
from trainer.errors import InputError
from trainer.flags import FlagParser, add_flags, flag_overrides

SCALE = v1.StudySpec.ParameterSpec.ScaleType
LINEAR, LOG = SCALE.UNIT_LINEAR_SCALE, SCALE.UNIT_LOG_SCALE
KINDS = (
    "double_value_spec", "integer_value_spec", "discrete_value_spec", "categorical_value_spec"
)  # fmt: skip


def one(setting):
    """Of a space with one setting: name, kind, its values, scale."""
    (spec,) = parameter_specs([setting])
    (kind,) = (name for name in KINDS if name in spec)
    values = getattr(spec, kind)
    kind = kind.removesuffix("_value_spec")
    if kind in ("double", "integer"):
        return spec.parameter_id, kind, (values.min_value, values.max_value), spec.scale_type
    return spec.parameter_id, kind, list(values.values), spec.scale_type


@pytest.mark.parametrize(
    ("setting", "kind", "values", "scale"),
    [
        ("learning_rate=1e-4..1e-2", "double", (1e-4, 1e-2), LINEAR),
        ("learning_rate=1e-4..1e-2:log", "double", (1e-4, 1e-2), LOG),
        ("learning_rate=1e-4..1e-2:linear", "double", (1e-4, 1e-2), LINEAR),
        ("learning_rate=1e-4..1e-2:reverse_log", "double", (1e-4, 1e-2),
         SCALE.UNIT_REVERSE_LOG_SCALE),
        ("learning_rate=0.001..0.25", "double", (0.001, 0.25), LINEAR),
        ("learning_rate=2.5e-4..1.5E-3", "double", (2.5e-4, 1.5e-3), LINEAR),
        # Of a parameter that is no whole number, also where its ends are.
        ("learning_rate=1..2", "double", (1.0, 2.0), LINEAR),
        ("learning_rate=1..10", "double", (1.0, 10.0), LINEAR),
        ("dropout=0..0.5", "double", (0.0, 0.5), LINEAR),
        ("min_gap=0..1", "double", (0.0, 1.0), LINEAR),
        ("cluster_size=64..256", "integer", (64, 256), LINEAR),
        ("cluster_size=64..256:log", "integer", (64, 256), LOG),
        ("model.cluster_size=2..3", "integer", (2, 3), LINEAR),
        ("holdout_shards=0..3", "integer", (0, 3), LINEAR),
        ("cluster_size=64,128,256", "discrete", [64, 128, 256], LINEAR),
        # In the order that Vertex AI wants, each once.
        ("cluster_size=256,64,128,64", "discrete", [64, 128, 256], LINEAR),
        ("learning_rate=1e-3,2e-4", "discrete", [2e-4, 1e-3], LINEAR),
        ("epochs=5", "discrete", [5], LINEAR),
        ("training.epochs=2,3", "discrete", [2, 3], LINEAR),
    ],
)  # fmt: skip
def test_numbers(setting, kind, values, scale):
    assert one(setting) == (setting.partition("=")[0], kind, values, scale)


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("model=nextvlad,netvlad", ["nextvlad", "netvlad"]),
        ("model=moe", ["moe"]),
        ("precision=float32,bfloat16", ["float32", "bfloat16"]),
        ("segments=true,false", ["true", "false"]),
        ("jit=on,off", ["on", "off"]),
        # Text, whatever it looks like.
        ("profile_steps=10-20,30-40", ["10-20", "30-40"]),
        ("warm_start=gs://data/a", ["gs://data/a"]),
    ],
)
def test_words(setting, values):
    name, kind, found, _ = one(setting)
    assert (name, kind, found) == (setting.partition("=")[0], "categorical", values)


def test_a_space_has_its_order():
    found = parameter_specs(["model=moe,mlp", "learning_rate=1e-4..1e-2:log", "epochs=1..5"])
    assert [one.parameter_id for one in found] == ["model", "learning_rate", "epochs"]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ([], 'TUNE is missing, expected such as TUNE="learning_rate=1e-4..1e-2:log"'),
        (["learning_rate"], "TUNE 'learning_rate': expected name=least..most, with :log for a"),
        (["learning_rate="], "TUNE 'learning_rate=': expected name=least..most"),
        ([""], "TUNE '': expected name=least..most"),
        (["=1,2"], "TUNE : "),
        (["learning_rates=1,2"], "TUNE learning_rates: unknown flag --learning_rates"),
        (["learning_rates=1,2"], "; did you mean --learning_rate"),
        (["training.learn=1,2"], "TUNE training.learn: unknown flag --training.learn"),
        # Parameters of the pipeline that the training does not have.
        (["data_source=a,b"], "TUNE data_source: unknown flag --data_source"),
        (["sample.seed=1,2"], "TUNE sample.seed: unknown flag --sample.seed"),
        (["help=1"], "TUNE help: "),
        (["learning_rate=1e-2..1e-4"],
         "TUNE learning_rate: 1e-2..1e-4: expected two numbers, the smaller one first"),
        (["epochs=3..3"], "TUNE epochs: 3..3: expected two numbers, the smaller one first"),
        (["model=mlp..moe"], "TUNE model: mlp..moe: expected two numbers"),
        (["segments=false..true"], "TUNE segments: false..true: expected two numbers"),
        (["learning_rate=1e-4..1e-2:lg"],
         "TUNE learning_rate: scale 'lg': expected one of linear, log, reverse_log"),
        (["learning_rate=1e-4..1e-2:LOG"], "TUNE learning_rate: scale 'LOG': expected one of"),
        (["dropout=0..0.5:log"], "TUNE dropout: 0..0.5:log: a logarithmic scale starts above 0"),
        (["dropout=0..0.5:reverse_log"], "a logarithmic scale starts above 0"),
        (["epochs=0..5:log"], "TUNE epochs: training.epochs is 0, expected at least 1"),
        (["learning_rate=0..1"],
         "TUNE learning_rate: training.learning_rate is 0.0, expected more than 0"),
        (["learning_rate=1..11"],
         "TUNE learning_rate: training.learning_rate is 11.0, expected at most 10"),
        (["learning_rate=1e-4..many"], "training.learning_rate is 'many' (str), expected a number"),
        (["learning_rate=few..1"], "training.learning_rate is 'few' (str), expected a number"),
        (["learning_rate=1e-4..1e-3..1e-2"], "TUNE learning_rate: training.learning_rate is "),
        (["learning_rate=1e-4..1e-2:"], "TUNE learning_rate: training.learning_rate is "),
        (["learning_rate=1e-4..1e-2:log:log"], "TUNE learning_rate: training.learning_rate is "),
        (["learning_rate=..1"], "TUNE learning_rate: training.learning_rate is '..1' (str)"),
        (["learning_rate=1.."], "TUNE learning_rate: training.learning_rate is '1..' (str)"),
        (["learning_rate=nan,1"], "training.learning_rate is nan, expected a finite number"),
        (["dropout=0..inf"], "model.dropout is inf, expected a finite number"),
        (["learning_rate=1e-4,-1"], "learning_rate is -1.0, expected more than 0"),
        (["cluster_size=64..100.5"], "model.cluster_size is 100.5 (float), expected a whole num"),
        (["cluster_size=64,1.5"], "model.cluster_size is 1.5 (float), expected a whole number"),
        (["cluster_size=1,64"], "model.cluster_size is 1, expected at least 2"),
        (["model=moe,nextvald"], "TUNE model: model.name is 'nextvald', expected one of nextvlad"),
        (["segments=1,0"], "TUNE segments: data.segments is '1' (str), expected true or false"),
        (["precision=float32,double"], "training.precision is 'double', expected one of float32"),
        (["epochs=1,2", "model=moe", "epochs=3..4"], "TUNE epochs: stands there twice"),
        (["epochs=1,2", "epochs=1,2"], "TUNE epochs: stands there twice"),
        # One that is right does not hide one that is not.
        (["epochs=1,2", "seed=a"], "TUNE seed: training.seed is 'a' (str), expected a whole"),
    ],
)  # fmt: skip
def test_a_space_that_can_not_be(space, words):
    with pytest.raises(InputError, match=re.escape(words)):
        parameter_specs(space)


SCALES = st.sampled_from(["", ":linear", ":log"])
RATE = st.floats(1e-9, 10)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RATE, RATE, SCALES)
def test_a_range_of_floats_comes_back(least, most, scale):
    setting = f"learning_rate={least!r}..{most!r}{scale}"
    if least >= most:
        with pytest.raises(InputError, match="the smaller one first"):
            one(setting)
    else:
        found = one(setting)
        assert found == (
            "learning_rate",
            "double",
            (least, most),
            LOG if "log" in scale else LINEAR,
        )


SIZE = st.integers(2, 2**40)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SIZE, SIZE, SCALES)
def test_a_range_of_whole_numbers_comes_back(least, most, scale):
    setting = f"cluster_size={least}..{most}{scale}"
    if least >= most:
        with pytest.raises(InputError, match="the smaller one first"):
            one(setting)
    else:
        found = one(setting)
        assert found == (
            "cluster_size",
            "integer",
            (least, most),
            LOG if "log" in scale else LINEAR,
        )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RATE, min_size=1, max_size=4), st.lists(SIZE, min_size=1, max_size=3))
def test_lists_of_numbers_come_back(rates, sizes):
    rate, size = (",".join(map(repr, values)) for values in (rates, sizes))
    assert one(f"learning_rate={rate}")[1:3] == ("discrete", sorted(set(rates)))
    assert one(f"cluster_size={size}")[1:3] == ("discrete", sorted(set(sizes)))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(MODEL_NAMES), min_size=1, max_size=4, unique=True))
def test_a_list_of_words_comes_back(names):
    assert one(f"model={','.join(names)}")[1:3] == ("categorical", names)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["learning_rate=", "segments=", "model=", "learning_rate=1..", "", "dropout="]),
    st.one_of(st.text(max_size=8), st.text(st.sampled_from("019.-e:,+_ log"), max_size=8)),
)
def test_whatever_the_space_is_only_an_input_error_comes(begin, text):
    try:
        found = parameter_specs([begin + text])
    except InputError:
        return
    assert [one.parameter_id for one in found] == [begin.partition("=")[0]]


def trial(name, value):
    """The configuration of a trial, whose flag has the value as Vertex AI writes it."""
    parser = FlagParser()
    add_flags(parser)
    return Config().updated(flag_overrides(parser.parse([f"--{name}={value}"])))


@pytest.mark.parametrize("setting", ["cluster_size=64,128", "model.cluster_size=128,64"])
def test_a_trial_gets_whole_numbers(setting):
    name, _, values, _ = one(setting)
    found = [trial(name, value).model.cluster_size for value in values]  # 64.0 and 128.0
    assert found == [64, 128]
    assert all(type(value) is int for value in found)


def test_a_trial_gets_the_words():
    assert [trial("segments", value).data.segments for value in one("segments=true,false")[2]] == [
        True, False,
    ]  # fmt: skip
    assert trial("model", one("model=netvlad")[2][0]).model.name == "netvlad"


OVERRIDES = {
    "data": {"holdout_shards": 2},
    "model": {"cluster_size": 16},
    "training": {"baseline": "logistic", "schedule": "cosine"},
}
PARAMETERS = {
    "data_source": "gs://data/yt8m", "destination": "gs://data/d", "checkpoint_root": "gs://data/c",
    "champion": "", "model": "netvlad", "epochs": 3, "batch_size": 16, "learning_rate": 1,
    "seed": 4294967295, "min_gap": 0.5, "overrides": json.dumps(OVERRIDES),
}  # fmt: skip
DOWNLOAD = task(
    "download", "SUCCEEDED", 0, 60, outputs={"examples": ("gs://data/run/examples", {})}
)
STATISTICS = task(
    "statistics", "SUCCEEDED", 60, 90,
    outputs={"example_statistics": ("gs://data/run/statistics", {})},
)  # fmt: skip


def job(tasks=(DOWNLOAD, STATISTICS), **changes):
    """A run as the service describes it: all of its numbers are floats."""
    content = {
        "name": f"{PARENT}/pipelineJobs/run-7",
        "runtimeConfig": {"parameterValues": PARAMETERS | changes},
        "jobDetail": {"taskDetails": list(tasks)},
    }
    return parsed(content, v1.PipelineJob)


def arguments(run, changes=None):
    """Those of the places, and the configuration."""
    found = trainer_arguments(run, changes or {})
    assert [found[0], found[2], found[4]] == ["--examples", "--statistics", "--overrides"]
    assert len(found) == 6
    return found[1], found[3], json.loads(found[5])


def test_the_trainer_s_command_line():
    examples, statistics, overrides = arguments(job())
    assert (examples, statistics) == ("gs://data/run/examples", "gs://data/run/statistics")
    assert overrides == {
        "data": {"holdout_shards": 2},
        "model": {"name": "netvlad", "cluster_size": 16},
        # No baseline: it would be trained in each trial.
        "training": {
            "baseline": "", "schedule": "cosine", "epochs": 3, "batch_size": 16,
            "learning_rate": 1.0, "seed": 4294967295,
        },
        "evaluation": {"min_gap": 0.5},
    }  # fmt: skip


def test_it_is_the_run_s_configuration_but_for_the_baseline():
    flat = {
        name: PARAMETERS[name]
        for name in ("model", "epochs", "batch_size", "learning_rate", "seed", "min_gap")
    }
    config = run_config(PARAMETERS["overrides"], **flat)
    found = Config().updated(arguments(job())[2])
    assert found.training.baseline == ""
    training = dataclasses.replace(found.training, baseline="logistic")
    assert dataclasses.replace(found, training=training) == config


def test_what_is_set_in_place_of_the_run_s():
    changes = {"epochs": 7, "learning_rate": 0.5, "model": "moe"}
    overrides = arguments(job(), changes)[2]
    assert overrides["training"]["epochs"] == 7
    assert overrides["training"]["learning_rate"] == 0.5
    assert overrides["training"]["batch_size"] == 16
    assert overrides["model"] == {"name": "moe", "cluster_size": 16}


def test_a_run_that_has_the_least():
    run = job()
    for name in PARAMETERS:
        if name != "overrides":
            del run.runtime_config.parameter_values[name]
    training = {"baseline": "", "schedule": "cosine", "epochs": 5, "batch_size": 160,
                "learning_rate": 2e-4, "seed": 0}  # fmt: skip
    assert arguments(run)[2] == OVERRIDES | {
        "training": training,
        "model": OVERRIDES["model"] | {"name": "nextvlad"},
        "evaluation": {"min_gap": 0.0},
    }


def test_settings_of_a_search_are_merged_and_checked():
    more = arguments(job(), parse_settings(["data.holdout_shards=2", "epochs=7"]))[2]
    assert more["data"] == OVERRIDES["data"] | {"holdout_shards": 2}
    assert more["training"]["epochs"] == 7
    wrongs = {
        "epochs=three": "epochs is 'three'",
        "epochs=2.7": "epochs is 2.7",
        "epochs=true": "epochs is True",
        "epoch=7": "epoch",
    }
    for wrong, words in wrongs.items():
        with pytest.raises(InputError, match=words):
            arguments(job(), parse_settings([wrong]))


def test_the_examples_of_the_last_try_count():
    first = task("download", "FAILED", 0, 5, outputs={"examples": ("gs://data/old", {})})
    first["taskId"] = "1"
    again = task("download", "SUCCEEDED", 10, 15, outputs={"examples": ("gs://data/new", {})})
    again["taskId"] = "2"
    for tasks in ((first, again, STATISTICS), (STATISTICS, again, first)):
        assert arguments(job(tasks))[0] == "gs://data/new"


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([], "run run-7: has no examples, expected a run whose statistics step is done (it has no "
             "step)"),
        ([DOWNLOAD], "run run-7: has no example_statistics, expected a run whose statistics step "
                     "is done (it has download)"),
        ([STATISTICS], "run run-7: has no examples, expected a run whose statistics step is done "
                       "(it has statistics)"),
        ([DOWNLOAD, task("statistics", "RUNNING", 60)],
         "has no example_statistics, expected a run whose statistics step is done (it has download"
         ", statistics)"),
    ],
)  # fmt: skip
def test_a_run_that_is_not_far_enough(tasks, words):
    with pytest.raises(InputError, match=re.escape(words)):
        trainer_arguments(job(tasks), {})


@pytest.mark.parametrize("overrides", ["{}", "", '{"data": {"holdout_shards": 0}}'])
def test_something_has_to_be_held_out(overrides):
    words = f"data.holdout_shards is 0: {METRIC} is of train shards that are held out, expected at"
    with pytest.raises(InputError, match=words):
        trainer_arguments(job(overrides=overrides), {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": -1}, "learning_rate is -1.0, expected more than 0"),
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"model": "nextvald"}, "model is 'nextvald', expected one of nextvlad"),
        ({"model": 3}, "model is 3 (int), expected text"),
    ],
)
def test_settings_that_can_not_be(changes, words):
    with pytest.raises(InputError, match=re.escape(words)):
        trainer_arguments(job(), changes)
