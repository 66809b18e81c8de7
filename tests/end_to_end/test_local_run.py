"""The DAG on tiny data through KFP's own local runner: results, caches, bad input, interruption."""

import json
import os
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest

from pipeline.training_pipeline import STEPS
from tests.conftest import ROOT
from tests.workplace import Workplace
from trainer.files import read_json
from trainer.models import load_model


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path)


def test_the_whole_dag_and_what_a_second_run_does(workplace):
    done = workplace.run()
    assert workplace.ran(done.stdout) == (list(STEPS), [])
    folder = workplace.last()
    evaluation = read_json(folder / "evaluation" / "evaluation.json")
    assert set(evaluation["metrics"]) == {"model", "baseline", "ceiling"}
    for name, metrics in evaluation["metrics"].items():
        assert 0 < metrics["gap"] <= 1
        assert f"{metrics['gap']:.4f}" in done.stdout, name
    assert (folder / "serving_model" / "saved_model" / "saved_model.pb").is_file()
    assert (folder / "trained_model" / "model.keras").is_file()
    report = (folder / "report.html").read_text()
    for words in ("GAP@20", "Statistics of the data", "Training", "Evaluation", "Parameters"):
        assert words in report
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"|@import|url\((?!#)', report)

    again = workplace.run()
    assert workplace.ran(again.stdout) == (["download"], list(STEPS[1:]))
    assert workplace.last() != folder
    assert read_json(workplace.last() / "evaluation" / "evaluation.json") == evaluation
    assert (workplace.last() / "report.html").is_file()


@pytest.mark.slow
def test_what_runs_again_and_what_does_not(workplace):
    workplace.run()
    # Another learning rate trains anew, on the statistics that are there.
    other = workplace.run("--set", "learning_rate=0.02")
    assert workplace.ran(other.stdout)[0] == ["download", "train", "evaluate", "gate", "export"]

    anew = workplace.run("--no-cache")
    assert workplace.ran(anew.stdout) == (list(STEPS), [])

    # A run whose folder is gone is no earlier result.
    for run in workplace.runs.glob("2*"):
        shutil.rmtree(run)
    fresh = workplace.run()
    assert workplace.ran(fresh.stdout) == (list(STEPS), [])
    assert "was trained already" in fresh.stdout


@pytest.mark.slow
def test_a_model_that_is_not_blessed_ends_well_without_an_export(workplace):
    done = workplace.run("--set", "min_gap=0.999")
    assert workplace.ran(done.stdout)[0] == list(STEPS[:-1])
    assert re.search(
        r"export skipped, because GAP@20 0\.\d{4} is below the required 0\.9990", done.stdout
    )
    assert not (workplace.last() / "serving_model").exists()
    assert "Not exported" in (workplace.last() / "report.html").read_text()


@pytest.mark.slow
def test_a_model_is_its_own_champion(workplace):
    """The evaluation is made anew beside it, and again when its files change."""
    workplace.run("--set", "min_gap=0.0")
    champion = workplace.last() / "trained_model"
    beside = workplace.run("--set", f"champion={champion}")
    assert workplace.ran(beside.stdout)[0] == ["download", "evaluate", "gate"]
    assert "but is not better beyond chance than the champion's" in beside.stdout
    assert "champion (nextvlad)" in beside.stdout
    assert not (workplace.last() / "serving_model").exists()
    again = workplace.run("--set", f"champion={champion}")
    assert workplace.ran(again.stdout)[0] == ["download"]
    (champion / "note.txt").write_text("another file")
    changed = workplace.run("--set", f"champion={champion}")
    assert workplace.ran(changed.stdout)[0] == ["download", "evaluate", "gate"]


@pytest.mark.slow
def test_a_changed_shard_reruns_what_reads_it(workplace, tiny_sample):
    first = workplace.run("--data", str(tiny_sample))
    assert workplace.ran(first.stdout)[0] == list(STEPS)
    shards = sorted((tiny_sample / "train").iterdir())
    shutil.copy(shards[0], shards[1])
    again = workplace.run("--data", str(tiny_sample))
    assert workplace.ran(again.stdout)[0][:4] == list(STEPS[:4])
    assert "goes on" not in again.stdout
    assert "was trained already" not in again.stdout


