"""A compiled pipeline, checked, as a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kfp import compiler

from pipeline.check_spec import check_pipeline_file
from pipeline.training_pipeline import Target, build
from trainer.files import atomic_file


def compile_target(
    target: Target,
    path: Path,
    defaults: dict[str, Any] | None = None,
    make: Callable[[Target], Any] = build,
) -> None:
    """Write one compiled pipeline and check it.

    Args:
        target: that it is for.
        path: to write.
        defaults: of its parameters, in place of its own.
        make: the pipeline for a target.
    """
    with atomic_file(path) as partial:
        # KFP takes the format of the file's name.
        package = partial.with_suffix(".yaml")
        compiler.Compiler().compile(make(target), str(package), pipeline_parameters=defaults)
        check_pipeline_file(package)
        package.rename(partial)
