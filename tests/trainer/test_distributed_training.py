"""One training on one device, on two devices and on two processes: the same loss curve."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from components.statistics.step import run_statistics
from tests.conftest import TINY_MODEL
from tests.trainer.shards import spoil
from trainer.config import DataConfig, TrainingConfig
from trainer.example_order import ExampleOrder
from trainer.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}
TWO_DEVICES = """
import sys, tensorflow as tf
device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
from trainer import task
task.main(sys.argv[1:])
"""
STEPS = 6
"""Of an epoch: 48 videos, 8 a batch."""


@pytest.fixture
def inputs(manifest, tmp_path):
    manifest.write(tmp_path / "manifest.json")
    run_statistics(str(tmp_path), str(tmp_path / "statistics"), str(tmp_path / "r.html"), [])
    return tmp_path


def start(inputs, name, *flags, program=("-m", "trainer.task"), environment=ENVIRONMENT):
    overrides = {
        "data": {"max_frames": 12},
        "model": TINY_MODEL | {"dropout": 0.0},
        # Every step is validated, without anything to score: so the history has each loss.
        "training": {"epochs": 9, "batch_size": 8, "learning_rate": 0.001, "clip_norm": 0.5,
                     "validations": STEPS},
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, *program, "--examples", str(inputs),
         "--statistics", str(inputs / "statistics"), "--checkpoints", str(inputs / f"{name}_ck"),
         "--output", str(inputs / name), "--overrides", json.dumps(overrides), *flags],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start_workers(inputs, name, *flags):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    cluster = {"chief": addresses[:1], "worker": addresses[1:]}
    return [
        start(
            inputs, name, *flags,
            environment=ENVIRONMENT | {
                "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": 0}})
            },
        )
        for kind in ("chief", "worker")
    ]  # fmt: skip


def end(*processes, code=0, seconds=240):
    outputs = []
    for process in processes:
        output, error = process.communicate(timeout=seconds)
        assert process.returncode == code, output + error
        outputs.append(output)
    return outputs


def rows(inputs, name):
    with (inputs / name / "history.csv").open() as file:
        return list(csv.DictReader(file))


def losses(inputs, name):
    return np.array([float(row["loss"]) for row in rows(inputs, name)])


@pytest.mark.slow
def test_the_curve_of_two_devices_and_of_two_workers_is_that_of_one(inputs):
    alone = start(inputs, "alone")
    (output,) = end(alone)
    assert "replicas" not in output
    expected = losses(inputs, "alone")
    assert len(expected) == 54
    assert expected[-1] < 0.9 * expected[0]
    mirrored = start(inputs, "mirrored", "--strategy=mirrored", program=("-c", TWO_DEVICES))
    (output,) = end(mirrored)
    assert "over 2 replicas" in output
    np.testing.assert_allclose(losses(inputs, "mirrored"), expected, rtol=1e-4)
    chief, worker = end(*start_workers(inputs, "workers"))
    assert "over 2 replicas" in chief
    assert "over 2 replicas" in worker
    np.testing.assert_allclose(losses(inputs, "workers"), expected, rtol=1e-4)
    assert (inputs / "workers" / "model.keras").is_file()


@pytest.mark.slow
def test_two_workers_validate_and_go_on_together(inputs):
    """Held-out shards are shared; after SIGTERM to one both end, and go on at the same step."""
    flags = ("--holdout_shards=1", "--epochs=300", "--validations=1", "--checkpoint_minutes=0.01")
    end(start(inputs, "alone", *flags[:1], "--epochs=3", "--validations=1"))
    both = start_workers(inputs, "alone3", *flags[:1], "--epochs=3", "--validations=1")
    end(*both)
    gaps = [[float(row["holdout_gap"]) for row in rows(inputs, n)] for n in ("alone", "alone3")]
    np.testing.assert_allclose(gaps[1], gaps[0], atol=1e-3)
    chief, worker = start_workers(inputs, "workers", *flags)
    for line in chief.stdout:
        if "epoch 4: mean loss" in line:
            break
    worker.send_signal(signal.SIGTERM)
    outputs = end(chief, worker, code=143)
    saved = [re.search("SIGTERM: saved after ([0-9,]+) steps", output)[1] for output in outputs]
    assert saved[0] == saved[1]
    chief, worker = start_workers(inputs, "workers", *flags)
    seen = [next(line for line in one.stdout if "goes on at" in line) for one in (chief, worker)]
    assert seen[0] == seen[1]
    # One that is killed ends the other, which says so.
    time.sleep(1)
    worker.kill()
    output, error = chief.communicate(timeout=120)
    assert chief.returncode == 1, output + error
    assert "error: worker 1 at 127.0.0.1:" in error
    assert "was lost" in error
    worker.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_damaged_record_of_one_worker_ends_both(rank, inputs):
    """In the third step: the one names the record, the other one whom it lost."""
    shards = read_manifest(inputs).split("train")
    data, seed = DataConfig(), TrainingConfig().seed
    counts = [shard.records for shard in shards]
    order = ExampleOrder(counts, seed, data.shuffle_shards, data.read_block)
    # Of each batch of eight the chief has the first four, the worker the others.
    number, record = order.locate(0, 2 * 8 + 4 * rank, 4)[1].tolist()
    spoil(shards[number], record)
    processes = start_workers(inputs, "workers")
    try:
        ended = [process.communicate(timeout=120) for process in processes]
    finally:  # one that hangs shall not outlive the test
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [1, 1], ended
    last = [errors.splitlines()[-1] for _, errors in ended]
    assert last[rank].startswith(f"error: {shards[number].path}: record {record} (at byte ")
    assert last[rank].endswith("does not match: damaged")
    assert last[1 - rank].startswith(f"error: worker {rank} at 127.0.0.1:")
    assert "was lost" in last[1 - rank]
    for output, errors in ended:
        assert "Traceback" not in errors
        # Both were on their way, and neither takes the model for trained.
        assert output.count("epoch 1: mean loss") == 2
        assert "written" not in output
    assert not [path for path in inputs.iterdir() if path.name.startswith(".workers.")]
    assert not (inputs / "workers").exists()
