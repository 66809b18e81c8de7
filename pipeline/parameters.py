"""A run's configuration: YAML and command line, checked, as the pipeline's flat parameters."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.config import FLAT, Config, check_value, nearest, run_config
from trainer.errors import InputError

PLACES = ("data_source", "destination", "checkpoint_root")
"""Pipeline parameters that are folders."""
OVERRIDES = "overrides"
CONFIGS = Path(__file__).resolve().parent / "configs"
KNOWN = (*PLACES, *FLAT, OVERRIDES)


class _Loader(yaml.SafeLoader):
    """YAML with the scalars that parameters have: no dates, no numbers to the base of 60.

    And `1e-3` is a number, as in YAML 1.2 and as everybody expects.
    """


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )


def _load_yaml(text: str) -> Any:
    """Raises: yaml.YAMLError or ValueError."""
    return yaml.load(text, _Loader)


def read_configuration(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping of a YAML file; not checked yet.

    Raises:
        InputError: no such file, or no YAML mapping.
    """
    try:
        content = _load_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        there = ", ".join(sorted(os.path.relpath(p) for p in CONFIGS.glob("*.yaml")))
        raise InputError(
            f"{path}: no such configuration ({error.strerror}); there are {there}"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: expected YAML ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected parameters and their values, found {content!r}")
    return content


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Command-line settings as a configuration: `epochs=3`, `model.cluster_size=64`.

    Values are YAML, nothing is empty text. A name with a dot goes into the overrides.

    Raises:
        InputError: a setting without `=`.
    """
    content: dict[str, Any] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise InputError(f"setting {setting!r}: expected name=value")
        try:
            value = _load_yaml(text) if text else ""
        except (yaml.YAMLError, ValueError) as error:
            raise InputError(f"setting {setting!r}: expected a YAML value ({error})") from None
        section, dot, field = name.partition(".")
        content = merged(content, {OVERRIDES: {section: {field: value}}} if dot else {name: value})
    return content


def merged(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """`update` over `base`, section by section where both are mappings."""
    result = dict(base)
    for name, value in update.items():
        old = result.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def _fields(name: str) -> list[str]:
    """`section.name` for the sections of the configuration that have a parameter of that name."""
    sections = (field.name for field in dataclasses.fields(Config))
    return [f"{s}.{name}" for s in sections if hasattr(getattr(Config(), s), str(name))]


def pipeline_parameters(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Checked pipeline parameters, all of them, of a configuration.

    Raises:
        InputError: an unknown name, a wrong type or a value out of range; the message names it.
    """
    parameters: dict[str, Any] = {}
    for name in configuration:
        if name not in KNOWN:
            raise InputError(
                f"unknown parameter {name!r}, expected one of {', '.join(KNOWN)}"
                f"{nearest(name, [*KNOWN, *_fields(name)])}"
            )
    for name in PLACES:
        value = configuration.get(name, "sample" if name == "data_source" else "")
        if not isinstance(value, str):
            raise InputError(f"{name} is {value!r}, expected text")
        parameters[name] = value
    if not parameters["data_source"]:
        raise InputError("data_source is empty, expected `sample` or a folder (DATA=…)")
    defaults = Config()
    for name, (section, field_name) in FLAT.items():
        current = getattr(defaults, section)
        field = next(f for f in dataclasses.fields(current) if f.name == field_name)
        kind = typing.get_type_hints(type(current))[field_name]
        value = configuration.get(name, getattr(current, field_name))
        parameters[name] = check_value(name, field, kind, value)
    overrides = configuration.get(OVERRIDES, {})
    if not isinstance(overrides, Mapping):
        raise InputError(f"{OVERRIDES} is {overrides!r}, expected sections and their parameters")
    parameters[OVERRIDES] = json.dumps(overrides, sort_keys=True)
    run_config(parameters[OVERRIDES])
    return parameters
