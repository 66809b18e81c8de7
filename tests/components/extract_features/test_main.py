"""The command: exit codes, what can not be in one line, signals that leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.extract_features.__main__ import PARTLY, main
from tests.conftest import ROOT
from tests.error_line import error_line

COMMAND = [sys.executable, "-m", "components.extract_features"]


@pytest.mark.usefixtures("quick")
def test_the_command(listed, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["--videos", str(listed), "--output", str(output), "--random-weights", "--seed=3"]
    main(arguments)
    assert "9 videos, 27 frames, 3 without sound, in 0:" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert "exists; give another --output, or --overwrite" in capsys.readouterr().err
    (tmp_path / "bad.mp4").write_bytes(b"")
    listed.write_text(f"{listed.read_text()}bad.mp4,red\n")
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--overwrite", "--batch-size", "4"])
    assert ended.value.code == PARTLY == 3
    assert "; 1 failed, see failed.jsonl" in capsys.readouterr().out
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["videos"], summary["failed"]) == (9, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: --videos, --output"),
        (["--vidoes", "x"], "unknown flag --vidoes, --help has all; did you mean --videos?"),
        (["--videos", "absent", "--output", "o"], "absent: no such file or folder"),
        (["--videos", "x", "--output", "o", "--frames", "0"], "frames is 0, expected at least 1"),
        (["--videos", "x", "--output", "o", "--features", "imagnet"], "did you mean imagenet?"),
        (["--videos", "x", "--output", "o", "--vocabulary", "v"], "v: no such file"),
        (["--videos", "x", "--output", "o", "--", "--runer=x"], "Beam has no option --runer"),
    ],
)
def test_what_can_not_be_is_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert words in error_line(main, arguments, capsys)
    assert not list(tmp_path.iterdir())


def test_missing_weights_are_named(clips, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = error_line(main, ["--videos", str(clips), "--output", "o"], capsys)
    assert line.startswith("weights/vggish_model.ckpt: ")
    assert "https://storage.googleapis.com/audioset/vggish_model.ckpt" in line
    assert not list(tmp_path.iterdir())


def decoders():
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if "decoder_process" in command:
            found.append(folder.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_killed_it_leaves_no_decoder_and_goes_on_later(number, clips, tmp_path):
    rows = []
    for copy in range(4):
        for path in sorted(clips.glob("*.mp4")):
            (tmp_path / f"{path.stem}-{copy}.mp4").symlink_to(path)
            rows.append(f"{path.stem}-{copy}.mp4,{path.stem[:-1]}\n")
    (tmp_path / "list.csv").write_text("video,labels\n" + "".join(rows))
    others = set(decoders())
    output = tmp_path / "out"
    arguments = [
        *COMMAND, "--videos", str(tmp_path / "list.csv"), "--output", str(output),
        "--random-weights", "--batch-size=16",
    ]  # fmt: skip
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    work = tmp_path / ".out.work"
    deadline = time.monotonic() + 240
    while not (work.is_dir() and len(list(work.glob("*.npz"))) >= 2):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert "start it again, what was done is kept" in said + errors
        assert "Traceback" not in errors
    while set(decoders()) - others:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not output.exists()
    done = len(list(work.glob("*.features.npz")))
    again = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert f"{done} of {len(rows)} videos were done before" in again.stdout
    assert (output / "manifest.json").is_file()
    assert not work.exists()
