"""What a data set is expected to be: a file that is inferred from one, read and edited.

A schema states level, classes and splits, and by name the limits of `trainer.statistics.summary`'s
measures, each with the severity of what breaks it.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.errors import InputError
from trainer.manifest import SPLITS
from trainer.parameter import nearest
from trainer.record_format import FRAME, MAX_FRAMES, VIDEO, Level
from trainer.statistics.summary import measures

VERSION = 1
SEVERITIES = ("info", "warning", "error")
"""Severity error fails the pipeline."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Limits of one measure; None: no limit."""

    minimum: float | None = None
    maximum: float | None = None
    severity: str = "warning"


CHECKS: dict[str, tuple[Check, str]] = {
    "value_minimum": (Check(minimum=-2.0, severity="error"), "the least feature value"),
    "value_maximum": (
        Check(maximum=2.0078125, severity="error"),
        "the greatest: code 255, dequantised",
    ),
    "saturated_share": (Check(maximum=0.1), "values at either end of their range"),
    "constant_dimensions": (Check(maximum=0), "feature dimensions that never change"),
    "longest_video": (Check(maximum=MAX_FRAMES), "most frames of a video"),
    "most_labels": (Check(maximum=40), "most labels of a video"),
    "unlabelled_share": (Check(maximum=0.0), "videos without a label (not of test)"),
    "no_id_share": (Check(maximum=0.0), "videos without an id"),
    "silent_audio_share": (Check(maximum=0.2), "videos whose audio never changes"),
    "unequal_lengths_share": (Check(maximum=0.0), "videos whose rgb and audio differ in length"),
    "single_frame_share": (Check(maximum=0.05), "videos of one frame"),
    "duplicate_ids": (Check(maximum=0), "records whose id an earlier one of the split has"),
    "leaked_ids": (Check(maximum=0, severity="error"), "ids that another split has too"),
    "classes_unseen": (Check(maximum=0), "classes that have no example in train"),
}
"""Every check: what holds if no schema is given, and what it measures."""

_FRAME_ONLY = ("unequal_lengths_share", "single_frame_share")


@dataclasses.dataclass(frozen=True)
class Schema:
    """What is expected.

    Attributes:
        level: frame or video.
        num_classes: C.
        splits: that must have records.
        checks: by name.
    """

    level: Level
    num_classes: int
    splits: tuple[str, ...]
    checks: Mapping[str, Check]

    def to_yaml(self) -> str:
        """The file, with a comment for each check."""
        lines = [
            "# What the data is expected to be; edit it and give it to a run as statistics.schema.",
            "# A check has a minimum, a maximum or both, and a severity: info, warning or error",
            "# (which fails the pipeline). A check that is left out is not made. Shares: 0 to 1.",
            f"version: {VERSION}",
            f"level: {self.level}",
            f"num_classes: {self.num_classes}",
            f"splits: [{', '.join(self.splits)}]",
            "checks:",
        ]
        for name, check in self.checks.items():
            limits = {k: v for k, v in dataclasses.asdict(check).items() if v is not None}
            inner = ", ".join(f"{key}: {value}" for key, value in limits.items())
            lines.append(f"  {name}: {{{inner}}}  # {CHECKS[name][1]}")
        return "\n".join(lines) + "\n"


def default_schema(level: Level, num_classes: int, splits: Iterable[str]) -> Schema:
    """What holds of YouTube-8M, whatever the release, of the splits that there are."""
    checks = {
        name: check
        for name, (check, _) in CHECKS.items()
        if level == FRAME or name not in _FRAME_ONLY
    }
    return Schema(level, num_classes, tuple(splits), checks)


def infer_schema(
    level: Level, num_classes: int, splits: Mapping[str, dict[str, Any]], found: Mapping[str, float]
) -> Schema:
    """A schema that the data meets: the defaults, widened to what was found, shares by a fifth.

    Args:
        level, num_classes: of the data.
        splits: summaries by split.
        found: measures of the whole, such as `duplicate_ids`.
    """
    present = tuple(name for name in SPLITS if name in splits)
    by_split = {name: measures(splits[name]) for name in present}
    by_split.get("test", {}).pop("unlabelled_share", None)  # the public test split has no labels
    checks = {}
    for name, check in default_schema(level, num_classes, present).checks.items():
        values = [each[name] for each in (*by_split.values(), found) if name in each]
        if name.endswith("_share"):
            values = [_with_slack(value) for value in values]
        minimum, maximum = check.minimum, check.maximum
        checks[name] = Check(
            None if minimum is None else min([minimum, *values]),
            None if maximum is None else max([maximum, *values]),
            check.severity,
        )
    return Schema(level, num_classes, present, checks)


def _with_slack(share: float) -> float:
    """A fifth more, rounded up to three digits, so that it reads well and still holds."""
    return min(1.0, math.ceil(1.2 * share * 1000) / 1000)


def read_schema(path: str | os.PathLike[str]) -> Schema:
    """Read a schema's file.

    Raises:
        InputError: absent, no YAML, of another version, or an entry that can not be; the message
            names the file and the entry.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: no such schema ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: expected YAML ({error})") from None
    if not isinstance(content, dict) or content.get("version") != VERSION:
        version = content.get("version") if isinstance(content, dict) else None
        raise InputError(
            f"{path}: is a schema of version {version!r}, expected version {VERSION}; the "
            "statistics of a run hold one, schema.yaml"
        )
    _check_names(path, "", content, ("version", "level", "num_classes", "splits", "checks"))
    level, classes, splits = (content.get(name) for name in ("level", "num_classes", "splits"))
    if level not in (FRAME, VIDEO):
        raise InputError(f"{path}: level is {level!r}, expected frame or video")
    if type(classes) is not int or classes < 1:
        raise InputError(f"{path}: num_classes is {classes!r}, expected a whole number")
    if not isinstance(splits, list) or not set(map(str, splits)) <= set(SPLITS):
        raise InputError(f"{path}: splits is {splits!r}, expected a list of {', '.join(SPLITS)}")
    checks = content.get("checks")
    if not isinstance(checks, dict):
        raise InputError(f"{path}: checks is {checks!r}, expected names and their limits")
    _check_names(path, "checks.", checks, tuple(CHECKS))
    read = {name: _read_check(path, name, check) for name, check in checks.items()}
    return Schema(level, classes, tuple(splits), read)


def _check_names(
    path: str | os.PathLike[str], prefix: str, found: Mapping[str, Any], known: tuple[str, ...]
) -> None:
    for name in found:
        if name not in known:
            raise InputError(
                f"{path}: unknown entry {prefix}{name}, expected {', '.join(known)}"
                f"{nearest(name, known)}"
            )


def _read_check(path: str | os.PathLike[str], name: str, found: Any) -> Check:
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: checks.{name} is {found!r}, expected such as "
            "{maximum: 0, severity: warning}"
        )
    _check_names(path, f"checks.{name}.", found, ("minimum", "maximum", "severity"))
    for limit in ("minimum", "maximum"):
        value = found.get(limit)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(f"{path}: checks.{name}.{limit} is {value!r}, expected a number")
    severity = found.get("severity", "warning")
    if severity not in SEVERITIES:
        raise InputError(
            f"{path}: checks.{name}.severity is {severity!r}, expected {', '.join(SEVERITIES)}"
        )
    return Check(found.get("minimum"), found.get("maximum"), severity)
