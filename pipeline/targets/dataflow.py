"""The statistics step on Dataflow: settings by name, as options of Beam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.name_values import named_values, pairs
from trainer.errors import InputError


def dataflow_arguments(
    settings: Sequence[str], image: str, given: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Checked Beam options; none without settings.

    Args:
        settings: fields of `components.statistics.engines.Dataflow`, `name=value`.
        image: of the workers.
        given: what holds where the settings say nothing.

    Raises:
        InputError: a setting that can not be, or one that is missing.
    """
    if not settings:
        return ()
    # Beam takes seconds to import, and most runs have none of it here.
    from components.statistics.engines import Dataflow, engine_options  # noqa: PLC0415

    values: dict[str, Any] = {key: value for key, value in (given or {}).items() if value}
    values |= named_values("dataflow", Dataflow, settings) | {"worker_image": image}
    if "labels" in values:
        values["labels"] = pairs("dataflow setting labels", values["labels"])
    missing = [name for name in ("project", "region", "temp_location") if name not in values]
    if missing:
        raise InputError(f"dataflow: {', '.join(missing)} is missing, expected such as project=p-1")
    arguments = Dataflow(**values).arguments()
    engine_options(arguments)
    return tuple(arguments)
