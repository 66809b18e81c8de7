"""Wait for a cluster's deployments with lines that say for what; a failure shows why."""

from __future__ import annotations

import sys
import time
from typing import Any

from pipeline.clusters.tools import Kubectl
from trainer.errors import InputError
from trainer.progress import duration, say

_LOG_LINES = 10
_EVENTS = 3


def wait_for_deployments(kubectl: Kubectl, seconds: float, pause: float = 3.0) -> None:
    """Until every deployment of the namespace is up.

    Raises:
        InputError: that took longer; what the pods and their events say stands on standard error.
    """
    start = time.monotonic()
    told = ""
    while True:
        deployments = kubectl.items("deployments")
        missing = sorted(d["metadata"]["name"] for d in deployments if not _is_up(d))
        passed = time.monotonic() - start
        if deployments and not missing:
            say("kind", f"{len(deployments)} deployments are up after {duration(passed)}")
            return
        names = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if missing[4:] else "")
        up = len(deployments) - len(missing)
        line = f"{up} of {len(deployments)} deployments are up, waits for: {names}"
        if missing and (troubles := _troubles(kubectl)):
            line += f" ({', '.join(troubles)})"
        if line != told:
            say("kind", f"{duration(passed)}  {line}")
            told = line
        if passed > seconds:
            print("\n".join(explain(kubectl)), file=sys.stderr)
            raise InputError(
                f"not up after {duration(seconds)}: {names} (see above; make kind-up goes on "
                "where it was)"
            )
        time.sleep(pause)


def _troubles(kubectl: Kubectl) -> list[str]:
    """What containers wait for that does not pass by itself, such as an image."""
    found = set()
    for pod in kubectl.items("pods"):
        for status in pod["status"].get("containerStatuses", []):
            reason = status.get("state", {}).get("waiting", {}).get("reason", "")
            if "Err" in reason or "BackOff" in reason:
                found.add(f"{status['name']}: {reason}")
    return sorted(found)[:3]


def explain(kubectl: Kubectl) -> list[str]:
    """What keeps the pods of a namespace that are not ready: state, events, last log lines."""
    lines = []
    for pod in kubectl.items("pods"):
        statuses = pod["status"].get("containerStatuses", [])
        if pod["status"].get("phase") == "Succeeded" or (
            statuses and all(status.get("ready") for status in statuses)
        ):
            continue
        name = pod["metadata"]["name"]
        states = [_state(status) for status in statuses] or [pod["status"].get("phase", "Unknown")]
        lines.append(f"pod {name}: {'; '.join(states)}")
        events = kubectl.items("events", f"--field-selector=involvedObject.name={name}")
        lines += [
            f"  event: {e['reason']}: {_line(e.get('message', ''))}" for e in events[-_EVENTS:]
        ]
        try:
            log = kubectl("logs", name, f"--tail={_LOG_LINES}", "--all-containers", seconds=20.0)
        except InputError:
            continue
        lines += [f"  log: {line}" for line in log.splitlines()[-_LOG_LINES:]]
    return lines


def _is_up(deployment: dict[str, Any]) -> bool:
    wanted = deployment["spec"].get("replicas", 1)
    status = deployment["status"]
    current = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return bool(current and status.get("availableReplicas", 0) >= wanted)


def _state(status: dict[str, Any]) -> str:
    for state, content in status.get("state", {}).items():
        reason = content.get("reason", "")
        message = _line(content.get("message", ""))
        return f"{status['name']} {reason or state}{f': {message}' if message else ''}"
    return f"{status['name']} unknown"


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
