"""Workers of a TF_CONFIG: processes of their own, and the addresses that they have.

Run as a program, this file is a worker: `workers.py ACTION SECONDS OVERRIDES`.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer import distribution
from trainer.cluster import Cluster
from trainer.config import Config, TrainingConfig
from trainer.distribution import connected
from trainer.errors import reported

ROOT = Path(__file__).resolve().parents[2]
THREE = Cluster(("a:1", "b:2", "c:3"), index=1, has_chief=True)


def config_text(cluster, kind="worker", index=0, **more):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}} | more)


def run(action, *configs, seconds=60, **training):
    """Run this module as one worker a TF_CONFIG: [(exit status, standard output, error)]."""
    environment = os.environ | {
        "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT),
        # Of which TensorFlow tells at any log level when it is imported; and no GPUs.
        "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = [sys.executable, __file__, action, str(seconds), json.dumps({"training": training})]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        workers = []
        for config in configs:
            worker = subprocess.Popen(command, env=environment | {"TF_CONFIG": config}, **options)
            workers.append(stack.enter_context(worker))
            stack.callback(worker.kill)
        said = [worker.communicate(timeout=60) for worker in workers]
    return [(worker.returncode, *one) for worker, one in zip(workers, said, strict=True)]


@contextlib.contextmanager
def listening(number):
    """Sockets that listen at free ports of this machine."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
            for _ in range(number)
        ]


def address_of(server):
    return f"127.0.0.1:{server.getsockname()[1]}"


def free_addresses(number):
    with listening(number) as servers:
        return [address_of(server) for server in servers]


def two(addresses):
    """TF_CONFIG of chief and worker."""
    cluster = {"chief": addresses[:1], "worker": addresses[1:]}
    return config_text(cluster, "chief"), config_text(cluster)


# --- A worker ---


def strategies():
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    found = {}
    for choice in ("auto", "mirrored", "single"):
        with connected(TrainingConfig(strategy=choice)) as one:
            assert (one.worker, one.workers, one.is_chief, one.cluster) == (0, 1, True, None)
            found[choice] = [type(one.strategy).__name__, one.replicas, one.local_replicas]
    print(json.dumps(found))


def total(found, value):
    """The sum of a value over the replicas of all workers."""

    @tf.function
    def add():
        per_replica = found.strategy.run(lambda: tf.constant(value, tf.float32))
        return found.strategy.reduce("SUM", per_replica, axis=None)

    return float(add())


def add(found):
    rank = found.worker
    print(
        json.dumps(
            {
                "strategy": type(found.strategy).__name__,
                "replicas": found.replicas,
                "local_replicas": found.local_replicas,
                "workers": found.workers,
                "sum": total(found, rank + 1),
                "ranks": found.gather(np.full(rank + 1, rank)).tolist(),
                "rows": found.gather(np.full((rank + 1, 2), [rank, rank + 0.5])).tolist(),
                "hits": found.gather(np.full(rank + 1, rank == 0)).tolist(),
                "none": len(found.gather(np.zeros(0, np.float32))),
                "worker": rank,
                "is_chief": found.is_chief,
            }
        )
    )


def until_lost(found):
    total(found, 1)
    if found.is_chief:
        os.kill(os.getpid(), signal.SIGTERM)
    try:
        while True:
            total(found, 1)
    finally:
        print("cleaned up")


def work(action, seconds, overrides):
    if action == "strategies":
        strategies()
        return
    distribution.CONNECT_SECONDS = float(seconds)
    training = Config().updated(json.loads(overrides)).training
    with reported(), connected(training) as found:
        {"add": add, "until_lost": until_lost}[action](found)


if __name__ == "__main__":
    work(*sys.argv[1:])
