"""Devices and workers that train together, and TensorFlow's strategy over them.

What is said here of TensorFlow was measured with 2.21.0 on CPUs, two and three processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.eager import context as tensorflow_context

from trainer.cluster import JOBS, Cluster, read_cluster
from trainer.config import TrainingConfig
from trainer.errors import InputError
from trainer.peers import lost_ranks, meet, peer_lost

CONNECT_SECONDS = 120.0
"""For TensorFlow's servers to connect, once every worker has come."""


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
    meet(cluster, training.peer_minutes)
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
        lost = lost_ranks(error.message, cluster)
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
    for job in JOBS:
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