@pytest.fixture
def copied_code(tmp_path):
    code = tmp_path / "code"
    for name in ("trainer", "components", "pipeline", "requirements", "docker"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    return code


@pytest.mark.slow
def test_an_edited_trainer_never_serves_the_old_model(tmp_path, copied_code):
    workplace = Workplace(tmp_path, copied_code)
    workplace.run()
    before = read_json(workplace.last() / "trained_model" / "training.json")
    losses = copied_code / "trainer" / "losses.py"
    losses.write_text(losses.read_text().replace("return -ops.mean", "return -2 * ops.mean"))
    again = workplace.run()
    assert workplace.ran(again.stdout) == (list(STEPS), [])
    assert "was trained already" not in again.stdout
    after = read_json(workplace.last() / "trained_model" / "training.json")
    ratio = after["model"]["history"][0]["loss"] / before["model"]["history"][0]["loss"]
    assert 1.5 < ratio < 2.5


def test_bad_input_ends_with_one_line_and_nothing_that_looks_whole(workplace, tiny_sample):
    path = tiny_sample / "validate" / "validate0000.tfrecord"
    path.write_bytes(path.read_bytes()[:-5])
    line = workplace.error("--data", str(tiny_sample))
    assert line.startswith(f"error: step download failed: {path}: record 9 (at byte ")
    assert (workplace.runs / ".pipeline" / "data").is_dir()
    assert not list(workplace.runs.rglob("manifest.json"))
    assert not (workplace.last() / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--config", "absent.yaml"), "error: absent.yaml: no such configuration"),
        (("--set", "epoch=3"), "error: unknown parameter 'epoch', expected one of"),
        (("--set", "batch_size=0"), "error: batch_size is 0, expected at least 1"),
        (("--set", "learning_rate=-1"), "error: learning_rate is -1.0, expected more than 0"),
        (("--set", "model.groups=two"), "error: model.groups is 'two' (str), expected a whole"),
        (("--data", "/absent"), "error: step download failed: /absent: no such folder"),
        (("--set", "model=nextvald"), "error: model is 'nextvald', expected one of nextvlad"),
        (("--set", "model.groups=3"), "error: step train failed: model.groups is 3: the 3 groups"),
    ],
)
def test_parameters_that_can_not_be(arguments, words, workplace):
    assert workplace.error(*arguments).startswith(words)


@pytest.mark.slow
def test_an_interrupted_run_can_be_started_again_at_once(workplace):
    """Killed while it trains; the next run goes on at a checkpoint and ends well."""
    many = ("--set", "epochs=60")
    weights = []
    for kind in (signal.SIGTERM, signal.SIGKILL):
        workplace.runs = workplace.folder / kind.name
        interrupt(workplace, many, kind)
        done = workplace.run(*many)
        assert re.search(r"nextvlad: goes on at epoch \d+, step 0", done.stdout)
        trained = workplace.last() / "trained_model"
        history = read_json(trained / "training.json")["model"]["history"]
        assert [row["epoch"] for row in history] == list(range(1, 61))
        weights.append(load_model(trained / "model.keras").weights)
    workplace.runs = workplace.folder / "never interrupted"
    workplace.run(*many)
    whole = load_model(workplace.last() / "trained_model" / "model.keras").weights
    for resumed in weights:
        for one, other in zip(resumed, whole, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy())


def interrupt(workplace, arguments, kind):
    """Start a run, and end it while it trains."""
    process = subprocess.Popen(
        workplace.command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    for line in process.stdout:
        if "epoch 3: mean loss" in line:
            break
    process.send_signal(kind)
    process.stdout.close()
    assert process.wait(timeout=60) != 0
    torn = workplace.last()
    assert not list(torn.glob("artifacts/*/train/trained_model"))


@pytest.mark.slow
def test_two_runs_at_once_both_end_well(workplace):
    processes = [
        subprocess.Popen(workplace.command(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    results = [
        json.loads((run / "evaluation" / "evaluation.json").read_text())["metrics"]
        for run in workplace.runs.glob("2*")
    ]
    assert len(results) == 2
    assert results[0] == results[1]
