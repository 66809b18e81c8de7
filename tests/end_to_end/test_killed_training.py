"""A training that is killed at random moments ends with the same bytes as one that was not."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from components.statistics.step import run_statistics
from pipeline.compiled_file import compile_target
from pipeline.targets.kubernetes import KubernetesTarget
from tests.conftest import TINY_MODEL
from trainer.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("KILLS", "6"))
EPOCHS = 200
ENVIRONMENT = os.environ | {"PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

OVERRIDES = {
    "data": {"max_frames": 12, "train_frames": 8, "holdout_shards": 1, "shuffle_shards": 2},
    "model": TINY_MODEL | {"dropout": 0.3},
    # A checkpoint every third of a second, and after each validation.
    "training": {"checkpoint_minutes": 0.005, "ema_decay": 0.99, "epochs": EPOCHS,
                 "batch_size": 4, "learning_rate": 0.002, "schedule": "cosine"},
}  # fmt: skip


@pytest.fixture
def inputs(manifest, tmp_path):
    manifest.write(tmp_path / "manifest.json")
    run_statistics(str(tmp_path), str(tmp_path / "statistics"), str(tmp_path / "r.html"), [])
    (tmp_path / "overrides.json").write_text(json.dumps(OVERRIDES))
    return tmp_path


def command(inputs, name, *flags):
    return [sys.executable, "-m", "trainer.task", "--examples", str(inputs),
            "--statistics", str(inputs / "statistics"), "--checkpoints", str(inputs / f"{name}_ck"),
            "--output", str(inputs / name), "--overrides", f"@{inputs / 'overrides.json'}",
            *flags]  # fmt: skip


def start(inputs, name, *flags):
    return subprocess.Popen(
        command(inputs, name, *flags), cwd=ROOT, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE, env=ENVIRONMENT,
    )  # fmt: skip


def tensors(folder):
    """Every tensor of the last checkpoint, by name."""
    newest = max(folder.glob("*/model/checkpoint-*.npz"), key=lambda path: path.stem)
    with np.load(newest) as content:
        return newest.stem[:21], {name: content[name].tobytes() for name in content.files}


def whole_training(inputs):
    """One that nobody kills: its output, its seconds before the first batch and an epoch."""
    begun = time.monotonic()
    process = start(inputs, "whole")
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "full batches" in line:
            at_first_batch = time.monotonic()
    error = process.communicate()[1]
    assert process.returncode == 0, error
    epoch_seconds = (time.monotonic() - at_first_batch) / EPOCHS
    return "".join(seen), at_first_batch - begun, epoch_seconds


@pytest.mark.slow
def test_killed_again_and_again(inputs, capsys):
    """SIGKILL at random moments: while it starts, restores, steps, validates and saves.

    By its progress and by the seconds that this machine needs, so that a fast one is not done
    before the last kill, and a slow one is not killed in its start again and again.
    """
    whole, start_seconds, epoch_seconds = whole_training(inputs)
    moments = random.Random(17)
    places, saving = [], 0
    for number in range(KILLS):
        process = start(inputs, "killed")
        if number % 2:  # while it starts and restores
            time.sleep(moments.uniform(0, start_seconds))
        else:  # while it trains: the first three quarters in even parts
            reached = 0.75 * EPOCHS * number / KILLS
            for line in process.stdout:
                epoch = re.search(r"epoch (\d+): mean loss", line)
                if epoch and int(epoch[1]) >= reached:
                    break
            time.sleep(moments.uniform(0, 4 * epoch_seconds))
        assert process.poll() is None, process.communicate()
        process.kill()
        output = process.communicate()[0]
        places += [line for line in output.splitlines() if "goes on at" in line]
        saving += bool(list(inputs.glob("killed_ck/*/model/.checkpoint*.partial")))
    last = subprocess.run(command(inputs, "killed"), cwd=ROOT, env=ENVIRONMENT, check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert tensors(inputs / "killed_ck") == tensors(inputs / "whole_ck")
    history = [(inputs / name / "history.csv").read_bytes() for name in ("killed", "whole")]
    assert history[0] == history[1]
    assert "goes on at" in last.stdout
    assert "goes on at" not in whole
    with capsys.disabled():
        print(f"\n{KILLS} kills, {saving} of them while a checkpoint was written; it went on at:")
        print("\n".join(place.partition(": ")[2] for place in places))


@pytest.mark.slow
def test_sigterm_saves_when_it_arrives(inputs):
    """With checkpoints an hour apart, exit code 143, and the same end."""
    flags = ("--checkpoint_minutes=60", "--epochs=6")
    process = start(inputs, "killed", *flags)
    for line in process.stdout:
        if "epoch 2: mean loss" in line:
            break
    process.send_signal(signal.SIGTERM)
    rest, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert "SIGTERM: saved after" in rest
    assert "Traceback" not in error
    resumed = start(inputs, "killed", *flags)
    output, error = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, error
    assert "goes on at epoch" in output
    start(inputs, "whole", *flags).communicate(timeout=120)
    assert tensors(inputs / "killed_ck") == tensors(inputs / "whole_ck")


def component_command(inputs, tmp_path):
    """The train step as a cluster runs it: the command of the compiled pipeline."""
    file = tmp_path / "pipeline.yaml"
    compile_target(KubernetesTarget("kubernetes", "nextvlad-cpu:1", "nextvlad-cpu:1"), file)
    (spec, *_) = yaml.safe_load_all(file.read_text())
    container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    flat = {"model": "nextvlad", "epochs": 400, "batch_size": 4, "learning_rate": 0.002, "seed": 0}
    training = {k: v for k, v in OVERRIDES["training"].items() if k not in flat}
    overrides = OVERRIDES | {"training": training | {"checkpoint_minutes": 0.01}}
    executor_input = {
        "inputs": {
            "parameterValues": flat | {
                "data_fingerprint": read_manifest(inputs).fingerprint,
                "checkpoint_root": str(tmp_path / "component_ck"),
                "overrides": json.dumps(overrides),
            },
            "artifacts": {
                "examples": artifact(inputs, "system.Dataset"),
                "example_statistics": artifact(inputs / "statistics", "system.Artifact"),
            },
        },
        "outputs": {
            "artifacts": {
                "trained_model": artifact(tmp_path / "trained_model", "system.Model"),
                "metrics": artifact(tmp_path / "metrics", "system.Metrics"),
            },
            "outputFile": str(tmp_path / "executor_output.json"),
        },
    }  # fmt: skip
    arguments = [
        text.replace("{{$}}", json.dumps(executor_input)) for text in container.get("args", [])
    ]
    return [*container["command"], *arguments]


def artifact(path, kind):
    return {
        "artifacts": [
            {"name": "", "type": {"schemaTitle": kind, "schemaVersion": "0.0.1"},
             "uri": str(path), "metadata": {}}
        ]
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False])
def test_sigterm_to_the_compiled_component(whole_group, inputs, tmp_path):
    """Sent to all its processes it is heeded; the wrapper does not pass it on, but time saves."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        component_command(inputs, tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.STDOUT, start_new_session=True,
        env=ENVIRONMENT | {"PATH": path, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "epoch 3: mean loss" in line:
            break
    else:
        pytest.fail("".join(seen))
    if whole_group:
        os.killpg(process.pid, signal.SIGTERM)
        rest = process.communicate(timeout=60)[0]
        assert process.returncode in (143, -signal.SIGTERM)
        assert "SIGTERM: saved after" in rest
    else:
        process.send_signal(signal.SIGTERM)
        time.sleep(2)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    assert not (tmp_path / "trained_model").exists()
    name, _ = tensors(tmp_path / "component_ck")
    assert int(name[11:21]) >= 3 * 10 - 10
