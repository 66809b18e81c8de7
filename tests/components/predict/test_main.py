"""The command: what can not be is one line, and a signal leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from components.predict.__main__ import main
from tests.conftest import ROOT
from tests.error_line import error_line
from trainer import records

COMMAND = [sys.executable, "-m", "components.predict"]


def test_the_command(frame_folder, shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["--model", str(frame_folder), "--data", str(shards), "--segments", "--top-k=2"])
    (output,) = (tmp_path / "predictions").iterdir()
    assert (output / "segments.csv").is_file()
    assert "videos/s, GAP@20 0." in capsys.readouterr().out
    main(["--model", str(frame_folder), "--data", str(shards), "--output", "o", "--engine", "beam",
          "--", "--direct_num_workers=1"])  # fmt: skip
    assert (tmp_path / "o" / "predictions.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--modle", "x"], "unknown flag --modle, --help has all; did you mean --model?"),
        (["--model"], "expected one argument"),
        (["--batch-size", "many"], "invalid int value: 'many'"),
        (["--runs", "absent"], "absent: no run there has serving_model"),
        (["--model", "absent"], "absent: is no exported model"),
        (["--data", "x", "--", "--runner=Flink"], "workers and Beam's options are of --engine"),
    ],
)
def test_what_can_not_be_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert words in error_line(main, arguments, capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("engine", [[], ["--engine=beam"], ["--engine=beam", "--workers=2"]])
def test_a_signal_ends_it_with_one_line_and_nothing_written(
    engine, number, frame_folder, shards, tmp_path
):
    payloads = [record.payload for record in records.read_records(shards / "a.tfrecord")]
    records.write_records(shards / "a.tfrecord", payloads * 5000)
    process = subprocess.Popen(
        [*COMMAND, "--model", str(frame_folder), "--data", str(shards), "--output",
         str(tmp_path / "out" / "x"), *engine],
        cwd=ROOT, env=os.environ | {"PROGRESS_SECONDS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    begun = ("shards of", "workers score") if engine[1:] else ("shards of", " videos", " MB")
    seen = ""
    while process.poll() is None and not any(one in seen for one in begun[1:]):
        seen += process.stdout.readline()
    time.sleep(1)
    process.send_signal(number)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, seen + output + error
    last = output.splitlines()[-1]
    assert last == f"[predict] ended by {signal.Signals(number).name}: nothing was written"
    assert "Traceback" not in error
    assert not list((tmp_path / "out").iterdir())
    # Nor is a worker left, once what ends with the process has seen that it did.
    for _ in range(300):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a process of its group is left")
