"""TF_CONFIG, the strategies, and what becomes of workers that do not come or go away.

Run as a program, this file is a worker: `test_distribution.py ACTION SECONDS OVERRIDES`.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import distribution
from trainer.cluster import Cluster, read_cluster
from trainer.config import Config, TrainingConfig
from trainer.distribution import Distribution, connected
from trainer.errors import InputError, reported
from trainer.peers import peer_lost

ROOT = Path(__file__).resolve().parents[2]
THREE = Cluster(("a:1", "b:2", "c:3"), index=1, has_chief=True)
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


def config_text(cluster, kind="worker", index=0, **more):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}} | more)


# --- TF_CONFIG ---


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_no_variable_is_no_cluster(text):
    assert read_cluster(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            config_text(
                {"chief": ["pool0-0:2222"], "worker": ["pool1-0:2222", "pool1-1:2222"]},
                index=1, environment="cloud", job="{}",
            ),
            Cluster(("pool0-0:2222", "pool1-0:2222", "pool1-1:2222"), 2, True),
        ),
        (
            config_text({"worker": ["w:2"], "chief": ["c.x-y.z.:1"], "ps": []}, "chief", "0"),
            Cluster(("c.x-y.z.:1", "w:2"), 0, True),
        ),
        (
            config_text({"worker": ["127.0.0.1:65535", "[::1]:1"]}, index="01"),
            Cluster(("127.0.0.1:65535", "[::1]:1"), 1, False),
        ),
        (config_text({"chief": ["127.0.0.1:2222"]}, "chief"), None),
        (config_text({"worker": ["localhost:2222"]}), None),
    ],
)  # fmt: skip
def test_a_cluster_is_read_in_the_order_of_ranks(text, expected):
    assert read_cluster(text) == expected


def test_what_follows_from_a_rank():
    assert (THREE.count, THREE.is_chief, THREE.peers) == (3, False, [0, 2])
    assert THREE.tasks == [("chief", 0), ("worker", 0), ("worker", 1)]
    workers = Cluster(("a:1", "b:2"), 0, has_chief=False)
    assert workers.is_chief
    assert workers.tasks == [("worker", 0), ("worker", 1)]


TWO = {"chief": ["a:1"], "worker": ["b:2"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "TF_CONFIG is '{', expected JSON (Expecting"),
        ("[" * 100_000, "expected JSON (maximum recursion"),
        ("9" * 5000, "expected JSON (Exceeds the limit"),
        ("[]", "TF_CONFIG is [], expected a JSON object"),
        ("{}", "TF_CONFIG.cluster is None, expected an object of the addresses of chief"),
        (config_text({}), "TF_CONFIG.cluster is {}, expected"),
        (config_text({"worker": []}), "TF_CONFIG.cluster is {'worker': []}, expected"),
        (config_text(["a:1"]), "TF_CONFIG.cluster is ['a:1'], expected an object"),
        (config_text(TWO | {"ps": ["c:3"]}), "there are no parameter servers or evaluators here"),
        (config_text(TWO | {"evaluator": ["c:3"]}), "expected chief and worker alone"),
        (config_text({"master": ["a:1"]}, "master"), "expected chief and worker alone"),
        (config_text({"worker": "a:1"}), "TF_CONFIG.cluster.worker is 'a:1', expected a list"),
        (config_text({"worker": {"0": "a:1"}}), "expected a list of host:port"),
        (config_text(TWO | {"chief": ["a:1", "c:3"]}), "is ['a:1', 'c:3'], expected one address"),
        (config_text(TWO | {"worker": ["a:1"]}), "TF_CONFIG.cluster has a:1 twice"),
        (config_text({"worker": ["b:2", "b:2"]}), "TF_CONFIG.cluster has b:2 twice"),
        (json.dumps({"cluster": TWO}), "TF_CONFIG.task is None, expected an object of type"),
        (config_text(TWO, None), "TF_CONFIG.task.type is None, expected chief or worker"),
        (config_text(TWO, ["chief"]), "TF_CONFIG.task.type is ['chief'], expected"),
        (config_text(TWO, "evaluator"), "TF_CONFIG.task.type is 'evaluator', expected chief or"),
        (config_text({"worker": ["b:2"]}, "chief"), "is 'chief', expected worker, as"),
        (config_text(TWO, index=1), "TF_CONFIG.task.index is 1, expected a whole number of 0 to 0"),
        (config_text(TWO, index=-1), "TF_CONFIG.task.index is -1"),
        (config_text(TWO, index=True), "TF_CONFIG.task.index is True"),
        (config_text(TWO, index=0.0), "TF_CONFIG.task.index is 0.0"),
        (config_text(TWO, index="x"), "TF_CONFIG.task.index is 'x'"),
        (config_text(TWO, index="٠"), "TF_CONFIG.task.index is '٠'"),
        (config_text(TWO, index=None), "TF_CONFIG.task.index is None"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(text, words):
    with pytest.raises(InputError) as caught:
        read_cluster(text)
    message = str(caught.value)
    assert words in message
    assert message.startswith("TF_CONFIG")
    assert len(message) < 300
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "address",
    [
        "a", "a:", ":1", "a:0", "a:65536", "a:-1", "a:1x", "a b:1", "a..b:1", "http://a:1", "a:1\n",
        "::1:1", "x" * 64 + ":1", ".".join(["x" * 60] * 5) + ":1", "ä:1", 1, None, ["a:1"],
    ],
)  # fmt: skip
def test_an_address_is_host_and_port(address):
    with pytest.raises(InputError, match=r"^TF_CONFIG\.cluster\.chief is .*, expected host:port"):
        read_cluster(config_text(TWO | {"chief": [address]}))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ADDRESSES = st.lists(st.from_regex(r"[ab]\.?:[0-9]{1,5}", fullmatch=True) | VALUES, max_size=3)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "cluster": VALUES
        | st.dictionaries(st.sampled_from(["chief", "worker", "ps"]), ADDRESSES | VALUES),
        "task": VALUES
        | st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["chief", "worker", "evaluator"]) | VALUES,
                "index": st.integers(-1, 3) | st.sampled_from(["0", "1"]) | VALUES,
            },
        ),
    },
)


@settings(max_examples=500, deadline=None)
@given(text=st.text() | VALUES.map(json.dumps) | NEARLY.map(json.dumps))
def test_any_text_is_a_cluster_or_none_or_one_line(text):
    try:
        found = read_cluster(text)
    except InputError as error:
        assert str(error).startswith("TF_CONFIG")  # noqa: PT017
    else:
        assert found is None or (found.count >= 2 and 0 <= found.index < found.count)


# --- The strategy ---


def run(action, *configs, seconds=60, **training):
    """Run this file as one worker a TF_CONFIG: [(exit status, standard output, error)]."""
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


def test_strategies_of_one_machine():
    alone = config_text({"chief": ["127.0.0.1:2222"]}, "chief", environment="cloud")
    ((status, output, errors),) = run("strategies", alone)
    assert status == 0, errors
    assert json.loads(output.splitlines()[-1]) == {
        "auto": ["_DefaultDistributionStrategy", 1, 1],
        "mirrored": ["MirroredStrategy", 2, 2],
        "single": ["_DefaultDistributionStrategy", 1, 1],
    }


def test_one_worker_gathers_its_own():
    alone = Distribution(tf.distribute.get_strategy(), None)
    assert (alone.worker, alone.workers, alone.is_chief, alone.replicas) == (0, 1, True, 1)
    np.testing.assert_array_equal(alone.gather(np.arange(3)), [0, 1, 2])


def test_a_single_device_contradicts_a_cluster(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config_text(TWO))
    words = "^training.strategy is 'single', expected auto or mirrored: TF_CONFIG names 2 workers$"
    with pytest.raises(InputError, match=words), connected(TrainingConfig(strategy="single")):
        pass


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


def test_two_workers_add_and_gather():
    found = []
    for status, output, errors in run("add", *two(free_addresses(2))):
        assert (status, errors) == (0, "")
        found.append(json.loads(output.splitlines()[-1]))
    both = {
        "strategy": "CollectiveAllReduceStrategy", "replicas": 2, "local_replicas": 1, "workers": 2,
        "sum": 3.0, "ranks": [0, 1, 1], "rows": [[0.0, 0.5], [1.0, 1.5], [1.0, 1.5]],
        "hits": [True, False, False], "none": 0,
    }  # fmt: skip
    assert found == [both | {"worker": rank, "is_chief": rank == 0} for rank in (0, 1)]


# --- Workers that do not come ---


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


def test_a_peer_that_does_not_train_is_named():
    own = free_addresses(2)
    with listening(2) as servers:
        chief = two([own[0], address_of(servers[0])])[0]
        other = two([address_of(servers[1]), own[1]])[1]
        for rank, (status, output, errors) in enumerate(run("add", chief, other, seconds=1)):
            assert (status, output) == (1, "")
            assert errors == (
                f"error: TF_CONFIG: worker {1 - rank} at {address_of(servers[rank])} could be "
                "reached, but did not connect within 1 seconds; expected a worker of this training "
                "there\n"
            )


# --- Workers that go away ---


def test_a_worker_that_is_killed_is_named():
    # SIGTERM, so that this also shows that TensorFlow does not keep it to itself.
    addresses = free_addresses(2)
    (killed, *_), (status, output, errors) = run("until_lost", *two(addresses))
    assert killed == -signal.SIGTERM
    assert status == 1
    assert errors == (
        f"error: worker 0 at {addresses[0]} was lost, which the logs there may explain: start the "
        "job again, it goes on at its last checkpoint\n"
    )
    assert output == "cleaned up\n"


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
