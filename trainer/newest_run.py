"""The newest run below a folder of runs that has something."""

from __future__ import annotations

from pathlib import Path

from trainer.errors import InputError


def newest(runs: Path, name: str) -> Path:
    """The artifact of that name in the newest run that has it, such as `serving_model`.

    Args:
        runs: folder of runs; a run's folder is named by its time.
        name: of a run's artifact.

    Raises:
        InputError: none has it.
    """
    found = [run / name for run in sorted(runs.glob("[0-9]*")) if (run / name).exists()]
    if not found:
        raise InputError(
            f"{runs}: no run there has {name}; make one (make pipeline-run), or name a folder"
        )
    return found[-1]
