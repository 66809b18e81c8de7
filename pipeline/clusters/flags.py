"""Which KFP to talk to, as the command line says it."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.download.step import SAMPLE
from pipeline.clusters.endpoint import Endpoint
from pipeline.clusters.kind import load_images, running_cluster
from pipeline.clusters.kind_target import kind_target
from pipeline.clusters.manifests import folders_seen
from pipeline.clusters.running import EXPERIMENT, PodSettings, pod_settings
from pipeline.run_folder import with_places, with_whole_names
from pipeline.targets.kubernetes import KubernetesTarget
from trainer.errors import InputError

TOKEN = "KFP_TOKEN"
"""Environment variable with a token: a command line can be read by every user of a machine."""


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `endpoint_of` and `target_of` read."""
    group = parser.add_argument_group("Kubeflow Pipelines on a cluster")
    group.add_argument("--host", default="", help="address; default: the cluster of make kind-up")
    group.add_argument(
        "--token-file", default="", help=f"holds a token, read anew each time (or {TOKEN} in the "
        "environment)",
    )  # fmt: skip
    group.add_argument("--namespace", default="", help="of the user, where there are several")
    group.add_argument("--ca", default="", help="PEM file of certificates to trust")
    group.add_argument("--experiment", default=EXPERIMENT, help="that runs go to, by its name")
    group.add_argument(
        "--image",
        default="",
        help="that the cluster of --host can pull, with {kind} for cpu or gpu",
    )
    group.add_argument(
        "--kfp", nargs="*", default=[], metavar="NAME=VALUE",
        help="of the pods: " + ", ".join(field.name for field in dataclasses.fields(PodSettings)),
    )  # fmt: skip


def endpoint_of(options: argparse.Namespace) -> Endpoint:
    """Connect to what the flags say.

    Raises:
        InputError: it is not there, or does not let this user in.
    """
    cluster = None if options.host else running_cluster()
    return Endpoint(
        cluster.host if cluster else options.host,
        pages=f"http://localhost:{cluster.pages_port}" if cluster else "",
        token=os.environ.get(TOKEN, ""),
        token_file=Path(options.token_file) if options.token_file else None,
        namespace=options.namespace,
        ca=Path(options.ca) if options.ca else None,
    )


def target_of(
    options: argparse.Namespace, parameters: dict[str, Any], runs: Path, caching: bool = True
) -> tuple[KubernetesTarget, dict[str, Any]]:
    """The target that the flags say, and the parameters with its places.

    Args:
        options: parsed flags.
        parameters: of the pipeline, checked, all of them.
        runs: folder of runs, which the local cluster sees.
        caching: whether steps whose inputs are those of an earlier run are skipped.

    Raises:
        InputError: no image, or a folder that the local cluster does not see.
    """
    settings = pod_settings(options.kfp)
    if not options.host:
        parameters = with_places(with_whole_names(parameters), runs)
        target = kind_target(running_cluster(), settings, parameters, caching)
        load_images(sorted({target.cpu_image, target.gpu_image}))
        return target, parameters
    if "{kind}" not in options.image:
        raise InputError(
            "IMAGE is missing, expected a name that the cluster can pull, with {kind} for cpu or "
            "gpu, such as registry.example/nextvlad-pipeline-{kind}:<digest>"
        )
    target = settings.target("kfp", options.image, caching)
    _check_places(parameters, {volume.folder: False for volume in target.volumes})
    return target, parameters


def _check_places(parameters: Mapping[str, Any], volumes: Mapping[str, bool]) -> None:
    """Raise `InputError` unless what is large and what outlives a step has a place."""
    if not parameters["destination"] and parameters["data_source"] != SAMPLE:
        raise InputError(
            "SET=destination=… is missing: data does not go through the cluster's store of "
            "artifacts, give a gs:// prefix or a folder of a volume"
        )
    for name in ("data_source", "destination", "checkpoint_root", "champion"):
        path = Path(str(parameters[name]))
        if path.is_absolute() and not folders_seen(volumes, path):
            raise InputError(
                f"{name} {path}: no volume has it, so steps would each see another folder: "
                "KFP=volumes=claim:/folder"
            )
