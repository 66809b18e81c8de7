"""`name=value` against a dataclass: what is accepted comes back, what is refused is named."""

import dataclasses
import re
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.clusters.running import PodSettings
from pipeline.name_values import listed, named_values, pairs
from trainer.errors import InputError
from trainer.parameter import parameter


@dataclasses.dataclass(frozen=True)
class Place:
    machine: str = parameter("small", "type")
    mode: str = parameter("fast", "how", choices=("fast", "slow"))
    count: int = parameter(1, "how many", minimum=1, maximum=16)
    hours: float = parameter(2.0, "how long", above=0, maximum=168)
    spot: bool = parameter(False, "whether")
    plain: int = 0  # no `parameter`: any number
    pool: Mapping[str, str] = dataclasses.field(default_factory=dict)


def values(*given_settings):
    return named_values("PLACE", Place, given_settings)


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("machine=n1-standard-8", "machine", "n1-standard-8"),
        ("machine=", "machine", ""),
        ("machine=a=b=", "machine", "a=b="),
        # Text is not YAML.
        ("machine=1e-3", "machine", "1e-3"),
        ("machine=true", "machine", "true"),
        ("machine=[", "machine", "["),
        ("machine= x ", "machine", " x "),
        ("mode=slow", "mode", "slow"),
        ("count=1", "count", 1),
        ("count=16", "count", 16),
        ("count=+3", "count", 3),
        # To the base of ten, and no minutes.
        ("count=010", "count", 10),
        ("plain=-12345678901234567890", "plain", -12345678901234567890),
        ("hours=3", "hours", 3.0),
        ("hours=1e-3", "hours", 0.001),
        ("hours=168", "hours", 168.0),
        ("hours=.5", "hours", 0.5),
        ("spot=true", "spot", True),
        ("spot=False", "spot", False),
        # Of another type than the four: the caller's to read.
        ("pool=a:1,b:2", "pool", "a:1,b:2"),
    ],
)
def test_a_value_and_its_type(setting, name, value):
    found = values(setting)
    assert found == {name: value}
    assert type(found[name]) is type(value)


def test_only_what_is_given_is_there():
    assert values() == {}
    assert values("count=2", "machine=x") == {"count": 2, "machine": "x"}


def test_the_last_of_two_counts():
    assert values("count=2", "spot=true", "count=3") == {"count": 3, "spot": True}


def test_the_first_of_two_has_to_be_right_all_the_same():
    with pytest.raises(InputError, match="PLACE setting count is 0"):
        values("count=0", "count=3")


NAMES = "expected name=value of machine, mode, count, hours, spot, plain, pool"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("", f"PLACE setting '': {NAMES}"),
        ("count", f"PLACE setting 'count': {NAMES}; did you mean count"),
        ("=3", f"PLACE setting '=3': {NAMES}"),
        ("counts=3", f"PLACE setting 'counts=3': {NAMES}; did you mean count"),
        ("Count=3", f"PLACE setting 'Count=3': {NAMES}; did you mean count"),
        ("count =3", f"PLACE setting 'count =3': {NAMES}; did you mean count"),
        ("zzz=3", f"PLACE setting 'zzz=3': {NAMES}"),
        ("__class__=3", f"PLACE setting '__class__=3': {NAMES}"),
        ("count=0", "PLACE setting count is 0, expected at least 1"),
        ("count=17", "PLACE setting count is 17, expected at most 16"),
        ("count=3.0", "PLACE setting count is 3.0 (float), expected a whole number"),
        ("count=", "PLACE setting count is None (NoneType), expected a whole number"),
        ("count=many", "PLACE setting count is 'many' (str), expected a whole number"),
        ("count=true", "PLACE setting count is True (bool), expected a whole number"),
        ("count=0x10", "PLACE setting count is '0x10' (str), expected a whole number"),
        ("count=1:30", "PLACE setting count is '1:30' (str), expected a whole number"),
        ("count=[1]", "PLACE setting count is [1] (list), expected a whole number"),
        ("hours=0", "PLACE setting hours is 0.0, expected more than 0"),
        ("hours=168.01", "PLACE setting hours is 168.01, expected at most 168"),
        ("hours=.inf", "PLACE setting hours is inf, expected a finite number"),
        ("hours=.nan", "PLACE setting hours is nan, expected a finite number"),
        ("hours=1e999", "PLACE setting hours is inf, expected a finite number"),
        ("hours=6h", "PLACE setting hours is '6h' (str), expected a number"),
        ("hours=true", "PLACE setting hours is True (bool), expected a number"),
        ("hours=1" + "0" * 400, "PLACE setting hours is a number of 401 digits"),
        ("spot=yes", "PLACE setting spot is 'yes' (str), expected true or false"),
        ("spot=1", "PLACE setting spot is 1 (int), expected true or false"),
        ("spot=", "PLACE setting spot is None (NoneType), expected true or false"),
        ("mode=slo", "PLACE setting mode is 'slo', expected one of fast, slow; did you mean slow"),
        ("mode=", "PLACE setting mode is '', expected one of fast, slow"),
    ],
)
def test_what_can_not_be_is_said(setting, words):
    with pytest.raises(InputError, match=re.escape(words)):
        values("machine=good", setting)


