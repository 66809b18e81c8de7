"""The folder of a run, `runs/<time>`, and what outlives runs beside it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from components.download.plan import is_release
from components.download.step import SAMPLE
from trainer.errors import InputError

STATE = ".pipeline"
"""What outlives a run, below the folder of runs: data, checkpoints, KFP's cache."""


def new_run_folder(runs: Path) -> Path:
    """`runs/<time>`; two runs that start in one second get two folders."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{runs}: runs can not be put there ({error.strerror})") from None
    stamp = f"{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = runs / f"{stamp}{suffix}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise InputError(f"{runs / stamp}: there are 99 runs of this second already")


def with_places(parameters: dict[str, Any], runs: Path) -> dict[str, Any]:
    """The parameters with what outlives the run below the folder of runs, unless they say where."""
    state = runs / STATE
    return parameters | {
        "destination": absolute(parameters["destination"]) or str(state / "data"),
        "checkpoint_root": absolute(parameters["checkpoint_root"]) or str(state / "checkpoints"),
    }


def with_whole_names(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters with the inputs' folders by their whole names."""
    source, champion = parameters["data_source"], parameters["champion"]
    if source != SAMPLE and not is_release(source):
        source = absolute(source)
    if not champion.startswith("projects/"):
        champion = absolute(champion)
    return parameters | {"data_source": source, "champion": champion}


def absolute(place: str) -> str:
    """A folder by its whole name, as steps start elsewhere; a URI, or nothing, as it is."""
    return str(Path(place).resolve()) if place and "://" not in place else place
