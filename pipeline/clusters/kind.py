"""`python -m pipeline.clusters.kind up|down`: Kubeflow Pipelines on a cluster of this machine.

Each part of `up` is done only where it is not done yet: started again after an interruption, it
goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker

from pipeline.clusters.connection import Patience
from pipeline.clusters.endpoint import Endpoint
from pipeline.clusters.manifests import (
    API,
    NAMESPACE,
    PAGES,
    as_yaml,
    cluster_configuration,
    kfp_version,
    manifests_of_kfp,
    node_image,
    volume_manifests,
)
from pipeline.clusters.tools import Kubectl, check_tools, interruptible, run
from pipeline.clusters.waiting import wait_for_deployments
from pipeline.docker_engine import FULL, check_images, docker_engine
from pipeline.image_names import image_name
from trainer.errors import InputError, reported
from trainer.progress import duration, say

NAME = "nextvlad"
_LABEL = "io.x-k8s.kind.cluster"
_NETWORK = "kind"
_ROOM = 20 << 30
"""Bytes that the node, KFP's images and ours take."""
_LAST_PORT = 65535
_READY_SECONDS = 300.0
_CREATE_SECONDS, _APPLY_SECONDS, _LOAD_SECONDS = 900.0, 600.0, 900.0


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The cluster as it runs.

    Attributes:
        port: of this machine, of KFP's API.
        pages_port: of its web pages.
        folders: of this machine that steps see by the same names; whether only to read.
    """

    port: int
    pages_port: int
    folders: Mapping[str, bool]

    @property
    def host(self) -> str:
        return f"http://localhost:{self.port}"


def kubectl() -> Kubectl:
    return Kubectl(f"kind-{NAME}", NAMESPACE)


def running_cluster() -> Cluster:
    """The cluster of `make kind-up`, as Docker knows it.

    Raises:
        InputError: there is none, or it is stopped.
    """
    with docker_engine() as client:
        node = _node(client)
        if node is None:
            raise InputError(f"there is no cluster {NAME}: make kind-up")
        if node.status != "running":
            raise InputError(f"the cluster {NAME} is {node.status}: make kind-up starts it")
        return _described(node.attrs)


def up(port: int, folders: Mapping[str, bool], images: Sequence[str], seconds: float) -> Cluster:
    """Have a cluster with KFP and these images.

    Args:
        port: of this machine for KFP's API; the next one is for its pages.
        folders: of this machine that steps see by the same names; whether only to read.
        images: of this machine's Docker that steps need.
        seconds: to wait for KFP.

    Raises:
        InputError: a tool or image is missing, a port is taken, there is another cluster of that
            name, or KFP does not come up; the message says what to do.
    """
    if not 0 < port < _LAST_PORT:
        raise InputError(f"KIND_PORT is {port}, expected 1 to {_LAST_PORT - 1}")
    check_tools()
    start = time.monotonic()
    wanted = Cluster(port, port + 1, dict(folders))
    with docker_engine() as client:
        check_images(client, images)
        root = Path(client.info().get("DockerRootDir") or "/")
        node = _node(client)
        if node is not None:
            _check_is(_described(node.attrs), wanted)
            if node.status != "running":
                say("kind", f"starts the stopped cluster {NAME}")
                node.start()
    if node is not None and not _is_whole(node):
        say("kind", f"the cluster {NAME} was not made whole: makes it anew")
        run(["kind", "delete", "cluster", "--name", NAME], seconds=_APPLY_SECONDS)
        node = None
    if node is None:
        _create(wanted, root)
    else:
        say("kind", f"the cluster {NAME} is there")
        # Another kubeconfig than the one that it was made with does not know it.
        run(["kind", "export", "kubeconfig", "--name", NAME])
        _wait_for_answer()
    _install()
    load_images(images)
    # Those of an earlier call too, which may have been interrupted before it came here.
    if seen := running_cluster().folders:
        kubectl()("apply", "--filename=-", given=as_yaml(volume_manifests(seen)))
    wait_for_deployments(kubectl(), seconds)
    Endpoint(wanted.host, patience=Patience(connect_seconds=120.0))
    say(
        "kind",
        f"KFP {kfp_version()} answers at {wanted.host}, its pages at "
        f"http://localhost:{wanted.pages_port} ({duration(time.monotonic() - start)})",
    )
    return wanted


def down() -> None:
    """Remove the cluster and what kind left of it in Docker; folders of this machine stay."""
    check_tools("kind", "docker")
    run(["kind", "delete", "cluster", "--name", NAME], seconds=_APPLY_SECONDS)
    with docker_engine() as client:
        for container in client.containers.list(all=True, filters={"label": f"{_LABEL}={NAME}"}):
            container.remove(force=True, v=True)
        others = client.containers.list(all=True, filters={"label": _LABEL})
        for network in [] if others else client.networks.list(names=[f"^{_NETWORK}$"]):
            with contextlib.suppress(docker.errors.APIError):  # somebody else uses it
                network.remove()
    say("kind", f"the cluster {NAME} is gone")


def _node(client: docker.DockerClient) -> Any:
    found = client.containers.list(all=True, filters={"label": f"{_LABEL}={NAME}"})
    return found[0] if found else None


def _described(attributes: Mapping[str, Any]) -> Cluster:
    """A node's container: its ports, and the folders that were given to it."""
    bindings = attributes["HostConfig"].get("PortBindings") or {}

    def port(of_node: int) -> int:
        (binding, *_) = bindings.get(f"{of_node}/tcp") or [{"HostPort": 0}]
        return int(binding["HostPort"] or 0)

    folders = {
        mount["Destination"]: not mount["RW"]
        for mount in attributes.get("Mounts", [])
        if mount["Type"] == "bind"
        and mount["Source"] == mount["Destination"]
        # kind's own: the kernel's modules and the like
        and not mount["Destination"].startswith(("/lib/", "/dev/", "/sys/"))
    }
    return Cluster(port(API), port(PAGES), folders)


