"""A run's configuration, checked, as the pipeline's flat parameters."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.config import FLAT, Config, run_config
from trainer.configuration_file import (
    OVERRIDES,
    PLACES,
    check_names,
    merged,
    overrides_of,
    parse_settings,
    read_configuration,
)
from trainer.errors import InputError
from trainer.parameter import check_value

CONFIGS = Path(__file__).resolve().parent / "configs"


def configured(config: str, settings: Sequence[str], data: str = "") -> dict[str, Any]:
    """The pipeline parameters of a configuration file and what is given in its place.

    Args:
        config: YAML file; empty: none.
        settings: `name=value`.
        data: data source; empty: the file's.

    Raises:
        InputError: as `pipeline_parameters`, or the file can not be read.
    """
    file = read_configuration(config, CONFIGS) if config else {}
    configuration = merged(file, parse_settings(settings))
    return pipeline_parameters(configuration | ({"data_source": data} if data else {}))


def pipeline_parameters(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Checked pipeline parameters, all of them, of a configuration.

    Raises:
        InputError: an unknown name, a wrong type or a value out of range; the message names it.
    """
    check_names(configuration)
    parameters: dict[str, Any] = {}
    for name in PLACES:
        value = configuration.get(name, "sample" if name == "data_source" else "")
        if not isinstance(value, str):
            raise InputError(f"{name} is {value!r}, expected text")
        parameters[name] = value
    if not parameters["data_source"]:
        raise InputError(
            "data_source is empty, expected `sample`, youtube8m:RELEASE/LEVEL or a folder (DATA=…)"
        )
    defaults = Config()
    for name, (section, field_name) in FLAT.items():
        current = getattr(defaults, section)
        field = next(f for f in dataclasses.fields(current) if f.name == field_name)
        kind = typing.get_type_hints(type(current))[field_name]
        value = configuration.get(name, getattr(current, field_name))
        parameters[name] = check_value(name, field, kind, value)
    parameters[OVERRIDES] = json.dumps(overrides_of(configuration), sort_keys=True)
    run_config(parameters[OVERRIDES])
    return parameters
