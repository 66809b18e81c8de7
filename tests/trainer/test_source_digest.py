import shutil
import subprocess

import pytest

from trainer.source_digest import code_version, trainer_digest

DIGEST = f"code digest {trainer_digest()} (trainer/)"


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "a.py").write_text("1")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "x"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


@pytest.mark.skipif(not shutil.which("git"), reason="no git here")
def test_a_checkout_has_its_commit_and_says_whether_it_was_changed(checkout):
    done = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert code_version(checkout) == f"commit {done.stdout.strip()}, {DIGEST}"
    (checkout / "trainer" / "a.py").write_text("2")
    assert code_version(checkout) == f"commit {done.stdout.strip()} with changes, {DIGEST}"
    # Code that lies in another project's checkout has no commit of its own.
    assert code_version(checkout / "trainer") == DIGEST


def test_without_git_or_a_checkout_the_digest_stands_alone(tmp_path, monkeypatch):
    assert code_version(tmp_path) == DIGEST
    (tmp_path / ".git").write_text("gitdir: /nowhere")
    assert code_version(tmp_path) == DIGEST
    monkeypatch.setenv("PATH", "")
    assert code_version(tmp_path) == DIGEST
    # As in an image, which has neither.
    (tmp_path / "REVISION").write_text("0123abc with changes\n")
    assert code_version(tmp_path) == f"commit 0123abc with changes, {DIGEST}"
