"""Follow a run on a cluster to its end, as a local run is followed: step by step, with their lines.

KFP's server describes a run by the nodes of Argo's workflow, as a flat list: a step has a node of
its own name, whose only child is the node `executor`, the container that works; of a step that is
in the cache that one is skipped. Children are given by the ids of their nodes, which the list does
not have: an executor is found by its time, as steps run one after the other.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from pipeline.clusters.endpoint import Endpoint
from pipeline.console import Console
from pipeline.training_pipeline import PUBLISH, STEPS
from trainer.errors import InputError
from trainer.progress import duration

FINAL = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED", "ERROR")
WELL = ("SUCCEEDED", "SKIPPED")
_ENDING = ("CANCELING", "CANCELED")
_WAITING = ("", "RUNTIME_STATE_UNSPECIFIED", "PENDING")
_EXECUTOR = "executor"
_DRIVER = "-driver"
_TEMPLATE = "system-container-impl"


@dataclasses.dataclass(frozen=True)
class Pace:
    """How a run is followed.

    Attributes:
        poll_seconds: between two looks.
        start_seconds: until a step's container must have started: an image that can not be pulled
            does not fail a run.
    """

    poll_seconds: float = 2.0
    start_seconds: float = 1200.0


@dataclasses.dataclass
class _Step:
    """A step of the run as it was seen last."""

    pod: str = ""
    state: str = ""
    shown: int = 0


class NotStartedError(InputError):
    """A container did not start, and the run was ended for it."""


class Following:
    """A run that is followed.

    Args:
        endpoint: where it runs.
        run_id: of the run.
        console: what a person sees, and the log.
        pace: how often to look, how long to wait.
        watch: called with the run's id and state at each look.

    Attributes:
        terminated: whether somebody ended the run; KFP may call such a one failed.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        run_id: str,
        console: Console,
        pace: Pace | None = None,
        watch: Callable[[str, str], None] | None = None,
    ) -> None:
        self._endpoint, self._run_id, self._console = endpoint, run_id, console
        self._pace = pace or Pace()
        self._watch = watch
        self._steps: dict[str, _Step] = {}
        self._waiting: dict[str, float] = {}
        self._paused = False
        self.terminated = False

    def to_the_end(self) -> Any:
        """The run when it has ended, however it did.

        Raises:
            InputError: a container does not start, and the run was ended for it; or the endpoint
                does not answer any more.
        """
        while True:
            run = self._endpoint.run(self._run_id)
            state = _state(run)
            states = [state, *(_state(one) for one in run.state_history or [])]
            self.terminated = self.terminated or any(one in _ENDING for one in states)
            if self._watch:
                self._watch(self._run_id, state)
            nodes = list((run.run_details and run.run_details.task_details) or [])
            self._look_at(nodes, state in FINAL)
            if state in FINAL:
                if state not in WELL:
                    self._blame(run, nodes)
                return run
            if state == "PAUSED" and not self._paused:
                self._console.say("the run is paused: resume it in KFP's pages")
            self._paused = state == "PAUSED"
            self._check_patience({"the run"} if state in _WAITING else _pending(nodes))
            time.sleep(self._pace.poll_seconds)

    def _look_at(self, nodes: list[Any], ended: bool) -> None:
        for node, executor in _steps_of(nodes):
            name = _step_of(node)
            step = self._steps.setdefault(name, _Step())
            step.pod = _pod_of(node) or step.pod
            state = _state(node)
            if state in FINAL and state == step.state:
                continue
            if state == "SUCCEEDED" and (executor is None or _state(executor) == "SKIPPED"):
                self._console.skipped(name)
                step.state = state
                continue
            begun = executor is not None and _state(executor) not in _WAITING
            if state in ("SKIPPED", *_WAITING) or not (begun or ended):
                step.state = _WAITING[0]
                continue
            if step.state not in ("RUNNING", "CANCELING"):
                self._console.started(name)
            self._show_log(step, state in FINAL)
            if state in FINAL:
                self._console.finished(name, _seconds(executor or node), state in WELL)
            step.state = state

    def _show_log(self, step: _Step, ended: bool) -> None:
        """Print what the step's container has said since the last look."""
        lines = self._endpoint.log(self._run_id, step.pod).splitlines(keepends=True)
        whole = [line for line in lines if ended or line.endswith("\n")]
        for line in whole[step.shown :]:
            self._console.write(line.rstrip("\n") + "\n")
        step.shown = max(step.shown, len(whole))

    def _blame(self, run: Any, nodes: list[Any]) -> None:
        """Say what failed where no step of ours did: a driver, or the run as a whole."""
        if self._console.failed:
            return
        for node in sorted(nodes, key=_when):
            name = str(node.display_name or "")
            if name.endswith(_DRIVER) and _state(node) in ("FAILED", "ERROR"):
                self._console.failed = name
                self._console.error = (
                    "KFP's own container before the step failed: kubectl --namespace kubeflow get "
                    "pods, then its log"
                )
        if not self._console.failed and run.error is not None and run.error.message:
            self._console.error = " ".join(str(run.error.message).split())

    def _check_patience(self, pending: set[str]) -> None:
        """End the run if one of what is pending has been so for too long."""
        now = time.monotonic()
        self._waiting = {what: self._waiting.get(what, now) for what in pending}
        for what, since in self._waiting.items():
            if now - since < self._pace.start_seconds:
                continue
            self._endpoint.terminate(self._run_id)
            raise NotStartedError(
                f"{what} has not started in {duration(now - since)}, the run was ended: can its "
                "image be pulled, is there a node with room (kubectl get pods, kubectl get events)?"
            )


