"""The YAML files of `pipeline/configs/` and settings of the command line, `epochs=3`.

A configuration is a mapping of the pipeline's flat parameters (`trainer.config.FLAT`), its folders,
and `overrides`: sections and their parameters.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.config import FLAT, Config, run_config
from trainer.errors import InputError
from trainer.parameter import nearest

PLACES = ("data_source", "destination", "checkpoint_root", "champion")
"""Pipeline parameters that are folders, or say where something is."""
OVERRIDES = "overrides"
KNOWN = (*PLACES, *FLAT, OVERRIDES)


class _Loader(yaml.SafeLoader):
    """YAML with the scalars that parameters have: no dates, no numbers to the base of 60 or 8.

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


def _decimal(loader: _Loader, node: Any) -> int:
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def load_yaml(text: str) -> Any:
    """Raises: yaml.YAMLError or ValueError."""
    return yaml.load(text, _Loader)


def read_configuration(
    path: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """The mapping of a YAML file; not checked yet.

    Args:
        path: of the file.
        folder: whose files are named if there is none at `path`; by default those beside it.

    Raises:
        InputError: no such file, or no YAML mapping.
    """
    try:
        content = load_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        others = Path(folder or Path(path).parent)
        there = ", ".join(sorted(os.path.relpath(other) for other in others.glob("*.yaml")))
        raise InputError(
            f"{path}: no such configuration ({error.strerror}){there and f'; there are {there}'}"
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
            value = load_yaml(text) if text else ""
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


def check_names(configuration: Mapping[str, Any]) -> None:
    """Whether a configuration has names of `KNOWN` alone.

    Raises:
        InputError: it has another; the nearest are named.
    """
    for name in configuration:
        if name not in KNOWN:
            raise InputError(
                f"unknown parameter {name!r}, expected one of {', '.join(KNOWN)}"
                f"{nearest(name, [*KNOWN, *_fields(name)])}"
            )


def _fields(name: str) -> list[str]:
    """`section.name` for the sections of the configuration that have a parameter of that name."""
    sections = (field.name for field in dataclasses.fields(Config))
    return [f"{s}.{name}" for s in sections if hasattr(getattr(Config(), s), str(name))]


def overrides_of(configuration: Mapping[str, Any]) -> Mapping[str, Any]:
    """The overrides of a configuration; their sections are not checked yet.

    Raises:
        InputError: they are no mapping.
    """
    overrides = configuration.get(OVERRIDES, {})
    if not isinstance(overrides, Mapping):
        raise InputError(f"{OVERRIDES} is {overrides!r}, expected sections and their parameters")
    return overrides


def configured(config: Config, path: str | os.PathLike[str]) -> Config:
    """`config` with the parameters of a YAML file put in; the file's folders do not count.

    Raises:
        InputError: no such file, no YAML mapping, or a parameter that can not be; the message names
            the file.
    """
    content = read_configuration(path)
    try:
        check_names(content)
        overrides = overrides_of(content)
        flat = {name: content[name] for name in FLAT if name in content}
        run_config(json.dumps(overrides), **flat)
        config = config.updated(overrides)
        for name, value in flat.items():
            section, field = FLAT[name]
            config = config.updated({section: {field: value}})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return config
