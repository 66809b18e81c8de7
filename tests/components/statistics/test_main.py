"""The command line: the pass alone, and the comparison of two."""

import csv
import dataclasses
import json
import re
import subprocess
import sys

import pytest

from components.statistics.__main__ import main
from components.statistics.diff import diff_statistics
from tests.browser import look, needs_browser
from tests.conftest import ROOT, frame_video
from trainer import records
from trainer.errors import InputError
from trainer.manifest import Shard


@pytest.fixture
def two(manifest, tmp_path, capsys, no_drawing):
    """Statistics of the sample, and of it with a shard more of other videos."""
    (tmp_path / "a_data").mkdir()
    manifest.write(tmp_path / "a_data" / "manifest.json")
    import numpy as np

    rng = np.random.default_rng(0)
    path = tmp_path / "train9.tfrecord"
    videos = [frame_video(rng, 3, [11], f"new{i}") for i in range(40)]
    count = records.write_records(path, map(records.encode, videos))
    more = Shard("train", str(path), path.stat().st_size, "", count)
    (tmp_path / "b_data").mkdir()
    shards = (*(s for s in manifest.shards if s.split == "train"), more)
    dataclasses.replace(manifest, shards=shards).write(tmp_path / "b_data" / "manifest.json")
    for name in "ab":
        main(["--examples", str(tmp_path / f"{name}_data"), "--output", str(tmp_path / name)])
    capsys.readouterr()
    return tmp_path


@pytest.mark.slow
def test_the_pass_alone(manifest, tmp_path, capsys):
    manifest.write(tmp_path / "manifest.json")
    main(
        ["--examples", str(tmp_path), "--output", str(tmp_path / "s"), "--covariance=true",
         "--split_drift_warning", "0.2", "--", "--direct_num_workers=1"]
    )  # fmt: skip
    facts = json.loads((tmp_path / "s" / "statistics.json").read_text())
    assert facts["thresholds"]["split_drift_warning"] == 0.2
    assert (tmp_path / "s" / "pca.npz").exists()
    assert (tmp_path / "s.html").exists()
    assert "read 68 records" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "s"], "the following arguments are required: --examples"),
        (["--examples", "absent", "--output", "s"], "absent: no such file"),
        (["--examples", ".", "--output", "s", "--split_drift=1"], "unknown flag --split_drift,"),
        (["--examples", ".", "--output", "s", "--corrupt_share", "2"], "corrupt_share is 2.0, exp"),
        (["diff", "a"], "the following arguments are required: B"),
        (["diff", "absent", "b"], "absent/statistics.json: no such file"),
    ],
)
def test_what_can_not_be_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not (tmp_path / "s").exists()


def test_help_names_every_threshold():
    done = subprocess.run(
        [sys.executable, "-m", "components.statistics", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--run_label_drift_error X" in done.stdout
    assert "diff A B" in done.stdout


def test_two_runs_side_by_side(two, capsys):
    main(["diff", str(two / "a"), str(two / "b"), "--report", str(two / "diff.html")])
    output = capsys.readouterr().out
    train = output.partition("\nall ")[0]
    rows = {re.split(r"\s{2,}", line)[0]: line.split() for line in train.splitlines()}
    assert rows["videos"][-3:] == ["48", "88", "+40"]
    assert rows["labels a video"][-1].startswith("-")
    assert rows["constant dimensions"][-1] == "="
    with (two / "a" / "classes.csv").open() as file:
        name = [row["name"] for row in csv.DictReader(file)][11]
    assert f"most (change of share): {name} +" in output
    assert "only in A: validate" in output
    assert output.rstrip().endswith(f"page  {two / 'diff.html'}")
    html = (two / "diff.html").read_text()
    assert "Split: train" in html
    assert "Drift: train, B against A" in html


@needs_browser
def test_the_page_of_a_comparison(two, tmp_path):
    diff_statistics(str(two / "a"), str(two / "b"), two / "diff.html")
    seen = look(two / "diff.html", 500, tmp_path)
    assert seen.width <= seen.window
    assert seen.resources == 0
    assert not seen.complaints


def test_equal_runs_are_equal(two):
    output = diff_statistics(str(two / "a"), str(two / "a"))
    assert "+" not in output.partition("feature drift")[0]
    assert "feature drift: 0 of 1,152 dimensions beyond chance" in output


def test_what_can_not_be_compared(two):
    facts = json.loads((two / "b" / "statistics.json").read_text())
    (two / "b" / "statistics.json").write_text(json.dumps(facts | {"num_classes": 99}))
    with pytest.raises(InputError, match="b: num_classes is 99, expected 12 as in"):
        diff_statistics(str(two / "a"), str(two / "b"))
