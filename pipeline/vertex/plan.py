"""What a run will use and cost, before it is started: machines, time-outs, a dated price table."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.deploy.step import WHOLE
from pipeline.targets.vertex import VertexTarget, step_size
from pipeline.targets.vertex_machines import machine_table, step_machine
from pipeline.training_pipeline import BATCH_PREDICT, DEPLOY, REGISTER, STEPS
from pipeline.vertex.prices import Prices
from trainer.errors import InputError
from trainer.parameter import nearest

LAUNCHER = "e2-standard-4"
"""Vertex AI's machine for a step that only starts a job and waits: its default."""
DISK_GB = 100
"""Boot disk of a step's machine."""
DATAFLOW_MACHINE = "n1-standard-1"
"""Dataflow's own choice for a batch job's workers."""
DATAFLOW_SIZES = {
    "n1-standard-1": {"cpus": 1, "memory_gb": 3.75},
    "n1-standard-2": {"cpus": 2, "memory_gb": 7.5},
}
_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class PlannedStep:
    """A step as it will run.

    Attributes:
        name: of the step.
        machines: in words.
        hour: price of an hour of it; None: not in the table.
        hours: after which a try is ended.
        tries: at most.
        expected: hours that it is expected to take; None: nobody said.
    """

    name: str
    machines: str
    hour: float | None
    hours: float
    tries: int
    expected: float | None = None

    @property
    def most(self) -> float | None:
        return None if self.hour is None else self.hour * self.hours * self.tries

    @property
    def estimate(self) -> float | None:
        if self.hour is None or self.expected is None:
            return None
        return self.hour * self.expected


def planned_steps(
    target: VertexTarget, prices: Prices, expected: Mapping[str, float] | None = None
) -> list[PlannedStep]:
    """The steps of a run with their machines and prices, in their order."""
    settings, expected = target.settings, expected or {}
    found = []
    for step in (*STEPS, *target.extra_steps):
        cpus, memory = step_size(step)
        machine = step_machine(cpus, memory)
        accelerator, count, spot, disk, number = "", 0, False, DISK_GB, 1
        hours, tries = settings.step_hours, 1 + settings.step_retries
        if step == "evaluate" and settings.evaluate_accelerators:
            accelerator, count = settings.accelerator, settings.evaluate_accelerators
            machine = _machine_with(accelerator, count, cpus, memory)
        if step == "train":
            machine, accelerator = settings.machine, settings.accelerator
            count = settings.accelerators if accelerator else 0
            spot, disk, number = settings.spot, settings.disk_gb, settings.workers
            hours, tries = settings.train_hours, 1 + settings.train_retries
        rate = prices.machine_hour(machine, accelerator, count, spot, disk)
        if rate is not None:
            rate *= number
            if step == "train":
                rate += prices.machine_hour(LAUNCHER, "", 0, False, DISK_GB) or 0.0
        if step == "statistics" and rate is not None:
            rate = None if (workers := dataflow_hour(target, prices)) is None else rate + workers
        if step == BATCH_PREDICT and rate is not None:
            beside = prices.serving_hour(settings.serving_machine, settings.serving_accelerator)
            rate = None if beside is None else rate + beside * settings.batch_replicas
        if (likely := expected.get(step)) is not None and likely > hours * tries:
            raise InputError(
                f"HOURS {step}={likely:g}: the step is ended after {hours:g} h × {tries}"
            )
        words = f"{number} × " if number > 1 else ""
        words += machine + (f" + {count} × {accelerator}" if accelerator else "")
        words += " spot" if spot else ""
        if step == "statistics" and target.beam_pipeline_args:
            count, kind = dataflow_workers(target)
            words += f" + {count or 'any number of'} × {kind}"
        if step == BATCH_PREDICT:
            words += f" + {settings.batch_replicas} × {settings.serving_machine}"
        found.append(PlannedStep(step, words, rate, hours, tries, expected.get(step)))
    return found


def dataflow_workers(target: VertexTarget) -> tuple[int, str]:
    """Most workers of the statistics step on Dataflow, 0 without a bound, and their machine."""
    options = dict(
        one.removeprefix("--").split("=", 1) for one in target.beam_pipeline_args if "=" in one
    )
    return int(options.get("max_num_workers", 0)), options.get("machine_type", DATAFLOW_MACHINE)


def dataflow_hour(target: VertexTarget, prices: Prices) -> float | None:
    """Price an hour of Dataflow's workers at their most; None: no bound, or not in the table."""
    if not target.beam_pipeline_args:
        return 0.0
    count, kind = dataflow_workers(target)
    size = machine_table()["machines"].get(kind) or DATAFLOW_SIZES.get(kind)
    if not count or not size:
        return None
    hour = prices.worker_hour(size["cpus"], size["memory_gb"])
    return None if hour is None else hour * count


def _machine_with(accelerator: str, count: int, cpus: int, memory: int) -> str:
    """The smallest machine that takes so many accelerators."""
    table = machine_table()
    fitting = [
        (one["cpus"], one["memory_gb"], name)
        for name, one in table["machines"].items()
        if count in table["accelerators"][accelerator]["machines"].get(name, [])
        and one["cpus"] >= cpus
        and one["memory_gb"] >= memory
    ]
    if not fitting:
        raise InputError(
            f"VERTEX setting evaluate_accelerators: no machine has {count} of {accelerator}"
        )
    return str(min(fitting)[2])


