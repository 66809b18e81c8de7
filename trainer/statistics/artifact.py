"""The files of a pass: `statistics.json`, `statistics.npz` and what goes with them.

docs/statistics.md describes them; `VERSION` is raised when something in them changes its meaning.
"""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.config import StatisticsConfig
from trainer.errors import InputError
from trainer.files import local_path, read_json
from trainer.manifest import digest_of_files

VERSION = 3
STATISTICS, ARRAYS, ANOMALIES = "statistics.json", "statistics.npz", "anomalies.json"


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What was read.

    Attributes:
        folder: of the files.
        facts: the content of `statistics.json`: `data_fingerprint`, `level`, `num_classes`,
            `splits` (summaries by split, and of `all`), `anomalies`, `passed` and more.
        arrays: `<split>/<name>`.
    """

    folder: str
    facts: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.facts["splits"]
        return found


def digest_of_expectations(config: StatisticsConfig) -> str:
    """Of the files that a pass compares with, the schema and the earlier run; empty: of none.

    One that is not there counts as such: the pass says so.
    """
    files = [local_path(config.schema)] if config.schema else []
    if config.baseline:
        files += [local_path(config.baseline) / name for name in (STATISTICS, ARRAYS)]
    return digest_of_files(file for file in files if file.is_file()) if files else ""


def read_statistics(
    folder: str | os.PathLike[str], fingerprint: str = "", failed: bool = False
) -> Statistics:
    """Read what `components.statistics` wrote.

    Args:
        folder: of the files.
        fingerprint: of the data that they must be of; empty: of any.
        failed: whether statistics that found an anomaly of severity error will do.

    Raises:
        InputError: absent, of another version, of other data, of data that did not pass, or
            damaged.
    """
    facts = read_json(Path(folder) / STATISTICS)
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        version = facts.get("version") if isinstance(facts, dict) else None
        raise InputError(
            f"{folder}: are statistics of version {version!r}, expected version {VERSION}; "
            "make them anew"
        )
    if fingerprint and facts["data_fingerprint"] != fingerprint:
        raise InputError(
            f"{folder}: are statistics of the data {facts['data_fingerprint']}, "
            f"expected {fingerprint}"
        )
    if not failed and not facts["passed"]:
        severe = [one["description"] for one in facts["anomalies"] if one["severity"] == "error"]
        raise InputError(f"{folder}: the data did not pass: {'; '.join(severe)}")
    path = Path(folder) / ARRAYS
    try:
        # Opened here: NumPy leaves a file open that is no archive.
        with path.open("rb") as file, np.load(file) as arrays:
            return Statistics(str(folder), facts, {name: arrays[name] for name in arrays.files})
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
        raise InputError(f"{path}: is damaged, expected the arrays of a pass ({error})") from None
