"""The workers that TF_CONFIG names."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import reprlib
from collections.abc import Iterable
from typing import Any

from trainer.errors import InputError

JOBS = ("chief", "worker")
_LABEL = r"[A-Za-z0-9_-]{1,63}"
_HOST = rf"\[[0-9A-Fa-f:.]+\]|(?:{_LABEL}\.)*{_LABEL}\.?"
_ADDRESS = re.compile(rf"(?P<host>{_HOST}):(?P<port>[0-9]{{1,5}})")
_REPR = reprlib.Repr()
_REPR.maxstring = 80


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a job, two at least, and which of them this process is.

    Attributes:
        workers: `host:port` of each, in the order of their ranks: the chief, then the workers.
        index: rank of this one.
        has_chief: whether rank 0 has the task type chief; else all are of type worker.
    """

    workers: tuple[str, ...]
    index: int
    has_chief: bool

    @property
    def count(self) -> int:
        return len(self.workers)

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    @property
    def peers(self) -> list[int]:
        """Ranks of the other workers."""
        return [rank for rank in range(self.count) if rank != self.index]

    @property
    def tasks(self) -> list[tuple[str, int]]:
        """TensorFlow's task type and index of each worker."""
        chief = int(self.has_chief)
        return [("chief", 0)] * chief + [("worker", i) for i in range(self.count - chief)]

    def names(self, ranks: Iterable[int]) -> str:
        """For a message: `worker 1 at host:port, worker 2 at …`."""
        return ", ".join(f"worker {rank} at {self.workers[rank]}" for rank in ranks)


def read_cluster(text: str | None) -> Cluster | None:
    """The cluster that TF_CONFIG describes, or None if this process is alone.

    The form is TensorFlow's (`tf.distribute.cluster_resolver.TFConfigClusterResolver`):
    `{"cluster": {"chief": ["host:port"], "worker": ["host:port", …]}, "task": {"type": "chief",
    "index": 0}, …}`. Vertex AI sets it for every replica of a custom job, also for a lone one.

    Args:
        text: of the variable; None or empty: not set.

    Raises:
        InputError: no JSON, no cluster of chief and workers at `host:port` each, parameter servers
            or evaluators, which this trainer does not have, or a task that is not of the cluster.
    """
    if not text or text.isspace():
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"TF_CONFIG is {_REPR.repr(text)}, expected JSON ({error})") from None
    if not isinstance(content, dict):
        raise _unfit("TF_CONFIG", content, "a JSON object")
    jobs = _jobs(content.get("cluster"))
    job, index = _task(content.get("task"), jobs)
    chiefs = jobs.get("chief", [])
    workers = (*chiefs, *jobs.get("worker", []))
    if len(workers) == 1:
        return None
    rank = index + (len(chiefs) if job == "worker" else 0)
    return Cluster(workers, rank, bool(chiefs))


def _jobs(cluster: Any) -> dict[str, list[str]]:
    """Addresses by task type, of those types that have some."""
    if not isinstance(cluster, dict) or not any(cluster.values()):
        raise _unfit("TF_CONFIG.cluster", cluster, "an object of the addresses of chief and worker")
    jobs = {job: addresses for job, addresses in cluster.items() if addresses != []}
    for job, addresses in jobs.items():
        name = f"TF_CONFIG.cluster.{job}" if job in JOBS else "TF_CONFIG.cluster"
        if job not in JOBS:
            words = "chief and worker alone: there are no parameter servers or evaluators here"
            raise _unfit(name, cluster, words)
        if not isinstance(addresses, list):
            raise _unfit(name, addresses, "a list of host:port")
        for address in addresses:
            if not _is_address(address):
                raise _unfit(name, address, "host:port, with a port of 1 to 65535")
    if len(jobs.get("chief", [])) > 1:
        raise _unfit("TF_CONFIG.cluster.chief", jobs["chief"], "one address")
    seen: set[str] = set()
    for address in itertools.chain(*jobs.values()):
        if address in seen:
            raise InputError(f"TF_CONFIG.cluster has {address} twice, expected it once")
        seen.add(address)
    return jobs


def _task(task: Any, jobs: dict[str, list[str]]) -> tuple[str, int]:
    """Type and index of this task."""
    if not isinstance(task, dict):
        raise _unfit("TF_CONFIG.task", task, "an object of type and index")
    job, index = task.get("type"), task.get("index")
    if not isinstance(job, str) or job not in jobs:
        raise _unfit("TF_CONFIG.task.type", job, f"{' or '.join(jobs)}, as the cluster has")
    if isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index):
        index = int(index)
    if type(index) is not int or not 0 <= index < len(jobs[job]):
        words = f"a whole number of 0 to {len(jobs[job]) - 1}, as the cluster has of {job}"
        raise _unfit("TF_CONFIG.task.index", index, words)
    return job, index


def _is_address(address: Any) -> bool:
    found = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    return found is not None and len(found["host"]) <= 253 and 1 <= int(found["port"]) <= 65535


def _unfit(name: str, found: Any, expected: str) -> InputError:
    return InputError(f"{name} is {_REPR.repr(found)}, expected {expected}")
