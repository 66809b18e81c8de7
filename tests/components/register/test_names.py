"""Names of the Model Registry: the form of an id and of an alias, at their ends."""

import re
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.register.names import CHAMPION, check_names
from trainer.errors import InputError

LETTERS, DIGITS = string.ascii_lowercase, string.digits


@pytest.mark.parametrize("model", ["nextvlad", "a", "a_b-c9", "_a", "m" * 63])
def test_ids_that_the_registry_takes(model):
    check_names(model, [])


@pytest.mark.parametrize(
    "model",
    ["", "m" * 64, "Model", "a b", "a.b", "a/b", "a@1", "é", "a\n", "m\u0661", "7", "1a", "-a"],
)
def test_ids_that_it_does_not(model):
    words = f"registered model {model!r}: expected up to 63 of a-z, 0-9, - and _"
    with pytest.raises(InputError, match=re.escape(words)):
        check_names(model, [])


@pytest.mark.parametrize("alias", [CHAMPION, "default", "ab", "a1", "a--b", "p" * 128])
def test_aliases_that_the_registry_takes(alias):
    check_names("m", [alias, "other"])
    check_names("m", ["other", alias])


@pytest.mark.parametrize(
    "alias",
    ["", "a", "1a", "7", "-ab", "ab-", "a_b", "a b", "a.b", "p" * 129, "ab\n", "v1\u0662"],
)
def test_aliases_that_it_does_not(alias):
    words = f"alias {alias!r} of model m: expected 2 to 128 of a-z, 0-9 and -, a letter first"
    for aliases in ([alias], ["good", alias], [alias, "good"]):
        with pytest.raises(InputError, match=re.escape(words)):
            check_names("m", aliases)


def test_an_id_is_looked_at_before_the_aliases():
    with pytest.raises(InputError, match="registered model 'M'"):
        check_names("M", ["1"])


def accepted(model, aliases):
    try:
        check_names(model, aliases)
    except InputError:
        return False
    return True


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(LETTERS + DIGITS + "-_A"),
    st.text(st.sampled_from(LETTERS + DIGITS + "-_.A \n"), max_size=4),
    st.integers(0, 70),
)
def test_an_id_letter_by_letter(first, rest, more):
    model = first + rest + "x" * more
    right = (
        len(model) <= 63
        and model[0] in LETTERS + "_"
        and all(one in LETTERS + DIGITS + "-_" for one in model)
    )
    assert accepted(model, []) == right


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.sampled_from("az09-_. \n"), max_size=5), st.integers(0, 130))
def test_an_alias_letter_by_letter(begin, more):
    alias = begin + "x" * more
    right = (
        2 <= len(alias) <= 128
        and all(one in LETTERS + DIGITS + "-" for one in alias)
        and alias[0] in LETTERS
        and alias[-1] != "-"
    )
    assert accepted("m", [alias]) == right


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(), st.lists(st.text(), max_size=3))
def test_whatever_is_given_only_an_input_error_comes(model, aliases):
    accepted(model, aliases)
    accepted("m", aliases)
