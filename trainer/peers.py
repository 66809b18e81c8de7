"""Workers that do not come, and workers that go away.

What is said here of TensorFlow was measured with 2.21.0 on CPUs, two and three processes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import time
from collections.abc import Iterator

import tensorflow as tf

from trainer.cluster import Cluster
from trainer.errors import InputError
from trainer.progress import say

POLL_SECONDS, PROBE_SECONDS, SAY_SECONDS = 0.5, 1.0, 5.0
"""Between two looks for the peers; for one of them to answer; until the wait is said."""


# --- Workers that do not come ---


def meet(cluster: Cluster, minutes: float) -> None:
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
    lost = lost_ranks(error.message, cluster) if isinstance(error, tf.errors.OpError) else None
    if lost is None:
        return None
    names = cluster.names(lost) or "the connection to the other workers"
    return (
        f"{names} {'were' if len(lost) > 1 else 'was'} lost, which the logs there may explain: "
        "start the job again, it goes on at its last checkpoint"
    )


def lost_ranks(message: str, cluster: Cluster) -> list[int] | None:
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
