"""The smoke test passes on a cluster that does what it should, and fails on one that does not."""

import io

import pytest
import yaml

from pipeline.clusters import smoke
from tests.workplace import CONFIGURATION
from trainer.errors import InputError


@pytest.mark.slow
def test_on_a_server_that_runs_the_dag(server, tmp_path, capsys):
    server.execute = True
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    smoke.main(
        ["--config", str(tmp_path / "tiny.yaml"), "--host", server.host, "--image", "x/{kind}:1",
         "--runs", str(tmp_path / "runs"), "--set", f"destination={tmp_path}/shared",
         "--kfp", f"volumes=claim:{tmp_path}"]
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines if not line.startswith(("smoke", " "))] == ["ok  "] * 4
    assert not list((tmp_path / "shared").iterdir())


def test_what_is_wrong_is_said_and_the_others_are_run(tmp_path):
    def wrong():
        raise InputError("metrics differ")

    terminal = io.StringIO()
    checks = {"one": wrong, "two": lambda: print("noise") or "seen"}
    assert not smoke.report(checks, terminal, tmp_path / "log")
    lines = terminal.getvalue().splitlines()
    assert [lines[0][:4], lines[1].strip(), lines[2][:4]] == ["FAIL", "metrics differ", "ok  "]
    assert (tmp_path / "log").read_text() == "noise\n"
    assert smoke.report({"two": lambda: "seen"}, terminal, tmp_path / "log")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "SET=destination=… is missing"),
        (["--set", "destination=/tmp/x-nextvlad"], "IMAGE is missing"),
    ],
)
def test_what_is_missing(arguments, words, capsys):
    with pytest.raises(SystemExit):
        smoke.main(["--host", "http://localhost:1", *arguments])
    assert words in capsys.readouterr().err
