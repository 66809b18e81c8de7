"""`python -m trainer.task`, as a command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from components.statistics.step import run_statistics
from trainer import task
from trainer.config import Config
from trainer.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ["--examples=e", "--statistics=s", "--checkpoints=c", "--output=o"]


@pytest.fixture
def arguments(manifest, tmp_path):
    manifest.write(tmp_path / "manifest.json")
    run_statistics(str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [])
    return ["--examples", str(tmp_path), "--statistics", str(tmp_path / "s"),
            "--checkpoints", str(tmp_path / "ck"), "--output", str(tmp_path / "model")]  # fmt: skip


def configuration(*arguments):
    return task.configuration(task.make_parser().parse([*FOLDERS, *arguments]))


def test_it_trains(arguments, tmp_path):
    overrides = {"data": {"max_frames": 12}, "model": {"name": "logistic"}}
    (tmp_path / "o.json").write_text(json.dumps(overrides))
    flags = ["--overrides", f"@{tmp_path / 'o.json'}", "--epochs=1", "--batch_size=8"]
    task.main([*arguments, *flags, "--model.hidden_size", "0"])
    assert (tmp_path / "model" / "model.keras").is_file()
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["training"]["epochs"] == 1
    arguments[arguments.index("--output") + 1] = str(tmp_path / "again")
    task.main([*arguments, "--like", str(tmp_path / "model"), "--seed", "5"])
    config["training"]["seed"] = 5
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == config


def test_each_source_goes_over_the_one_before(tmp_path):
    """Default, --like, --config, --overrides, flag: each sets what those after it leave alone."""
    trained = Config().updated(
        {"training": {"epochs": 2, "seed": 2, "warmup": 0.2, "decay": 0.2}, "data": {"readers": 2}}
    )
    (tmp_path / "config.json").write_text(json.dumps(trained.as_dict() | {"level": "video"}))
    file = tmp_path / "run.yaml"
    file.write_text("{epochs: 3, seed: 3, overrides: {training: {warmup: 0.3}}, destination: x}")
    overrides = '{"training": {"epochs": 4, "seed": 4}}'
    sources = ["--like", str(tmp_path), "--config", str(file), "--overrides", overrides]
    assert configuration("--epochs=5", *sources) == Config().updated(
        {
            "training": {"epochs": 5, "seed": 4, "warmup": 0.3, "decay": 0.2},
            "data": {"readers": 2},
        }
    )
    assert configuration(*sources[:4]).training.epochs == 3
    assert configuration() == Config()


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline" / "configs").glob("*.yaml")))
def test_the_pipeline_s_files_are_taken(path):
    assert configuration("--config", str(path), "--max_frames=9").data.max_frames == 9


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "expected the sections data, model, training"),
        ('{"data": {}}', "expected the sections data, model, training"),
        ("{", "expected JSON"),
        (
            '{"data": {}, "model": {"group": 3}, "training": {}}',
            "unknown parameter model.group",
        ),
    ],
)
def test_a_folder_that_is_no_trained_model_s(content, words, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(f"{path}: {words}")):
        configuration("--like", str(tmp_path))


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            ["--overrides", '{"training": {"epochs": 0}}'],
            "training.epochs is 0, expected at least 1",
        ),
        (["--epochs", "0"], "training.epochs is 0, expected at least 1"),
        (["--epoch", "3"], "unknown flag --epoch, --help has all; did you mean --epochs?"),
        (["--overrides", "@absent.json"], "absent.json: No such file or directory"),
        (["--output"], "argument --output: expected one argument"),
    ],
)
def test_what_can_not_be_is_one_line(flags, line, capsys):
    with pytest.raises(SystemExit) as exit_:
        task.main([*FOLDERS, *flags])
    assert exit_.value.code == 1
    assert capsys.readouterr().err == f"error: {line}\n"


def test_folders_are_required(capsys):
    with pytest.raises(SystemExit):
        task.main(FOLDERS[1:])
    assert capsys.readouterr().err == "error: the following arguments are required: --examples\n"


def test_it_has_a_help():
    done = subprocess.run(
        [sys.executable, "-m", "trainer.task", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for flag in ("--overrides", "--config", "--learning_rate"):
        assert flag in done.stdout
    assert max(map(len, done.stdout.partition("\n\n")[0].splitlines())) <= 80
