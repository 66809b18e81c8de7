"""The measurements run, at the smallest size; what they measure is not tested."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from benchmarks.timing import Timed, machine, time_in_turn
from tests.conftest import ROOT


def start(module, *arguments, **environment):
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def run(module, *arguments, **environment):
    done = start(module, *arguments, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_things_run_in_turn_and_the_first_rounds_do_not_count():
    calls = []
    timed = time_in_turn({n: lambda n=n: calls.append(n) for n in "ab"}, rounds=3, warm_up=1)
    assert "".join(calls) == "abababab"
    assert [len(one.seconds) for one in timed.values()] == [3, 3]


def test_median_and_spread_by_hand():
    one = Timed((4.0, 1.0, 2.0))
    assert one.median == 2.0
    assert one.spread == 0.75  # half of 4 − 1, of 2


def test_the_machine_is_described_in_a_line():
    assert re.fullmatch(r"[^\n]+, \d+ cores, [^\n]+, load [\d.]+ at the start", machine())


@pytest.mark.slow
def test_the_training_step_under_jax():
    output = run(
        "jax_train_step", "--batches", "2", "--frames", "4", "--clusters", "4", "--hidden", "16",
        "--classes", "10", "--peak-size", "64", "--rounds", "1",
        "--forms", "fast", KERAS_BACKEND="jax",
    )  # fmt: skip
    assert re.search(r"^fast +2 +[\d.,]+ +[\d.]+% +[\d.]+%$", output, re.MULTILINE)


def test_a_wrong_backend_is_said():
    done = start("jax_train_step", KERAS_BACKEND="tensorflow")
    assert done.returncode == 2
    assert "set KERAS_BACKEND=jax" in done.stderr


@pytest.mark.slow
def test_the_training_step_of_every_form():
    output = run("train_step", "--batch", "2", "--frames", "5", "--clusters", "64", "--rounds", "1")
    assert len(re.findall(r"^(?:float32|bfloat16) +\w+ +[\d.]+", output, re.MULTILINE)) == 8


@pytest.mark.slow
def test_the_layer_s_forms():
    output = run("layer_forms", "--batch", "2", "--frames", "5", "--rounds", "1")
    assert output.count("K=128") == 4


@pytest.mark.slow
def test_the_memory_of_every_form():
    output = run("memory", "--batch", "2", "--frames", "5", "--clusters", "64")
    assert len(re.findall(r"[\d.]+ GB +[\d.]+ GB", output)) == 6


@pytest.mark.slow
def test_time_to_a_gap(tmp_path):
    output = run(
        "time_to_gap", "sample", "--models", "mean_pooling", "dbof", "--epochs", "1",
        "--output", str(tmp_path),
    )  # fmt: skip
    assert re.search(r"^mean_pooling .* M$", output, re.MULTILINE)
    lines = (tmp_path / "time_to_gap-sample.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["model", "mean_pooling", "dbof"]
    assert "<svg" in (tmp_path / "time_to_gap-sample.svg").read_text()


@pytest.mark.slow
def test_the_statistics_pass():
    output = run(
        "statistics_pass", "--frames", "0", "3", "--shards", "2", "--videos", "20",
        "--rounds", "1", "--times", "2", "--one-core-times", "1",
    )  # fmt: skip
    for level in ("video", "frame"):
        assert re.search(rf"^40 {level}-level records, \d+ MB, one core$", output, re.MULTILINE)
    assert len(re.findall(r"^the pass +[\d,]+ +[\d,]+ +[\d.]+% +1\.00$", output, re.MULTILINE)) == 2
    assert output.count("two") == 2


@pytest.mark.slow
def test_fetching(tmp_path):
    if not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("no nginx here; CI installs one")
    output = run("download", "--rounds", "1", "--gigabytes", "0.01", "--folder", str(tmp_path))
    assert re.search(r"^8 shards of 1.3 MB, 8 at once$", output, re.MULTILINE)
    assert len(re.findall(r"^components.download +[\d,]+ MB/s", output, re.MULTILINE)) == 2
    assert len(re.findall(r"^memory with 16 at once: \d+ MB$", output, re.MULTILINE)) == 2


@pytest.mark.slow
def test_the_export_and_the_server():
    output = run(
        "serving", "--clusters", "8", "--hidden", "16", "--classes", "30", "--frames", "5",
        "--batch", "2", "--rounds", "1", "--clients", "20", "--requests", "40",
    )  # fmt: skip
    assert len(re.findall(r"^(?:direct|auto|exported).* × direct$", output, re.MULTILINE)) == 3
    assert len(re.findall(r"^20 clients, 40 requests: 0 errors, ", output, re.MULTILINE)) == 2
    assert output.count("stopped with exit code 0") == 2
    assert re.search(r"^dynamic batching: [\d.]+ × one at a time$", output, re.MULTILINE)


def test_the_metrics_and_the_bootstrap():
    output = run(
        "evaluation", "--videos", "300", "--rounds", "1", "--resamples", "20",
        "--all-videos", "600",
    )  # fmt: skip
    assert re.search(r"^all metrics +[\d.]+ s  spread [\d.]+%  [\d.]+ ×$", output, re.MULTILINE)
    assert "20 paired resamples of two models" in output
    assert re.search(r"^metrics of 600 videos: [\d.]+ GB at most$", output, re.MULTILINE)