def expected_hours(settings: Sequence[str], steps: Sequence[str]) -> dict[str, float]:
    """Checked hours by step, from `train=8`.

    Raises:
        InputError: no such step, or no hours.
    """
    hours = {}
    for setting in settings:
        step, _, text = setting.partition("=")
        if step not in steps:
            raise InputError(
                f"HOURS {setting!r}: expected step=hours with one of {', '.join(steps)}"
                f"{nearest(step, steps)}"
            )
        try:
            hours[step] = float(text)
        except ValueError:
            hours[step] = -1.0
        if not 0 <= hours[step] < float("inf"):
            raise InputError(f"HOURS {setting!r}: expected hours such as 1.5")
    return hours


def plan_text(
    target: VertexTarget, prices: Prices, parameters: Mapping[str, Any],
    expected: Mapping[str, float] | None = None,
) -> str:  # fmt: skip
    """The whole plan: where, on what, for how long, for how much."""
    home, settings = target.home, target.settings
    steps = planned_steps(target, prices, expected)
    money = prices.currency
    lines = [
        f"project {home.project}, {home.region}, gs://{home.bucket}, as "
        f"{home.service_account or 'the default service account of Compute Engine'}",
        f"images  {target.cpu_image}",
    ]
    if target.gpu_image in {target.image(step) for step in STEPS}:
        lines.append(f"        {target.gpu_image}")
    if REGISTER in target.extra_steps:
        lines.append(f"        {target.serving_image}")
    for name in ("network", "kms_key"):
        if value := getattr(home, name):
            lines.append(f"{name:<7} {value}")
    wide = max(len(one.machines) for one in steps)
    lines += ["", f"{'step':<14}{'machines':<{wide}}{money + '/hour':>10}{'ends after':>16}"
              f"{'at most':>12}{'expected':>18}"]  # fmt: skip
    for one in steps:
        limit = f"{one.hours:g} h × {one.tries}"
        likely = "" if one.expected is None else f"{one.expected:g} h {_money(one.estimate)}"
        lines.append(
            f"{one.name:<14}{one.machines:<{wide}}{_money(one.hour):>10}{limit:>16}"
            f"{_money(one.most):>12}{likely:>18}"
        )
    notes = [*_totals(steps, prices, home.region), *_what_stays(target, prices)]
    if settings.spot:
        notes.append(
            "Spot machines can be taken away at any time; training goes on at its last checkpoint "
            f"in {parameters.get('checkpoint_root') or 'none: checkpoint_root is empty'}."
        )
    lines += [
        "",
        *(
            textwrap.fill(note, _WIDTH, break_on_hyphens=False, break_long_words=False)
            for note in notes
        ),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _totals(steps: Sequence[PlannedStep], prices: Prices, region: str) -> list[str]:
    unknown = [one.machines for one in steps if one.hour is None]
    most = sum(one.most or 0.0 for one in steps) + prices.pipeline_run
    train = next(one for one in steps if one.name == "train")
    lines = []
    if all(one.expected is not None for one in steps if one.name in ("statistics", "train")):
        likely = sum(one.estimate or 0.0 for one in steps) + prices.pipeline_run
        lines.append(f"expected     {_money(likely)} {prices.currency}, of the steps with hours")
    else:
        lines.append(
            f"an hour of training costs {_money(train.hour)} {prices.currency}; "
            'HOURS="statistics=1 train=8" makes it an estimate of the whole'
        )
    lines.append(
        f"never above  {_money(most)} {prices.currency}: every step and every retry up to its limit"
    )
    lines.append(
        f"List prices of {prices.region} of {prices.date} ({Path(prices.path).name}; PRICES=file "
        "for your own), before taxes, discounts, storage and network."
    )
    if region != prices.region:
        lines.append(f"Prices of {region} differ from these.")
    if unknown:
        lines.append(f"Without a price there, so not in the sums: {', '.join(unknown)}.")
    return lines


def _what_stays(target: VertexTarget, prices: Prices) -> list[str]:
    """What is paid for after the run."""
    settings = target.settings
    lines = []
    if DEPLOY in target.extra_steps:
        rate = prices.serving_hour(settings.serving_machine, settings.serving_accelerator)
        least, most = settings.replicas, settings.most_replicas
        day = "unknown" if rate is None else f"{rate * 24 * least:,.2f}"
        if rate is not None and most > least:
            day += f" (under load up to {rate * 24 * most:,.2f})"
        # The new one, with a share of the traffic the one before, and what is kept.
        copies = 1 + (settings.traffic < WHOLE) + settings.keep
        lines.append(
            f"The endpoint {settings.endpoint} goes on after the run: {day} {prices.currency} a "
            f"day for each deployed version, up to {copies} of them, until it is undeployed "
            f"(make vertex-undeploy ENDPOINT={settings.endpoint})."
        )
    return lines


def _money(value: float | None) -> str:
    return "?" if value is None else f"{value:,.2f}"
