"""The set-up script refuses what it can not do, in a sentence, and leaves nothing half done."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path):
    """A copy of the script, and a folder of fake programs that comes first on the path."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "bin").mkdir()
    return tmp_path


def fake(place, name, script):
    path = place / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def install(place, **variables):
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(place / "requirements" / "install.sh"), "cpu"],
        env=os.environ | {"PATH": path} | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("program", "script", "words"),
    [
        ("uname", 'case "$1" in -s) echo Darwin;; *) echo arm64;; esac', "this is Darwin arm64"),
        ("getconf", "exit 1", "need glibc"),
    ],
)
def test_other_systems_are_refused(program, script, words, place):
    fake(place, program, script)
    done = install(place)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the locked requirements")
    assert words in done.stderr
    assert not (place / ".venv").exists()


def test_another_python_is_refused(place):
    python = fake(place, "old", "echo 3.10")
    done = install(place, PYTHON=str(python))
    assert done.returncode == 1
    assert "needs a Python from 3.11 to 3.13, found 3.10" in done.stderr
    assert not (place / ".venv").exists()


def test_a_python_without_venv_is_refused(place):
    python = fake(
        place, "bare", 'case "$*" in *venv*) exit 1;; --version) echo x;; *) echo 3.12;; esac'
    )
    done = install(place, PYTHON=str(python))
    assert done.returncode == 1
    assert "can not make a virtual environment: install its venv module" in done.stderr
    assert not (place / ".venv").exists()


def test_requirements_are_exact_hashed_and_name_no_registry():
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert "://" not in text
        assert "--index" not in text
        entries = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert entries
        for entry in entries:
            assert "==" in entry, (path.name, entry)
        assert text.count("--hash=sha256:") >= len(entries)
