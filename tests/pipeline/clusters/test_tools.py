"""Tools that are missing or too old are told in one line."""

import json

import pytest

from pipeline.clusters.tools import check_tools, run
from trainer.errors import InputError

VERSIONS = {
    "kind": "kind v0.32.0 go1.26.8 linux/amd64",
    "kubectl": json.dumps({"clientVersion": {"gitVersion": "v1.32.4-dispatcher"}}),
    "docker": "20.10.24+dfsg1",
    "git": "git version 2.39.5",
}


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Put commands on the path, alone there, that say a version."""

    def put(**versions):
        for name, said in (VERSIONS | versions).items():
            if said is not None:
                path = tmp_path / name
                path.write_text(f"#!/bin/sh\necho '{said}'\n")
                path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return put


def test_all_is_there(tools):
    tools()
    check_tools()


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({"kind": None}, r"kind is not there \(0.30 or later: https://kind.sigs.k8s.io"),
        ({"kind": "kind v0.20.0 go1.20"}, r"kind is 0.20, expected 0.30 or later"),
        ({"kubectl": None, "git": None}, "kubectl is not there .*; git is not there"),
        ({"docker": "19.03.1"}, "docker is 19.3, expected 20.10"),
        ({"kubectl": "oops"}, "kubectl is of an unknown version, expected 1.30"),
    ],
)
def test_what_is_missing(versions, words, tools):
    tools(**versions)
    with pytest.raises(InputError, match=words):
        check_tools()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo one; echo 'Error: no such thing' >&2; echo at the end >&2; exit 1",
         "tool make it failed: Error: no such thing"),
        ("exit 3", "tool make it failed: it says nothing"),
        ("exec sleep 9", "tool make it has not ended in 1 s"),
    ],
)  # fmt: skip
def test_a_command_that_fails(script, words, tmp_path, monkeypatch):
    (tmp_path / "tool").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "tool").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(InputError, match=words):
        run(["tool", "make", "--now", "it"], seconds=1.0)


def test_a_command_that_is_not_there():
    with pytest.raises(InputError, match="the command no-such-tool is not there"):
        run(["no-such-tool"])
