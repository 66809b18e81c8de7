"""A dated table of prices that a user can replace."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer.configuration_file import load_yaml
from trainer.errors import InputError

PRICES = Path(__file__).with_name("prices.yaml")
HOURS_A_MONTH = 730.0
_LARGEST = 1e9


@dataclasses.dataclass(frozen=True)
class Prices:
    """A table of prices an hour.

    Attributes:
        path: of the file.
        date: when they were seen.
        region, currency: of them.
        machines, accelerators: by type.
        spot: share of each that spot machines cost.
        pipeline_run: of each run.
        disk_gb_hour: of a boot disk.
        serving: by machine and accelerator, where predictions cost another price than training.
        dataflow: `vcpu_hour` and `memory_gb_hour` of Dataflow's workers.
    """

    path: str
    date: str
    region: str
    currency: str
    machines: Mapping[str, float]
    accelerators: Mapping[str, float]
    spot: Mapping[str, float]
    pipeline_run: float
    disk_gb_hour: float
    serving: Mapping[str, float] = dataclasses.field(default_factory=dict)
    dataflow: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def machine_hour(
        self, machine: str, accelerator: str, count: int, spot: bool, disk_gb: int
    ) -> float | None:
        """Price of a machine an hour; None: the table does not have one of its parts."""
        rate = self.machines.get(machine)
        more = self.accelerators.get(accelerator) if accelerator else 0.0
        if rate is None or more is None:
            return None
        if spot:
            rate, more = rate * self.spot["machines"], more * self.spot["accelerators"]
        return rate + more * count + disk_gb * self.disk_gb_hour

    def serving_hour(self, machine: str, accelerator: str) -> float | None:
        """Price of a machine an hour that answers requests."""
        found = [self.serving.get(machine, self.machines.get(machine))]
        if accelerator:
            found.append(self.serving.get(accelerator, self.accelerators.get(accelerator)))
        known = [one for one in found if one is not None]
        return sum(known) if len(known) == len(found) else None

    def worker_hour(self, cpus: float, memory_gb: float) -> float | None:
        """Price of one of Dataflow's workers an hour."""
        if not {"vcpu_hour", "memory_gb_hour"} <= self.dataflow.keys():
            return None
        return cpus * self.dataflow["vcpu_hour"] + memory_gb * self.dataflow["memory_gb_hour"]


def read_prices(path: str | os.PathLike[str] = PRICES) -> Prices:
    """A price table, checked.

    Raises:
        InputError: it can not be read, or lacks a part, or a price is no number.
    """
    try:
        content = load_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise InputError(f"prices {path}: {' '.join(str(error).split())}") from None
    wanted = (
        "date", "region", "currency", "machines", "accelerators", "spot", "pipeline_run",
        "disk_gb_month",
    )  # fmt: skip
    if not isinstance(content, dict) or (lacking := [one for one in wanted if one not in content]):
        what = ", ".join(lacking) if isinstance(content, dict) else "a mapping"
        raise InputError(f"prices {path}: expected {what}, as {PRICES.name} of this project has")
    more = ("prediction_machines", "prediction_accelerators", "dataflow")
    for name in more:
        content.setdefault(name, {})
    for name in ("machines", "accelerators", "spot", *more):
        if not isinstance(content[name], dict):
            raise InputError(f"prices {path}: {name}: expected a mapping of names to prices")
        for key, value in content[name].items():
            _check_price(f"prices {path}: {name}.{key}", value)
    for name in ("pipeline_run", "disk_gb_month"):
        _check_price(f"prices {path}: {name}", content[name])
    if not {"machines", "accelerators"} <= content["spot"].keys():
        raise InputError(f"prices {path}: spot: expected machines and accelerators")
    return Prices(
        os.fspath(path), str(content["date"]), str(content["region"]), str(content["currency"]),
        content["machines"], content["accelerators"], content["spot"],
        float(content["pipeline_run"]), float(content["disk_gb_month"]) / HOURS_A_MONTH,
        content["prediction_machines"] | content["prediction_accelerators"], content["dataflow"],
    )  # fmt: skip


def _check_price(name: str, value: Any) -> None:
    if (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not (0 <= value < _LARGEST)
    ):
        raise InputError(f"{name} is {value!r}, expected a price")
