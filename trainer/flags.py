"""Command-line flags of the configuration's parameters, made from the dataclasses.

Each parameter is `--SECTION.FIELD VALUE`. A field that one section alone has is `--FIELD` too, and
one that the pipeline has by a name of its own (`trainer.config.FLAT`) has that name, so that
Vertex AI's hyperparameter tuning can pass `--learning_rate=0.001`.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, NoReturn

from trainer.config import FLAT, Config
from trainer.errors import InputError
from trainer.parameter import nearest, range_text

SECTIONS = ("data", "model", "training", "evaluation")
"""Those of the configuration that have flags: what a training reads."""
PLACEHOLDERS = {int: "N", float: "X", str: "TEXT", bool: "true|false"}


class FlagParser(argparse.ArgumentParser):
    """A parser whose errors are `InputError`; a flag that is none is answered with the nearest."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **options)

    def error(self, message: str) -> NoReturn:
        raise InputError(message)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options and flags of a command line.

        Raises:
            InputError: an unknown flag, one without a value, or a required one that is absent.
        """
        known = self._option_string_actions
        for argument in arguments:
            flag = argument.partition("=")[0]
            # No flag has a space, and what starts with one dash and a digit is a number.
            if flag[:1] == "-" and flag.strip("-")[:1].isalpha() and " " not in flag:
                if flag in known:
                    continue
                typed = flag.lstrip("-").replace("-", "_")
                names = [name[2:] for name in known if name.startswith("--")]
                alike = [name for name in names if ("." in name) == ("." in typed)]
                raise InputError(
                    f"unknown flag {flag}, --help has all{nearest(typed, alike, prefix='--')}"
                )
        return self.parse_args(arguments)


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def add_flags(parser: argparse.ArgumentParser, sections: Sequence[str] = SECTIONS) -> None:
    """Give the parser the flags of sections, a group each; none has a default of its own."""
    for section in sections:
        current = getattr(Config(), section)
        group = parser.add_argument_group(
            section, f"{type(current).__doc__} Each is also --{section}.NAME."
        )
        kinds = typing.get_type_hints(type(current))
        for field in dataclasses.fields(current):
            full = f"{section}.{field.name}"
            plain = _plain_names(section, field.name, sections)
            # The full name follows from the plain one where that is the field's.
            hidden = plain == [field.name]
            kind = kinds[field.name]
            for names, text in (
                (plain if hidden else [*plain, full], _help(field, current)),
                ([full] if hidden else [], argparse.SUPPRESS),
            ):
                if names:
                    group.add_argument(
                        *(f"--{name}" for name in names),
                        dest=full,
                        default=argparse.SUPPRESS,
                        metavar="NAME" if field.metadata["choices"] else PLACEHOLDERS[kind],
                        help=text,
                    )


def flag_overrides(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The parameters that a command line sets, as overrides for `Config.updated`, which checks."""
    overrides: dict[str, dict[str, Any]] = {}
    for name, text in vars(options).items():
        section, dot, field = name.partition(".")
        if dot:
            kind = typing.get_type_hints(type(getattr(Config(), section)))[field]
            overrides.setdefault(section, {})[field] = _value(text, kind)
    return overrides


def _value(text: str, kind: type[Any]) -> Any:
    """A text as the value that it stands for; as it is where it stands for none of that kind."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind is str:
        return text
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return text
    # Vertex AI passes the values of a discrete parameter as 128.0.
    return int(number) if kind is int and number.is_integer() else number


def _plain_names(section: str, field: str, sections: Sequence[str]) -> list[str]:
    """Names without the section: those in `FLAT`, and the field's if no other parameter has it."""
    flat = [name for name, place in FLAT.items() if place == (section, field)]
    counts = collections.Counter(
        one.name for each in sections for one in dataclasses.fields(getattr(Config(), each))
    )
    return flat + ([field] if counts[field] == 1 and field not in FLAT else [])


def _help(field: dataclasses.Field[Any], current: Any) -> str:
    """Description, range and default, for argparse, to which % is special."""
    value = getattr(current, field.name)
    default = str(value).lower() if isinstance(value, bool) else str(value)
    facts = [range_text(field), f"default {default or 'empty'}"]
    return f"{field.metadata['description']} [{'; '.join(filter(None, facts))}]".replace("%", "%%")
