"""In containers of this machine: KFP's Docker runner on the images that clusters run.

A step's container has the least that it needs: the run's own folders to write to, its inputs to
read, a root file system that is read-only, no capability, no network unless its data is elsewhere,
and the user who started the run, so that what it writes is that user's.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docker.types import DeviceRequest, Mount
from kfp import local

from components.download.folders import EXTRAS
from components.download.plan import is_release
from components.download.step import SAMPLE
from pipeline.console import steps_progress
from pipeline.docker_engine import PROXIES, check_images, docker_engine
from pipeline.image_names import image_name
from pipeline.targets.step_containers import StepContainers
from pipeline.training_pipeline import STEPS, Target
from trainer.errors import InputError
from trainer.parameter import nearest

EMULATOR = "STORAGE_EMULATOR_HOST"
CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
_LOGIN = Path("~/.config/gcloud/application_default_credentials.json")
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_IN_CONTAINER = "/run/nextvlad"
"""Folder of the files that are mounted under another name than their own."""


def docker_target(gpu: bool = False) -> Target:
    """The images that `make images` built of this code; with `gpu` also the one with CUDA."""
    return Target("docker", image_name("cpu"), image_name("gpu" if gpu else "cpu"))


def memory_limits(settings: list[str]) -> dict[str, str]:
    """Checked limits by step, from `train=6g`.

    Raises:
        InputError: no such step, or no size.
    """
    limits = {}
    for setting in settings:
        step, _, size = setting.partition("=")
        if step not in STEPS:
            raise InputError(
                f"memory limit {setting!r}: expected step=size with one of {', '.join(STEPS)}"
                f"{nearest(step, STEPS)}"
            )
        if not re.fullmatch(r"[1-9]\d*[mg]", size):
            raise InputError(f"memory limit {setting!r}: expected a size such as 512m or 6g")
        limits[step] = size
    return limits


@contextlib.contextmanager
def docker_runner(
    target: Target, memory: Mapping[str, str], parameters: Mapping[str, Any], runs: Path
) -> Iterator[local.DockerRunner]:
    """KFP's Docker runner, set up for one run.

    Args:
        target: whose images are used.
        memory: limits by step.
        parameters: of the pipeline; their folders are what containers see.
        runs: folder of runs.

    Raises:
        InputError: no engine, no image.
    """
    with docker_engine() as client:
        check_images(client, {target.cpu_image, target.gpu_image})
        information = client.info()
        gpus = {}
        if target.gpu_image != target.cpu_image:
            gpus[target.gpu_image] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
            # Asked now: an hour of other steps may come before the first that needs one.
            probe = client.containers.create(
                target.gpu_image, ["true"], network_mode="none",
                device_requests=gpus[target.gpu_image],
            )  # fmt: skip
            try:
                probe.start()
            finally:
                probe.remove(force=True)
    containers = StepContainers(runs, memory, gpus)
    containers.remove_left_behind()
    with containers.used_by_kfp():
        yield local.DockerRunner(
            **_arguments(parameters, runs, information.get("SecurityOptions") or [])
        )


def _arguments(parameters: Mapping[str, Any], runs: Path, security: list[str]) -> dict[str, Any]:
    """What every container of a run is started with."""
    options = ["no-new-privileges"]
    if any("name=selinux" in option for option in security):
        options.append("label=disable")  # files of the user keep their own labels
    # In a rootless engine, root is the user who started it.
    rootless = any("name=rootless" in option for option in security)
    arguments: dict[str, Any] = {
        "user": "0:0" if rootless else f"{os.getuid()}:{os.getgid()}",
        "group_add": [] if rootless else [str(group) for group in os.getgroups()],
        "read_only": True,
        "tmpfs": {"/tmp": ""},
        "cap_drop": ["ALL"],
        "security_opt": options,
        "init": True,
        "shm_size": "1g",
        "mounts": _mounts(parameters, runs),
        "environment": steps_progress(),
        "network_mode": "none",
    }
    if any("name=userns" in option for option in security):
        arguments["userns_mode"] = "host"  # a shifted user could not write this one's folders
    if _is_elsewhere(parameters):
        _connect(arguments)
    return arguments


def _mounts(parameters: Mapping[str, Any], runs: Path) -> list[Mount]:
    """Folders by their own names: earlier runs and inputs to read, what outlives runs to write."""
    written = [parameters["destination"], parameters["checkpoint_root"]]
    written = [Path(folder) for folder in written if "://" not in folder]
    for folder in written:
        folder.mkdir(parents=True, exist_ok=True)  # Docker would make it as root
    read = {runs}
    source = Path(parameters["data_source"])
    given = [source, *(source.parent / name for name in EXTRAS), Path(parameters["champion"])]
    for section in json.loads(parameters["overrides"]).values():
        given += [Path(value) for value in section.values() if isinstance(value, str)]
    read |= {path for path in given if path.is_absolute() and path.exists()}
    return [
        Mount(str(path), str(path), type="bind", read_only=path not in written)
        for path in sorted({*read, *written})
    ]


def _is_elsewhere(parameters: Mapping[str, Any]) -> bool:
    source = str(parameters["data_source"])
    places = [str(parameters[name]) for name in ("destination", "checkpoint_root", "champion")]
    return (
        (source != SAMPLE and is_release(source))
        or any("://" in place for place in (source, *places))
        or parameters["champion"].startswith("projects/")
    )


def _connect(arguments: dict[str, Any]) -> None:
    """Let a container reach what is elsewhere, as this process would."""
    environment = arguments["environment"]
    environment.update({name: os.environ[name] for name in PROXIES if name in os.environ})
    del arguments["network_mode"]
    if EMULATOR in os.environ:  # which listens on this machine alone
        environment[EMULATOR] = os.environ[EMULATOR]
        arguments["network_mode"] = "host"
    files = {name: Path(os.environ[name]) for name in CERTIFICATES if os.environ.get(name)}
    files[CREDENTIALS] = Path(os.environ.get(CREDENTIALS) or _LOGIN).expanduser()
    for name, path in files.items():
        if path.is_file():
            environment[name] = f"{_IN_CONTAINER}/{name}"
            arguments["mounts"].append(
                Mount(environment[name], str(path.resolve()), type="bind", read_only=True)
            )
