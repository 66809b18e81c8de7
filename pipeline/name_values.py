"""Settings of a place to run, as `name=value` on a command line, checked against a dataclass."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import yaml

from trainer.configuration_file import load_yaml
from trainer.errors import InputError
from trainer.parameter import check_value, nearest

Settings = TypeVar("Settings")


def named_values(what: str, kind: type[Any], settings: Sequence[str]) -> dict[str, Any]:
    """Values by the name of the field; text stays as it is, numbers and booleans are read as YAML.

    Args:
        what: they are of, for errors: `KFP`.
        kind: dataclass whose fields they are.
        settings: `name=value`; of one that stands there twice, the last.

    Raises:
        InputError: an unknown name, a value of another type or out of the field's range.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    kinds = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or name not in fields:
            raise InputError(
                f"{what} setting {setting!r}: expected name=value of {', '.join(fields)}"
                f"{nearest(name, fields)}"
            )
        if kinds[name] not in (int, float, bool):
            value: Any = text
        else:
            try:
                value = load_yaml(text)
            except (yaml.YAMLError, ValueError, RecursionError):
                raise InputError(
                    f"{what} setting {name} is {text[:60]!r}, expected {kinds[name].__name__}"
                ) from None
        if kinds[name] in (int, float, bool, str):
            value = check_value(f"{what} setting {name}", fields[name], kinds[name], value)
        values[name] = value
    return values


def pairs(what: str, text: str) -> dict[str, str]:
    """`key:value,key:value` as a mapping.

    Raises:
        InputError: a part of another form.
    """
    found = {}
    for one in listed(text):
        key, colon, value = one.partition(":")
        if not colon or not key:
            raise InputError(f"{what} {one!r}: expected key:value")
        found[key] = value
    return found


def listed(text: str) -> list[str]:
    """The parts of `a,b`."""
    return [part for part in text.split(",") if part]
