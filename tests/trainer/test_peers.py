"""Workers that do not come, and whom TensorFlow's messages blame for what is lost."""

import re

import pytest
import tensorflow as tf

from tests.trainer.workers import (
    THREE,
    address_of,
    config_text,
    free_addresses,
    listening,
    run,
    two,
)
from trainer.cluster import Cluster
from trainer.config import TrainingConfig
from trainer.distribution import connected
from trainer.errors import InputError
from trainer.peers import peer_lost

# Messages of TensorFlow 2.21.0, as it wrote them but for ports.
CLOSED = """Graph execution error:
Collective ops is aborted by: Socket closed
Additional GRPC error information from remote target /job:worker/replica:0/task:1 while calling \
/tensorflow.WorkerService/RecvBuf:
:UNKNOWN:Error received from peer  {grpc_message:"Socket closed", grpc_status:14}
The error could be from a previous operation. Restart your program to reset.
\t [[{{node CollectiveReduceV2}}]] [Op:__inference_step_36]"""
TOLD = """Collective ops is aborted by: Collective ops is aborted by: recvmsg:Connection reset by \
peer
Additional GRPC error information from remote target /job:chief/replica:0/task:0 while calling \
/tensorflow.WorkerService/CompleteInstance:
:UNKNOWN:Error received from peer  {grpc_message:"recvmsg:Connection reset by peer", grpc_status:14}
The error could be from a previous operation. Restart your program to reset.
Additional GRPC error information from remote target /job:worker/replica:0/task:1 while calling \
/tensorflow.WorkerService/RecvBuf:"""
SILENT = """Collective ops is aborted by: Error reported from /job:worker/task:1: The following \
tasks are unhealthy (stopped sending heartbeats):
/job:worker/replica:0/task:0
/job:worker/replica:0/task:1
The tasks have crashed. Check the task logs for an earlier error, or scheduler events (e.g. \
preemption, eviction) to debug further."""
FROZEN = """Collective ops is aborted by: Deadline Exceeded

RPC: /tensorflow.CoordinationService/Heartbeat
The error could be from a previous operation. Restart your program to reset."""
NO_CHIEF = """Collective ops is aborted by: Failed to send RPC to coordination service. Either the \
leader task was preempted/died/restarted unexpectedly or this task is experiencing network issues.
Additional GRPC error information from remote target /job:chief/replica:0/task:0 while calling \
/tensorflow.CoordinationService/Heartbeat:"""


# --- Workers that do not come ---


def test_a_port_that_is_taken_is_named(monkeypatch):
    with listening(1) as (server,):
        address = address_of(server)
        monkeypatch.setenv("TF_CONFIG", two([address, "127.0.0.1:1"])[0])
        words = (
            f"TF_CONFIG: this process is worker 0 at {address} and can not listen at that port: "
            "Address already in use"
        )
        with pytest.raises(InputError, match=f"^{words}$"), connected(TrainingConfig()):
            pass


@pytest.mark.slow
def test_a_peer_that_never_comes_is_named():
    missing, own = free_addresses(2)
    with listening(1) as (server,):
        cluster = {"worker": [address_of(server), missing, own]}
        ((status, output, errors),) = run("add", config_text(cluster, index=2), peer_minutes=0.1)
    assert status == 1
    assert errors == (
        f"error: TF_CONFIG: worker 1 at {missing} did not come within 0.1 minutes "
        "(training.peer_minutes)\n"
    )
    assert output == f"[train] waits for the other workers: worker 1 at {missing}\n"


# --- Workers that go away ---


@pytest.mark.parametrize(
    ("kind", "message", "names"),
    [
        (tf.errors.UnavailableError, CLOSED, "worker 2 at c:3 was"),
        (tf.errors.UnavailableError, TOLD, "worker 0 at a:1 was"),
        (tf.errors.UnavailableError, SILENT, "worker 2 at c:3 was"),
        (tf.errors.DeadlineExceededError, FROZEN, "worker 0 at a:1 was"),
        (tf.errors.UnavailableError, NO_CHIEF, "worker 0 at a:1 was"),
    ],
)
def test_who_is_lost(kind, message, names):
    assert peer_lost(kind(None, None, message), THREE) == (
        f"{names} lost, which the logs there may explain: start the job again, it goes on at its "
        "last checkpoint"
    )


def test_several_are_lost_or_this_one_lost_touch():
    chief = Cluster(THREE.workers, 0, has_chief=True)
    line = peer_lost(tf.errors.UnavailableError(None, None, SILENT), chief)
    assert re.match("worker 1 at b:2, worker 2 at c:3 were lost", line)
    line = peer_lost(tf.errors.DeadlineExceededError(None, None, FROZEN), chief)
    assert re.match("the connection to the other workers was lost", line)


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.InvalidArgumentError(None, None, "assertion failed: [x]"),
        tf.errors.UnavailableError(None, None, "Collective ops is aborted by: no such disk"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
        ValueError(CLOSED),
    ],
)
def test_other_errors_are_of_no_peer(error):
    assert peer_lost(error, THREE) is None
