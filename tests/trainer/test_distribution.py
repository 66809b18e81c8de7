"""The strategies of devices and workers, and what becomes of workers that one of them leaves."""

import json
import signal

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.workers import address_of, config_text, free_addresses, listening, run, two
from trainer.config import TrainingConfig
from trainer.distribution import Distribution, connected
from trainer.errors import InputError


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
    monkeypatch.setenv("TF_CONFIG", two(["a:1", "b:2"])[1])
    words = "^training.strategy is 'single', expected auto or mirrored: TF_CONFIG names 2 workers$"
    with pytest.raises(InputError, match=words), connected(TrainingConfig(strategy="single")):
        pass


@pytest.mark.slow
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


# Workers that do not train, or go away


@pytest.mark.slow
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


@pytest.mark.slow
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
