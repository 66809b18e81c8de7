"""The Docker engine of this machine, and its errors as one line with what to do."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterable, Iterator

import docker
import requests
from docker.errors import DockerException

from trainer.errors import InputError

SOCKET = "/var/run/docker.sock"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
"""Environment variables that Docker itself hands to builds, and we to steps."""
FULL = (
    "Docker has no space left: `docker system df` says for what, `docker system prune` frees some"
)

NO_GPU = (
    "this machine's Docker can give no GPU: it needs NVIDIA's driver and container toolkit "
    "(https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/)"
)


@contextlib.contextmanager
def docker_engine() -> Iterator[docker.DockerClient]:
    """The engine that `DOCKER_HOST` names, or this machine's.

    Raises:
        InputError: there is none, it is not this user's to use, or it fails in what is asked of it.
    """
    try:
        _probe(os.environ.get("DOCKER_HOST", f"unix://{SOCKET}"))
        client = docker.from_env()
    except (DockerException, OSError) as error:
        raise InputError(what_to_do(str(error))) from None
    with contextlib.closing(client):
        try:
            yield client
        except (DockerException, requests.exceptions.RequestException) as error:
            raise InputError(what_to_do(str(error))) from None


def check_images(client: docker.DockerClient, images: Iterable[str]) -> None:
    """Raise `InputError` unless the engine has these images of ours."""
    for image in images:
        try:
            client.images.get(image)
        except docker.errors.ImageNotFound:
            gpu = " IMAGES='cpu gpu'" if "-gpu:" in image else ""
            raise InputError(f"image {image} is not there: make images{gpu}") from None


def _probe(host: str) -> None:
    """Connect once: the library leaves its socket open where no engine answers.

    Raises:
        OSError: nothing answers.
    """
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(host.removeprefix("unix://"))


def what_to_do(message: str) -> str:
    """What Docker said, as a sentence with the way out where it is known."""
    where = os.environ.get("DOCKER_HOST", SOCKET)
    message = re.sub(r"\s+", " ", message).strip()
    if re.search(r"Permission denied|permission denied .*docker.*sock", message):
        return (
            f"Docker's socket {where} is not this user's to use: add the user to the group docker "
            "(sudo usermod -aG docker $USER, then log in again)"
        )
    if re.search(
        r"fetching server API version|Cannot connect to the Docker daemon|Connection aborted|"
        r"Connection refused|No such file or directory|Max retries exceeded",
        message,
    ):
        return (
            f"no Docker engine answers at {where}: start it (sudo systemctl start docker), install "
            "it (https://docs.docker.com/engine/install/), or say where it is with DOCKER_HOST"
        )
    if "no space left on device" in message.lower():
        return FULL
    if re.search(r"could not select device driver|nvidia-container-cli|libnvidia-ml", message):
        return NO_GPU
    return f"Docker: {message}"
