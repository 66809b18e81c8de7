"""`python -m trainer.task`, as a command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.statistics.step import run_statistics
from trainer import task

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def arguments(manifest, tmp_path):
    manifest.write(tmp_path / "manifest.json")
    run_statistics(str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [])
    return ["--examples", str(tmp_path), "--statistics", str(tmp_path / "s"),
            "--checkpoints", str(tmp_path / "ck"), "--output", str(tmp_path / "model")]  # fmt: skip


def test_it_trains(arguments, tmp_path):
    overrides = {
        "data": {"max_frames": 12}, "model": {"name": "logistic", "hidden_size": 0},
        "training": {"epochs": 1, "batch_size": 8},
    }  # fmt: skip
    (tmp_path / "o.json").write_text(json.dumps(overrides))
    task.main([*arguments, "--overrides", f"@{tmp_path / 'o.json'}"])
    assert (tmp_path / "model" / "model.keras").is_file()
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    arguments[arguments.index("--output") + 1] = str(tmp_path / "again")
    changes = '{"training": {"seed": 5}}'
    task.main([*arguments, "--like", str(tmp_path / "model"), "--overrides", changes])
    config["training"]["seed"] = 5
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == config


def test_what_can_not_be_is_one_line(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        task.main([*arguments, "--overrides", '{"training": {"epochs": 0}}'])
    assert exit_.value.code == 1
    assert capsys.readouterr().err == "error: training.epochs is 0, expected at least 1\n"
    with pytest.raises(SystemExit):
        task.main([*arguments, "--epochs", "3"])  # a typo never vanishes
    assert "unrecognized arguments: --epochs 3" in capsys.readouterr().err


def test_it_has_a_help():
    done = subprocess.run(
        [sys.executable, "-m", "trainer.task", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--overrides" in done.stdout
