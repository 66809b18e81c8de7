"""A run's configuration: YAML and command line, checked, as the pipeline's flat parameters."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.config import Config, check_value
from trainer.errors import InputError

FLAT = {
    "model": ("model", "name"),
    "epochs": ("training", "epochs"),
    "batch_size": ("training", "batch_size"),
    "learning_rate": ("training", "learning_rate"),
    "seed": ("training", "seed"),
    "min_gap": ("evaluation", "min_gap"),
}
"""Pipeline parameters that are a field of `trainer.config`: name → (section, field)."""
PLACES = ("data_source", "destination", "checkpoint_root")
"""Pipeline parameters that are folders."""
OVERRIDES = "overrides"
KNOWN = (*PLACES, *FLAT, OVERRIDES)


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but `1e-3` is a number, as in YAML 1.2 and as everybody expects."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+([eE][-+]?[0-9]+)$"), list("-+0123456789")
)


def _load_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def read_configuration(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping of a YAML file; not checked yet.

    Raises:
        InputError: no such file, or no YAML mapping.
    """
    try:
        content = _load_yaml(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
        except yaml.YAMLError as error:
            raise InputError(f"setting {setting!r}: expected a YAML value ({error})") from None
        section, dot, field = name.partition(".")
        if dot:
            content.setdefault(OVERRIDES, {}).setdefault(section, {})[field] = value
        else:
            content[name] = value
    return content


def merged(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """`update` over `base`, section by section where both are mappings."""
    result = dict(base)
    for name, value in update.items():
        old = result.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def pipeline_parameters(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Checked pipeline parameters, all of them, of a configuration.

    Raises:
        InputError: an unknown name, a wrong type or a value out of range; the message names it.
    """
    parameters: dict[str, Any] = {}
    for name in configuration:
        if name not in KNOWN:
            near = difflib.get_close_matches(str(name), KNOWN, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(KNOWN)}"
            raise InputError(f"unknown parameter {name!r}; {hint}")
    for name in PLACES:
        value = configuration.get(name, "sample" if name == "data_source" else "")
        if not isinstance(value, str):
            raise InputError(f"{name} is {value!r}, expected text")
        parameters[name] = value
    defaults = Config()
    for name, (section, field_name) in FLAT.items():
        current = getattr(defaults, section)
        field = next(f for f in dataclasses.fields(current) if f.name == field_name)
        kind = typing.get_type_hints(type(current))[field_name]
        value = configuration.get(name, getattr(current, field_name))
        parameters[name] = check_value(name, field, kind, value)
    overrides = configuration.get(OVERRIDES) or {}
    if not isinstance(overrides, Mapping):
        raise InputError(f"{OVERRIDES} is {overrides!r}, expected sections and their parameters")
    defaults.updated(overrides)
    for name, (section, field_name) in FLAT.items():
        if field_name in overrides.get(section, {}):
            raise InputError(
                f"{OVERRIDES}.{section}.{field_name}: is the pipeline parameter {name}; set that"
            )
    parameters[OVERRIDES] = json.dumps(overrides, sort_keys=True)
    return parameters
