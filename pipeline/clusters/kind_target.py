"""The local cluster as a target: its images, and the folders of this machine that its steps see."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.clusters.kind import Cluster
from pipeline.clusters.manifests import folders_seen, volume_of
from pipeline.clusters.running import PodSettings
from pipeline.image_names import image_name
from pipeline.targets.kubernetes import KubernetesTarget
from trainer.errors import InputError

_WRITTEN = ("destination", "checkpoint_root")


def kind_target(
    cluster: Cluster, settings: PodSettings, parameters: Mapping[str, Any], caching: bool = True
) -> KubernetesTarget:
    """The DAG on the local cluster; a folder has one name on this machine, the node and in steps.

    Steps run as whoever started the run, so that what they write is that user's.

    Raises:
        InputError: a folder that the parameters name is not one that the cluster's steps see.
    """
    writable = {folder: False for folder, read_only in cluster.folders.items() if not read_only}
    for name, folder in _folders(parameters).items():
        if name in _WRITTEN and not folders_seen(writable, folder):
            raise InputError(
                f"{name} {folder}: the cluster's steps can not write there, expected a folder "
                f"below {' or '.join(writable)} (RUNS=… of make kind-up)"
            )
        if not folders_seen(cluster.folders, folder):
            raise InputError(
                f"{name} {folder}: the cluster's steps do not see it: make kind-down, then make "
                f"kind-up MOUNTS={folder}"
            )
    return settings.target(
        "kind",
        image_name("{kind}"),
        caching,
        small=True,
        volumes=tuple(volume_of(folder) for folder in cluster.folders),
        user=(os.getuid(), os.getgid()),
    )


def _folders(parameters: Mapping[str, Any]) -> dict[str, Path]:
    """What the parameters name of this machine, by the parameter."""
    named = {
        name: str(parameters[name])
        for name in ("data_source", "destination", "champion", "checkpoint_root")
    }
    for section, values in json.loads(parameters["overrides"]).items():
        for name, value in values.items():
            if isinstance(value, str):
                named[f"{section}.{name}"] = value
    return {name: Path(value) for name, value in named.items() if Path(value).is_absolute()}
