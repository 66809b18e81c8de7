"""Timing several things in turn, so that a machine's moods reach all of them alike."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
"""Precision of the products → Keras's name of the policy."""


@dataclasses.dataclass(frozen=True)
class Timed:
    """Seconds of the counted rounds of one thing."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half of the range of the rounds, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / 2 / self.median


def time_in_turn(
    things: Mapping[str, Callable[[], Any]], rounds: int = 7, warm_up: int = 2
) -> dict[str, Timed]:
    """Run each thing once a round, in turn; the first `warm_up` rounds do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for number in range(warm_up + rounds):
        for name, run in things.items():
            start = time.perf_counter()
            run()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timed(tuple(values)) for name, values in seconds.items()}


def machine() -> str:
    """One line about the processor: name, cores in use, and whether it multiplies bfloat16."""
    name, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            name = value.strip() if key.strip() == "model name" else name
            flags = value if key.strip() == "flags" else flags
    found = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if f" {flag} " in f" {flags} "]
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} cores, {' '.join(found) or 'no AVX-512'}, load {load:.1f} at the start"
