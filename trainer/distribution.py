"""Devices and workers that train together: TF_CONFIG, TensorFlow's strategy, peers that are gone.

What is said here of TensorFlow was measured with 2.21.0 on CPUs, two and three processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import re
import reprlib
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.eager import context as tensorflow_context

from trainer.config import TrainingConfig
from trainer.errors import InputError
from trainer.progress import say

POLL_SECONDS, PROBE_SECONDS, SAY_SECONDS = 0.5, 1.0, 5.0
"""Between two looks for the peers; for one of them to answer; until the wait is said."""

CONNECT_SECONDS = 120.0
"""For TensorFlow's servers to connect, once every worker has come."""

_JOBS = ("chief", "worker")
_LABEL = r"[A-Za-z0-9_-]{1,63}"
_HOST = rf"\[[0-9A-Fa-f:.]+\]|(?:{_LABEL}\.)*{_LABEL}\.?"
_ADDRESS = re.compile(rf"(?P<host>{_HOST}):(?P<port>[0-9]{{1,5}})")
_REPR = reprlib.Repr()
_REPR.maxstring = 80


# --- TF_CONFIG ---


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
        name = f"TF_CONFIG.cluster.{job}" if job in _JOBS else "TF_CONFIG.cluster"
        if job not in _JOBS:
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


# --- The strategy ---


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Over what a training is spread.

    Attributes:
        strategy: `tf.distribute.Strategy`; TensorFlow's default one where there is one device.
        cluster: the workers; None: this one is alone.
    """

    strategy: Any
    cluster: Cluster | None

    @property
    def replicas(self) -> int:
        """Replicas in sync, of all workers."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def local_replicas(self) -> int:
        """Replicas of this worker; TensorFlow demands as many of each."""
        return self.replicas // self.workers

    @property
    def worker(self) -> int:
        """Rank of this worker."""
        return self.cluster.index if self.cluster else 0

    @property
    def workers(self) -> int:
        return self.cluster.count if self.cluster else 1

    @property
    def is_chief(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.worker == 0

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """The rows of all workers' arrays, in the order of their ranks.

        All workers call this, in the same order as other collectives. It goes over the CPUs and the
        network, never over GPUs.

        Args:
            array: [R,…] of bool, int32, int64, float16, float32 or float64; R is the worker's own,
                the rest is the same on all workers.

        Returns:
            [sum of R,…], the same on all workers.
        """
        if self.workers == 1:
            return array
        if array.dtype == bool:
            return self.gather(array.astype(np.int32)).astype(bool)
        # TensorFlow does not promise the order of the parts, and wants them of one shape.
        own = np.array([[self.worker, len(array)]], np.int64)
        ranks, rows = _all_gather(own, self.workers).T
        if not rows.any():
            return array
        padded = np.zeros((rows.max(), *array.shape[1:]), array.dtype)
        padded[: len(array)] = array
        parts = np.split(_all_gather(padded, self.workers), self.workers)
        return np.concatenate([parts[i][: rows[i]] for i in np.argsort(ranks)])


_GATHER_GROUP = 1_000_000
"""Beyond the keys that strategies give their groups of devices, from 1 on."""
_gathers = itertools.count(1)
"""Keys, as each shape and type needs one of its own."""


def _all_gather(array: NDArray[Any], workers: int) -> NDArray[Any]:
    with tf.device("/device:CPU:0"):
        gathered: NDArray[Any] = tf.raw_ops.CollectiveGatherV2(
            input=tf.constant(array), group_size=workers, group_key=_GATHER_GROUP,
            instance_key=next(_gathers), ordering_token=[], communication_hint="ring",
        ).numpy()  # fmt: skip
    return gathered


@contextlib.contextmanager
def connected(training: TrainingConfig) -> Iterator[Distribution]:
    """The devices and workers that train together: what `training.strategy` says, and TF_CONFIG.

    To be entered once in a process, before TensorFlow computes anything. With two or more workers
    in TF_CONFIG it waits for them to come. If one is lost inside of the block, the next collective
    (TensorFlow's or `Distribution.gather`) ends it with an `InputError`; what the block does
    without collectives goes on undisturbed, also when other workers end before.

    Args:
        training: `strategy` and `peer_minutes` are used.

    Raises:
        InputError: TF_CONFIG can not be or contradicts `training.strategy`, a worker that did not
            come in time or was lost.
    """
    cluster = read_cluster(os.environ.get("TF_CONFIG"))
    if cluster is None:
        yield Distribution(_local_strategy(training.strategy), None)
        return
    if training.strategy == "single":
        raise InputError(
            f"training.strategy is 'single', expected auto or mirrored: TF_CONFIG names "
            f"{cluster.count} workers"
        )
    _meet(cluster, training.peer_minutes)
    distribution = Distribution(_connect(cluster), cluster)
    try:
        yield distribution
    except tf.errors.OpError as error:
        line = peer_lost(error, cluster)
        if line is None:
            raise
        raise InputError(line) from error


def _local_strategy(choice: str) -> Any:
    devices = [] if choice == "single" else tf.config.list_logical_devices("GPU")
    if choice == "mirrored" and not devices:
        devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


# --- Workers that do not come ---


def _meet(cluster: Cluster, minutes: float) -> None:
    """Return when each peer was there once: it listens at its address.

    TensorFlow waits too when a strategy is made, but in C++ with Python's lock held: no thread of
    ours can say or end anything, SIGTERM is swallowed, and ten minutes were not enough to see the
    end of it. So nothing of it is started before everybody is there.

    Raises:
        InputError: peers that did not come in time, or this worker's port is taken.
    """
    start = time.monotonic()
    missing, said = cluster.peers, False
    with _listening(cluster):
        while True:
            missing = [rank for rank in missing if not _is_there(cluster.workers[rank])]
            waited = time.monotonic() - start
            left = 60 * minutes - waited
            if not missing:
                return
            if left <= 0:
                raise InputError(
                    f"TF_CONFIG: {cluster.names(missing)} did not come within {minutes:g} minutes "
                    "(training.peer_minutes)"
                )
            if waited > SAY_SECONDS and not said:
                say("train", f"waits for the other workers: {cluster.names(missing)}")
                said = True
            time.sleep(min(POLL_SECONDS, left))


@contextlib.contextmanager
def _listening(cluster: Cluster) -> Iterator[None]:
    """Be there for the peers until TensorFlow's server is, at the same port.

    The system accepts up to `backlog` connections by itself; a peer looks until it saw this worker
    once, and asks for no more.
    """
    _, port = _host_and_port(cluster.workers[cluster.index])
    try:
        server = _server(port, 2 * cluster.count + 16)
    except OSError as error:
        name = cluster.names([cluster.index])
        words = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"TF_CONFIG: this process is {name} and can not listen at that port: {words}"
        ) from None
    with server:
        yield


