"""Machine types and accelerators of Vertex AI's custom training, and which go together.

The table is `vertex_machines.yaml`; its sources are named there.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from trainer.configuration_file import load_yaml
from trainer.errors import InputError
from trainer.parameter import nearest

SMALL_SERVING = ("n1-standard-2", "e2-standard-2")
"""Machines that serve predictions and do not train."""
_TABLE = Path(__file__).with_name("vertex_machines.yaml")


@functools.cache
def machine_table() -> dict[str, Any]:
    """`machines`: vCPUs and memory by type; `accelerators`: quota, and counts by machine type."""
    table: dict[str, Any] = load_yaml(_TABLE.read_text(encoding="utf-8"))
    return table


def check_machine(
    what: str, machine: str, accelerator: str, count: int, serving: bool = False
) -> None:
    """Raise `InputError` unless Vertex AI has this machine with these accelerators.

    Args:
        what: it is, for the error.
        machine: type.
        accelerator: by its Vertex name; empty: none.
        count: of accelerators.
        serving: whether it serves predictions, for which there are smaller ones, too.
    """
    machines, accelerators = machine_table()["machines"], machine_table()["accelerators"]
    if serving and machine in SMALL_SERVING and not accelerator:
        return
    if machine not in machines:
        raise InputError(
            f"{what} {machine!r}: Vertex AI has no such machine type for training"
            f"{nearest(machine, machines)}"
        )
    if not accelerator:
        if needed := _brought(machine):
            raise InputError(f"{what} {machine}: comes with {needed}, expected it as accelerator")
        return
    if accelerator not in accelerators:
        raise InputError(
            f"{what}: accelerator {accelerator!r}: expected one of {', '.join(accelerators)}"
            f"{nearest(accelerator, accelerators)}"
        )
    fitting = accelerators[accelerator]["machines"]
    if machine not in fitting:
        raise InputError(
            f"{what} {machine}: takes no {accelerator}, expected one of {', '.join(fitting)}"
        )
    if count not in fitting[machine]:
        counts = ", ".join(map(str, fitting[machine]))
        raise InputError(f"{what} {machine}: takes {counts} of {accelerator}, found {count}")


def _brought(machine: str) -> str:
    """The accelerator that a machine type is never without."""
    if machine.startswith("n1-"):
        return ""
    return next(
        (
            name
            for name, one in machine_table()["accelerators"].items()
            if machine in one["machines"]
        ),
        "",
    )


def quota_metric(accelerator: str, spot: bool) -> str:
    """The quota that training on an accelerator takes from."""
    name = machine_table()["accelerators"][accelerator]["quota"]
    kind = "preemptible_" if spot else ""
    return f"aiplatform.googleapis.com/custom_model_training_{kind}{name}_gpus"


def serving_metric(accelerator: str) -> str:
    """The quota that predictions on an accelerator take from."""
    name = machine_table()["accelerators"][accelerator]["quota"]
    return f"aiplatform.googleapis.com/custom_model_serving_{name}_gpus"


def step_machine(cpus: int, memory_gb: int) -> str:
    """The machine type that a step with these limits gets, as far as Vertex AI says so.

    https://cloud.google.com/vertex-ai/docs/pipelines/machine-types
    """
    for name, one in machine_table()["machines"].items():
        if name.startswith("e2-") and one["cpus"] >= cpus and one["memory_gb"] >= memory_gb:
            return str(name)
    raise InputError(f"no e2 machine has {cpus} vCPUs and {memory_gb} GB")
