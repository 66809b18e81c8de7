"""In-process on one machine: KFP's own runner, each step a process of this environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kfp import local

from pipeline.console import steps_progress
from pipeline.image_names import ROOT, code_digest
from pipeline.training_pipeline import Target


def local_target() -> Target:
    """No container is started; the image's name only carries the digest into KFP's cache key."""
    image = f"nextvlad-python:{code_digest()}"
    return Target("local", image, image)


@contextlib.contextmanager
def local_runner(_parameters: Mapping[str, Any], _runs: Path) -> Iterator[local.SubprocessRunner]:
    """KFP's runner, whatever the run's parameters and its folder of runs are."""
    with _steps_environment():
        yield local.SubprocessRunner(use_venv=False)


@contextlib.contextmanager
def _steps_environment() -> Iterator[None]:
    """What a step's process needs: this project on its path, and TensorFlow's chatter low."""
    wanted = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}
    wanted |= steps_progress()
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
