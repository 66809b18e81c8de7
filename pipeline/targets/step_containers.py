"""One container for each step, in place of the one function of KFP's runner that starts them.

KFP's own (`kfp.local.docker_task_handler.run_docker_container`) takes a container that vanished for
one that succeeded, leaves it running when it is interrupted, and has no limits by step.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException
from kfp.local import docker_task_handler

from pipeline.docker_engine import docker_engine, what_to_do
from trainer.errors import InputError
from trainer.progress import say

RUNS, OWNER = "nextvlad.runs", "nextvlad.owner"
"""Labels of containers: the folder of runs, and the process that waits for them."""
GRACE_SECONDS = 60
"""For a step that was told to end: the trainer saves a checkpoint first."""

_FAILURES = (DockerException, requests.exceptions.RequestException)


class StepContainers:
    """The containers of a run's steps.

    Args:
        runs: folder of runs.
        memory: limits by step, such as `6g`; a step without one takes what it needs.
        devices: what the containers of an image are given, by image.
    """

    current: StepContainers | None = None
    """Those of the run of this process, for a signal's handler."""

    def __init__(
        self, runs: Path, memory: Mapping[str, str], devices: Mapping[str, list[Any]]
    ) -> None:
        self._runs, self._memory, self._devices = runs, memory, devices
        self._running = ""

    @contextlib.contextmanager
    def used_by_kfp(self) -> Iterator[None]:
        """Have KFP's Docker runner start steps here."""
        own = docker_task_handler.run_docker_container
        docker_task_handler.run_docker_container = self.run
        StepContainers.current = self
        try:
            yield
        finally:
            docker_task_handler.run_docker_container = own
            StepContainers.current = None

    def run(
        self,
        client: docker.DockerClient,
        image: str,
        command: list[str],
        volumes: dict[str, Any],
        **arguments: Any,
    ) -> int:
        """Run a step to its end, with its output on standard output; returns its exit code.

        What Docker can not do becomes the step's one error line and exit code 1.
        """
        step = command[command.index("--function_to_execute") + 1]
        limit = self._memory.get(step)
        # By name from the start: a signal may come before Docker has answered.
        self._running = f"nextvlad-{step}-{uuid.uuid4().hex[:12]}"
        try:
            container = client.containers.create(
                image, _heeding_signals(command), name=self._running, volumes=volumes,
                labels={RUNS: str(self._runs), OWNER: _process(os.getpid())},
                mem_limit=limit, memswap_limit=limit,
                device_requests=self._devices.get(image, []),
                **arguments,
            )  # fmt: skip
            container.start()
            _copy_output(container.logs(stream=True, follow=True))
            code = int(container.wait()["StatusCode"])
            container.reload()
            killed = container.attrs["State"]["OOMKilled"]
        except _FAILURES as error:
            print(f"error: {what_to_do(str(error))}")
            return 1
        except KeyboardInterrupt:
            self.stop()
            raise
        finally:
            if self._running:
                with contextlib.suppress(*_FAILURES):
                    client.api.remove_container(self._running, force=True)
            self._running = ""
        if code and killed:
            print(f"error: it needs more memory than {limit or 'this machine has'}")
        elif code == 137:
            perhaps = f", perhaps as it needs more memory than {limit}" if limit else ""
            print(f"error: its container was killed{perhaps}")
        elif not code and not Path(_output_file(command)).is_file():
            print("error: its container ended well and left no outputs")
            return 1
        return code

    def stop(self) -> None:
        """End the step that runs, with time to save its state."""
        name, self._running = self._running, ""
        if not name:
            return
        with contextlib.suppress(InputError), docker_engine() as client:
            with contextlib.suppress(*_FAILURES):
                # Every process: the first ones hand no signal on.
                client.containers.get(name).exec_run(["sh", "-c", "kill -TERM -1"])
                client.api.wait(name, timeout=GRACE_SECONDS)
            client.api.remove_container(name, force=True)

    def remove_left_behind(self) -> None:
        """Remove containers of these runs whose process was killed: they would write on."""
        with docker_engine() as client:
            for container in client.containers.list(
                all=True, filters={"label": f"{RUNS}={self._runs}"}, ignore_removed=True
            ):
                owner = container.labels.get(OWNER, "")
                namespace, _, process = owner.partition("/")
                pid = process.partition(":")[0]
                if namespace != _namespace() or (pid.isdigit() and _process(int(pid)) == owner):
                    continue
                try:
                    container.remove(force=True)
                except APIError as error:
                    if error.status_code not in (404, 409):  # another run removes it, too
                        raise
                    continue
                say("docker", f"ended container {container.name} of a run that was killed")


def _heeding_signals(command: list[str]) -> list[str]:
    """KFP's command, whose shell waits for what it started when it is told to end.

    Its death would be the container's, before the step has saved its state.
    """
    if command[:2] != ["sh", "-ec"]:
        return command
    return [*command[:2], f"trap : TERM\n{command[2]}", *command[3:]]


def _namespace() -> str:
    """The processes that this one can see, by a name: their numbers mean nothing to others."""
    return str(Path("/proc/self/ns/pid").readlink())


def _process(pid: int) -> str:
    """A process by its number and start, as numbers are used again; empty if it is no more."""
    try:
        # Its name, in parentheses, may have spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{_namespace()}/{pid}:{fields[19]}"


def _copy_output(parts: Iterable[bytes]) -> None:
    """Print as it comes; a character may be cut between two parts."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    ended = True
    for part in parts:
        text = decoder.decode(part)
        print(text, end="")
        ended = text.endswith("\n") if text else ended
    rest = decoder.decode(b"", final=True)
    print(rest, end="\n" if rest or not ended else "")  # an error line begins a line


def _output_file(command: list[str]) -> str:
    """Where KFP's executor says what the step's outputs are."""
    given = json.loads(command[command.index("--executor_input") + 1])
    return str(given["outputs"]["outputFile"])
