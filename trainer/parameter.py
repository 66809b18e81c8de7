"""One parameter of the configuration: its field, its range, and the check of a value."""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from trainer.errors import InputError


def parameter(
    default: Any,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A field with its description and its range: `minimum` ≤, `above` <, ≤ `maximum`."""
    limits = {"minimum": minimum, "maximum": maximum, "above": above, "choices": choices}
    return dataclasses.field(default=default, metadata={"description": description, **limits})


def check_value(name: str, field: dataclasses.Field[Any], kind: type[Any], value: Any) -> Any:
    """`value` as the field's type (an int is a float too), if it is in range.

    Raises:
        InputError: it is not; the message names the parameter, the value and what is expected.
    """
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise InputError(f"{name} is a number of {len(str(value))} digits") from None
    if type(value) is not kind:
        found = f"{value!r} ({type(value).__name__})"
        raise InputError(f"{name} is {found}, expected {_article(kind.__name__)}")
    if kind is float and not math.isfinite(value):
        raise InputError(f"{name} is {value!r}, expected a finite number")
    limits = field.metadata
    choices = limits.get("choices")
    if choices and value not in choices:
        raise InputError(
            f"{name} is {value!r}, expected one of {', '.join(filter(None, choices))}"
            f"{nearest(value, choices)}"
        )
    for limit, fails, words in (
        ("minimum", lambda bound: value < bound, "at least"),
        ("maximum", lambda bound: value > bound, "at most"),
        ("above", lambda bound: value <= bound, "more than"),
    ):
        bound = limits.get(limit)
        if bound is not None and fails(bound):
            raise InputError(f"{name} is {value!r}, expected {words} {bound}")
    return value


def updated_section(section: str, current: Any, values: Mapping[str, Any]) -> Any:
    fields = {field.name: field for field in dataclasses.fields(current)}
    kinds = typing.get_type_hints(type(current))
    checked = {}
    for name, value in values.items():
        if name not in fields:
            raise InputError(
                f"unknown parameter {section}.{name}, trainer/config.py has all"
                f"{nearest(f'{section}.{name}', [f'{section}.{known}' for known in fields])}"
            )
        checked[name] = check_value(f"{section}.{name}", fields[name], kinds[name], value)
    return dataclasses.replace(current, **checked)


def range_text(field: dataclasses.Field[Any]) -> str:
    """What a field takes, as `check_value` has it: `at least 1`, `one of a, b`; or nothing."""
    limits = field.metadata
    if choices := limits.get("choices"):
        named = f"one of {', '.join(filter(None, choices))}"
        return f"{named}, or empty" if "" in choices else named
    minimum, maximum, above = (limits.get(name) for name in ("minimum", "maximum", "above"))
    if minimum is not None and maximum is not None:
        return f"{minimum} to {maximum}"
    bounds = (("at least", minimum), ("more than", above), ("at most", maximum))
    return ", ".join(f"{words} {bound}" for words, bound in bounds if bound is not None)


def nearest(name: object, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean …?`, each with the prefix, or nothing if no known name is near."""
    names = list(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=3)
    # A name may also be part of a longer one.
    near += [one for one in names if str(name).lower() in one and one not in near and name]
    return f"; did you mean {' or '.join(prefix + one for one in near[:3])}?" if near else ""


def _article(noun: str) -> str:
    words = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}
    return words[noun]