def test_a_name_that_is_none_near_is_not_guessed():
    with pytest.raises(InputError) as caught:
        values("zzz=3")
    assert "did you mean" not in str(caught.value)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(), st.integers(), st.booleans())
def test_what_is_accepted_comes_back(text, number, flag):
    found = values(f"machine={text}", f"plain={number}", f"spot={str(flag).lower()}")
    assert found == {"machine": text, "plain": number, "spot": flag}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(0, 168, exclude_min=True))
def test_a_float_comes_back_to_the_last_digit(number):
    assert values(f"hours={number!r}") == {"hours": number}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.integers(-20, 40), st.integers()))
def test_a_whole_number_is_in_range_or_refused(number):
    if 1 <= number <= 16:
        assert values(f"count={number}") == {"count": number}
    else:
        with pytest.raises(InputError, match=f"PLACE setting count is {number}, expected at"):
            values(f"count={number}")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.floats(), st.integers(-(10**400), 10**400)))
def test_a_number_for_a_float_is_in_range_or_refused(number):
    if 0 < number <= 168:
        assert values(f"hours={number!r}") == {"hours": float(number)}
    else:
        with pytest.raises(InputError, match="PLACE setting hours is "):
            values(f"hours={number!r}")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(), st.text())
def test_a_name_that_is_none_is_an_input_error(name, text):
    if name.partition("=")[0] in {field.name for field in dataclasses.fields(Place)}:
        return
    with pytest.raises(InputError, match="expected name=value of machine, mode"):
        values(f"{name}={text}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        (",", {}),
        ("a:1", {"a": "1"}),
        ("a:1,b:2", {"a": "1", "b": "2"}),
        (",a:1,,b:2,", {"a": "1", "b": "2"}),
        ("a:", {"a": ""}),
        # gke-gcsfuse/volumes:true, cloud.google.com/x:gs://y
        ("a/b:gs://c", {"a/b": "gs://c"}),
        ("a: 1", {"a": " 1"}),
    ],
)
def test_pairs(text, found):
    assert pairs("label", text) == found
    assert list(pairs("label", text)) == list(found)  # their order is kept


@pytest.mark.parametrize(
    ("text", "part"),
    [("a", "a"), (":1", ":1"), (":", ":"), ("a:1,b", "b"), ("a=1", "a=1"), (" ", " ")],
)
def test_pairs_that_are_none(text, part):
    with pytest.raises(InputError, match=re.escape(f"label {part!r}: expected key:value")):
        pairs("label", text)


KEY = st.text(st.characters(exclude_characters=",:"), min_size=1)
VALUE = st.text(st.characters(exclude_characters=","))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEY, VALUE))
def test_pairs_come_back(mapping):
    text = ",".join(f"{key}:{value}" for key, value in mapping.items())
    assert pairs("label", text) == mapping


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.sampled_from("ab:,= ")))
def test_whatever_is_given_are_pairs_or_an_input_error(text):
    parts = [part for part in text.split(",") if part != ""]
    right = all(part.find(":") >= 1 for part in parts)
    try:
        found = pairs("label", text)
    except InputError:
        assert not right
    else:
        assert right
        assert set(found) == {part[: part.index(":")] for part in parts}
        assert {f"{key}:{value}" for key, value in found.items()} <= set(parts)


@pytest.mark.parametrize(
    ("text", "found"), [("", []), ("a", ["a"]), ("a,b", ["a", "b"]), (",a,,b c,", ["a", "b c"])]
)
def test_listed(text, found):
    assert listed(text) == found


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.text(st.characters(exclude_characters=","), min_size=1)))
def test_a_list_comes_back(parts):
    assert listed(",".join(parts)) == parts


@pytest.mark.parametrize("text", ["[", "!!x 1", "\x00", "9" * 5000, "[" * 3000])
def test_what_is_no_yaml_is_one_line(text):
    with pytest.raises(InputError, match=r"KFP setting gpus is .*, expected int") as failure:
        named_values("KFP", PodSettings, [f"gpus={text}"])
    assert len(str(failure.value)) < 200
