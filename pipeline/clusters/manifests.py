"""What the local cluster is made of, as kind and Kubernetes read it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.image_names import ROOT
from pipeline.targets.kubernetes import Volume

FOLDER = ROOT / "docker" / "kind"
OVERLAY = FOLDER / "kfp"
NAMESPACE = "kubeflow"
API, PAGES = 31888, 31380
"""Ports of the node: KFP's API and its web pages."""
LABEL = "app.kubernetes.io/part-of"
PART_OF = "nextvlad-pipeline"


def cluster_configuration(
    name: str, ports: Mapping[int, int], folders: Mapping[str, bool]
) -> dict[str, Any]:
    """kind's configuration (https://kind.sigs.k8s.io/docs/user/configuration/).

    Args:
        name: of the cluster.
        ports: of this machine, by the node's.
        folders: of this machine that the node sees by the same names; whether only to read.
    """
    text = (FOLDER / "cluster.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = copy.deepcopy(yaml.safe_load(text))
    content["name"] = name
    (node,) = content["nodes"]
    for mapping in node["extraPortMappings"]:
        mapping["hostPort"] = ports[mapping["containerPort"]]
    node["extraMounts"] = [
        {"hostPath": folder, "containerPath": folder, "readOnly": read_only}
        for folder, read_only in folders.items()
    ]
    return content


def node_image() -> str:
    """The image of the cluster's node."""
    content = yaml.safe_load((FOLDER / "cluster.yaml").read_text(encoding="utf-8"))
    return str(content["nodes"][0]["image"])


def manifests_of_kfp() -> tuple[str, str]:
    """Where KFP's two sets of manifests are: what is of the whole cluster, and our overlay."""
    overlay = yaml.safe_load((OVERLAY / "kustomization.yaml").read_text(encoding="utf-8"))
    (base,) = overlay["resources"]
    return base.replace("env/platform-agnostic", "cluster-scoped-resources"), str(OVERLAY)


def kfp_version() -> str:
    """The version of KFP that our overlay is of."""
    return manifests_of_kfp()[0].rpartition("ref=")[2]


def volume_of(folder: str) -> Volume:
    """The claim by which steps mount a folder of the node."""
    return Volume(f"nextvlad-{hashlib.sha256(folder.encode()).hexdigest()[:12]}", folder)


def volume_manifests(folders: Mapping[str, bool]) -> list[dict[str, Any]]:
    """A volume and its claim for each folder of the node (whether only to read)."""
    manifests: list[dict[str, Any]] = []
    for folder, read_only in folders.items():
        name = volume_of(folder).claim
        # A size is asked for, and means nothing for a folder.
        common = {
            "accessModes": ["ReadOnlyMany" if read_only else "ReadWriteMany"],
            "storageClassName": "",
        }
        manifests += [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name, "labels": {LABEL: PART_OF}},
                "spec": {
                    **common,
                    "capacity": {"storage": "1Ti"},
                    "persistentVolumeReclaimPolicy": "Retain",
                    "hostPath": {"path": folder, "type": "Directory"},
                    "claimRef": {"namespace": NAMESPACE, "name": name},
                },
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: PART_OF}},
                "spec": {
                    **common,
                    "resources": {"requests": {"storage": "1Ti"}},
                    "volumeName": name,
                },
            },
        ]
    return manifests


def as_yaml(manifests: Sequence[Mapping[str, Any]]) -> str:
    return yaml.safe_dump_all([dict(one) for one in manifests], sort_keys=False)


def folders_seen(folders: Mapping[str, bool], path: Path) -> bool:
    """Whether steps see a path of this machine: it is one of the folders, or below one."""
    return any(path.is_relative_to(folder) for folder in folders)