def _pending(nodes: list[Any]) -> set[str]:
    """The containers that were asked for and have not started."""
    found = set()
    for node in nodes:
        name = str(node.display_name or "")
        if _state(node) != "PENDING":
            continue
        if name.endswith(_DRIVER):
            found.add(name)
        elif name.startswith(_EXECUTOR):
            owners = [_step_of(step) for step, executor in _steps_of(nodes) if executor is node]
            found.add(f"step {owners[0]}" if any(owners) else name)
    return found


def _state(of: Any) -> str:
    return str(of.state or "").upper()


def _step_of(node: Any) -> str:
    """The step whose own node this is; empty: none."""
    name = node.display_name or ""
    plain = name[:-2] if name in (f"{PUBLISH}-2",) else name
    return plain if plain in (*STEPS, PUBLISH) else ""


def _steps_of(nodes: list[Any]) -> list[tuple[Any, Any]]:
    """The steps' nodes in the order of their start, each with its executor or None."""
    ordered = sorted(nodes, key=_when)
    left = [node for node in ordered if str(node.display_name or "").startswith(_EXECUTOR)]
    found = []
    for step in ordered:
        if not _step_of(step):
            continue
        executor = next((node for node in left if _is_within(node, step)), None)
        if executor is not None:
            left.remove(executor)
        found.append((step, executor))
    return found


def _is_within(node: Any, step: Any) -> bool:
    if not node.start_time or not step.start_time:
        return False
    ended = step.end_time
    return bool(step.start_time <= node.start_time and (not ended or node.start_time <= ended))


def _pod_of(step: Any) -> str:
    """The pod of a step's executor: Argo puts the template's name into the node's id."""
    for child in step.child_tasks or []:
        workflow, dash, number = str(child.pod_name or "").rpartition("-")
        if dash:
            return f"{workflow}-{_TEMPLATE}-{number}"
    return ""


def _when(node: Any) -> tuple[str, str, str]:
    # Text: the client gives times with and without a zone. What has not ended comes last.
    begun, ended = node.start_time or node.create_time, node.end_time
    return (str(begun or ""), str(ended or "~"), str(node.display_name or ""))


def _seconds(node: Any) -> float:
    if not node.start_time or not node.end_time:
        return 0.0
    return max(0.0, float((node.end_time - node.start_time).total_seconds()))