def _server(port: int, backlog: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
            )
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # the system knows IPv6, but it is off
                raise
    return socket.create_server(("", port), backlog=backlog)


def _is_there(address: str) -> bool:
    try:
        with socket.create_connection(_host_and_port(address), PROBE_SECONDS) as connection:
            # On one machine a connection may, by chance, come from the very port it goes to.
            return bool(connection.getsockname() != connection.getpeername())
    except OSError:
        return False


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _connect(cluster: Cluster) -> Any:
    """TensorFlow's strategy over the workers, who all have come.

    Collectives get no timeout (`CommunicationOptions.timeout_seconds`), which leaves two threads
    behind for each until it is over: 4,500 collectives left 9,000. Peers that are gone are noticed
    without, see `peer_lost`.

    Raises:
        InputError: some went away again.
    """
    _bound_registration(cluster)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        lost = _lost(error.message, cluster)
        if lost is None:
            reason = error.message.splitlines()[0]
            raise InputError(f"TF_CONFIG: the workers can not be connected: {reason}") from error
        raise InputError(
            f"TF_CONFIG: {cluster.names(lost) or 'another worker'} could be reached, but did not "
            f"connect within {CONNECT_SECONDS:g} seconds; expected a worker of this training there"
        ) from error
    finally:
        _take_back_sigterm()


def _bound_registration(cluster: Cluster) -> None:
    """Let no worker wait for more than CONNECT_SECONDS in the making of the strategy.

    The strategy configures TensorFlow's coordination service itself only where that was not done
    before, and then without a timeout. A timeout alone is heeded by all but the chief, who heeds it
    where registration is a barrier. There is no public name for this.
    """
    options = tf.compat.v1.ConfigProto().experimental.coordination_config
    tasks = cluster.tasks
    for job in _JOBS:
        number = sum(one == job for one, _ in tasks)
        if number:
            options.coordinated_job_list.add(name=job, num_tasks=number)
    runtime = tensorflow_context.context()
    runtime.configure_coordination_service(
        service_type="standalone",
        service_leader="/job:{}/replica:0/task:{}".format(*tasks[0]),
        cluster_register_timeout_in_ms=round(1000 * CONNECT_SECONDS),
        coordinated_jobs=list(options.coordinated_job_list),
    )
    runtime.coordination_service.cluster_register_with_barrier = True


def _take_back_sigterm() -> None:
    """Have SIGTERM do what it did: the coordination service catches it, and nothing more."""
    if threading.current_thread() is threading.main_thread():
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


# --- Workers that go away ---

_TASK = r"/job:(\w+)(?:/replica:\d+)?/task:(\d+)"
_LISTED = re.compile(rf"(?:stopped sending heartbeats\)|timed out task names):\s+((?:{_TASK}\s*)+)")
_REMOTE = re.compile(rf"remote target {_TASK}")
_SERVICE = re.compile(r"coordination ?service", re.IGNORECASE)


def peer_lost(error: BaseException, cluster: Cluster) -> str | None:
    """One line about the workers that are gone, if that is what the error tells; else None.

    A worker whose process ends takes the collective that is in flight with it: the others get a
    `tf.errors.UnavailableError` within seconds, where the connection is closed, or else when it has
    sent no heartbeat for 10 seconds, as one that was frozen or cut off. If that is the chief, who
    runs the service of the heartbeats, it may also be a `tf.errors.DeadlineExceededError`. Every
    collective after it fails with the same error; all else goes on to work. A worker that is alive
    and stands still is waited for without an end.

    The workers that are named may have ended because yet another one did.

    Args:
        error: of TensorFlow.
        cluster: of this process.
    """
    lost = _lost(error.message, cluster) if isinstance(error, tf.errors.OpError) else None
    if lost is None:
        return None
    names = cluster.names(lost) or "the connection to the other workers"
    return (
        f"{names} {'were' if len(lost) > 1 else 'was'} lost, which the logs there may explain: "
        "start the job again, it goes on at its last checkpoint"
    )


def _lost(message: str, cluster: Cluster) -> list[int] | None:
    """Ranks of the peers that TensorFlow's message blames; None: it is of something else."""
    ranks = {task: rank for rank, task in enumerate(cluster.tasks)}
    listed, remote = _LISTED.search(message), _REMOTE.search(message)
    if listed:
        found = re.findall(_TASK, listed[1])
    elif remote:
        # Of several, each was told by the one that is named after it.
        found = [remote.groups()]
    elif _SERVICE.search(message):
        found = [cluster.tasks[0]]
    else:
        return None
    blamed = {ranks.get((job, int(task))) for job, task in found} - {cluster.index, None}
    return sorted(rank for rank in blamed if rank is not None)
