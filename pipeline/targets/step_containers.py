"""One container for each step, in place of the one function of KFP's runner that starts them.

KFP's own (`kfp.local.docker_task_handler.run_docker_container`) takes a container that vanished for
one that succeeded, leaves it running when it is interrupted, and has no limits by step.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, NotFound
from kfp.local import docker_task_handler

from pipeline.docker_engine import docker_engine, what_to_do
from trainer.progress import say

RUNS, OWNER = "nextvlad.runs", "nextvlad.owner"
"""Labels of containers: the folder of runs, and the process that waits for them."""
GRACE_SECONDS = 60
"""For a step that was told to end: the trainer saves a checkpoint first."""


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
        container = None
        try:
            container = client.containers.run(
                image, command, detach=True, volumes=volumes,
                labels={RUNS: str(self._runs), OWNER: _process(os.getpid())},
                mem_limit=limit, memswap_limit=limit,
                device_requests=self._devices.get(image, []),
                **arguments,
            )  # fmt: skip
            self._running = container.id
            _copy_output(container.logs(stream=True, follow=True))
            code = int(container.wait()["StatusCode"])
            container.reload()
            killed = container.attrs["State"]["OOMKilled"]
        except DockerException as error:
            print(f"error: {what_to_do(str(error))}")
            return 1
        except KeyboardInterrupt:
            self.stop()
            raise
        finally:
            self._running = ""
            if container is not None:
                with contextlib.suppress(DockerException):
                    container.remove(force=True)
        if code and (killed or (code == 137 and limit)):
            print(f"error: it needs more memory than its limit of {limit or 'the engine'}")
        elif code == 137:
            print("error: its container was killed")
        elif not code and not Path(_output_file(command)).is_file():
            print("error: its container ended well and left no outputs")
            return 1
        return code

    def stop(self) -> None:
        """End the step that runs, with time to save its state."""
        if not self._running:
            return
        with contextlib.suppress(Exception), docker_engine() as client:
            container = client.containers.get(self._running)
            # Its first process is a shell, which hands no signal on.
            container.exec_run(["sh", "-c", "kill -TERM -1"])
            with contextlib.suppress(Exception):
                container.wait(timeout=GRACE_SECONDS)
            with contextlib.suppress(NotFound):
                container.remove(force=True)

    def remove_left_behind(self) -> None:
        """Remove containers of these runs whose process was killed: they would write on."""
        with docker_engine() as client:
            for container in client.containers.list(
                all=True, filters={"label": f"{RUNS}={self._runs}"}
            ):
                pid, _, _ = container.labels.get(OWNER, "").partition(":")
                if pid.isdigit() and _process(int(pid)) == container.labels[OWNER]:
                    continue
                container.remove(force=True)
                say("docker", f"ended container {container.name} of a run that was killed")


def _process(pid: int) -> str:
    """A process by its number and start, as numbers are used again; empty if it is no more."""
    try:
        # Its name, in parentheses, may have spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return f"{pid}:{fields[19]}"


def _copy_output(parts: Iterable[bytes]) -> None:
    """Print as it comes; a character may be cut between two parts."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for part in parts:
        print(decoder.decode(part), end="")
    print(decoder.decode(b"", final=True), end="")


def _output_file(command: list[str]) -> str:
    """Where KFP's executor says what the step's outputs are."""
    given = json.loads(command[command.index("--executor_input") + 1])
    return str(given["outputs"]["outputFile"])
