"""The commands that a local cluster needs: are they there, new enough, and what they say."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from trainer.errors import InputError

Version = tuple[int, ...]


def _number(text: str) -> Version:
    match = re.search(r"v?(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else ()


def _kubectl_number(text: str) -> Version:
    try:
        return _number(json.loads(text)["clientVersion"]["gitVersion"])
    except (ValueError, KeyError, TypeError):
        return ()


_TOOLS: dict[str, tuple[list[str], Callable[[str], Version], Version, str]] = {
    "kind": (
        ["version"], _number, (0, 30), "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
    ),
    "kubectl": (
        ["version", "--client", "--output=json"], _kubectl_number, (1, 30),
        "https://kubernetes.io/docs/tasks/tools/",
    ),
    "docker": (
        ["version", "--format", "{{.Client.Version}}"], _number, (20, 10),
        "https://docs.docker.com/engine/install/",
    ),
    "git": (["--version"], _number, (2, 0), "https://git-scm.com/downloads"),
}  # fmt: skip
"""By command: how it tells its version, what is needed, and where to get it. kubectl fetches KFP's
manifests with Git."""


@contextlib.contextmanager
def interruptible(words: str) -> Iterator[None]:
    """Ctrl-C ends the command with what becomes of its work, in place of a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\ninterrupted: {words}", flush=True)
        raise SystemExit(130) from None


def check_tools(*names: str) -> None:
    """Raise `InputError`, in one line for all, unless tools are there and new enough.

    Args:
        names: of the tools; none: all.
    """
    missing = []
    for name in names or _TOOLS:
        question, number, least, address = _TOOLS[name]
        wanted = ".".join(map(str, least))
        if not shutil.which(name):
            missing.append(f"{name} is not there ({wanted} or later: {address})")
            continue
        found = number(run([name, *question]))
        if found < least:
            text = ".".join(map(str, found)) or "of an unknown version"
            missing.append(f"{name} is {text}, expected {wanted} or later ({address})")
    if missing:
        raise InputError("; ".join(missing))


def run(command: list[str], given: str = "", seconds: float = 120.0) -> str:
    """What a command prints.

    Args:
        command: with its arguments.
        given: its standard input.
        seconds: it may take.

    Raises:
        InputError: it can not be started, fails or takes longer; with its last line.
    """
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, errors="replace",
            timeout=seconds, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise InputError(f"the command {command[0]} is not there") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{_short(command)} has not ended in {seconds:.0f} s") from None
    if done.returncode:
        raise InputError(f"{_short(command)} failed: {_why(done.stderr or done.stdout)}")
    return done.stdout


def _short(command: list[str]) -> str:
    words = [word for word in command[1:] if not word.startswith("-")]
    return " ".join([command[0], *words[:3]])


def _why(text: str) -> str:
    """The line of a failure that says most: one that starts with `error`, has it, or the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"error\b", line, re.I)][:1]
    errors = [line for line in lines if re.search(r"error|failed|denied|refused", line, re.I)]
    return (named or errors or lines or ["it says nothing"])[-1][:300]


class Kubectl:
    """`kubectl` on one cluster and namespace.

    Args:
        context: of the kubeconfig.
        namespace: of what is asked for.
    """

    def __init__(self, context: str, namespace: str) -> None:
        self._command = ["kubectl", "--context", context, "--namespace", namespace]

    def __call__(self, *arguments: str, given: str = "", seconds: float = 120.0) -> str:
        """What the command prints.

        Raises:
            InputError: it fails.
        """
        return run([*self._command, *arguments], given, seconds)

    def items(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """Objects of a kind."""
        found: list[dict[str, Any]] = json.loads(self("get", kind, "--output=json", *arguments))[
            "items"
        ]
        return found