def _check_is(found: Cluster, wanted: Cluster) -> None:
    """Raise `InputError` if a cluster would have to be made anew: a node's mounts stay."""
    if found.port != wanted.port:
        raise InputError(
            f"the cluster {NAME} answers at port {found.port}, not {wanted.port}: make kind-down "
            f"first, or give KIND_PORT={found.port}"
        )
    missing = [
        folder
        for folder, read_only in wanted.folders.items()
        if folder not in found.folders or (found.folders[folder] and not read_only)
    ]
    if missing:
        raise InputError(
            f"the cluster {NAME} does not see {', '.join(missing)}, and its folders can not "
            "be changed: make kind-down first (data and results stay on this machine)"
        )


def load_images(images: Sequence[str]) -> None:
    """Put images of this machine's Docker into the node, unless it has them.

    Raises:
        InputError: there is no cluster, or no such image.
    """
    with docker_engine() as client:
        node = _node(client)
        if node is None:
            raise InputError(f"there is no cluster {NAME}: make kind-up")
        there = node.exec_run(["crictl", "images", "--output=json"]).output.decode()
        missing = [image for image in images if f'/{image}"' not in there]
        check_images(client, missing)
        for image in missing:
            say("kind", f"loads {image} into the node (a minute or two)")
            run(["kind", "load", "docker-image", image, "--name", NAME], seconds=_LOAD_SECONDS)


def _is_whole(node: Any) -> bool:
    """Whether kubeadm came as far as its configuration, without which nothing can be kept."""
    return bool(node.exec_run(["test", "-f", "/etc/kubernetes/admin.conf"]).exit_code == 0)


def _wait_for_answer() -> None:
    """Raise `InputError` unless Kubernetes on the node answers, soon after a start."""
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            kubectl()("get", "--raw=/readyz", seconds=20.0)
        except InputError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"the cluster {NAME} does not answer ({error}): see docker logs "
                    f"{NAME}-control-plane, or make kind-down and begin anew"
                ) from None
            time.sleep(2)
        else:
            return


def _create(wanted: Cluster, docker_root: Path) -> None:
    for port in (wanted.port, wanted.pages_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise InputError(
                    f"port {port} of this machine can not be had ({error.strerror}): give another "
                    "with KIND_PORT=…"
                ) from None
    with contextlib.suppress(FileNotFoundError):  # Docker's folder is on another machine
        free = shutil.disk_usage(docker_root).free
        if free < _ROOM:
            raise InputError(
                f"{docker_root} has {free >> 30} GB left, a cluster with KFP takes {_ROOM >> 30}: "
                f"{FULL}"
            )
    ports = {API: wanted.port, PAGES: wanted.pages_port}
    configuration = cluster_configuration(NAME, ports, wanted.folders)
    image = node_image().partition("@")[0]
    say("kind", f"makes the cluster {NAME} of {image} (minutes the first time: 400 MB to pull)")
    try:
        run(
            ["kind", "create", "cluster", "--config=-", "--wait=3m"],
            as_yaml([configuration]), seconds=_CREATE_SECONDS,
        )  # fmt: skip
    except InputError as error:
        if "pull" in str(error):
            raise InputError(
                f"the node's image can not be pulled: {node_image()}: is there a way to Docker "
                "Hub? One that is in Docker already (docker load) is used"
            ) from None
        raise


def _install() -> None:
    """Apply KFP's manifests; what is there of the same version is only compared."""
    cluster_wide, overlay = manifests_of_kfp()
    there = _installed()
    if there and there != kfp_version():
        raise InputError(
            f"the cluster {NAME} has KFP {there}, expected {kfp_version()}: make kind-down first"
        )
    say("kind", f"fetches and applies the manifests of KFP {kfp_version()}")
    apply = ("apply", "--server-side", "--force-conflicts")
    call = kubectl()
    call(*apply, "--kustomize", cluster_wide, seconds=_APPLY_SECONDS)
    call("wait", "--for=condition=established", "--timeout=120s", "crd/applications.app.k8s.io")
    call(*apply, "--kustomize", overlay, seconds=_APPLY_SECONDS)


def _installed() -> str:
    """The version of KFP that is there; empty: none."""
    call = kubectl()
    for deployment in call.items("deployments"):
        if deployment["metadata"]["name"] == "ml-pipeline":
            image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
            return str(image.rpartition(":")[2])
    return ""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--port", type=int, default=8888, help="of KFP's API; the next: its pages")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder that steps write to"
    )
    parser.add_argument("--mounts", nargs="*", default=[], metavar="FOLDER", help="that steps read")
    parser.add_argument("--wait", type=float, default=1200.0, help="seconds for KFP to come up")
    options = parser.parse_args(arguments)
    with reported(), interruptible("start it again: it goes on where it was"):
        if options.command == "down":
            down()
            return
        folders = {}
        for mount in options.mounts:
            folder = Path(mount).resolve()
            if not folder.is_dir():
                raise InputError(f"mount {mount}: no such folder")
            folders[str(folder)] = True
        options.runs.mkdir(parents=True, exist_ok=True)
        folders[str(options.runs.resolve())] = False
        up(options.port, folders, [image_name("cpu")], options.wait)


if __name__ == "__main__":
    main()
