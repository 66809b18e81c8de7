"""KFP on Kubernetes: what the DAG needs on a cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from kfp import dsl, kubernetes

from components.publish.component import publish
from pipeline.training_pipeline import PUBLISH, On, Target
from trainer.errors import InputError

STEP_TIMEOUT_SECONDS = 24 * 3600
"""An image that can not be pulled never fails a run by itself; this does."""
GOOGLE_KEY = "key.json"
"""The file of a Google service account's key, in the secret that `google_secret` names."""
_KEY_FOLDER = "/secrets/google"


@dataclasses.dataclass(frozen=True)
class Volume:
    """A claim of the cluster, and the folder that steps see it as."""

    claim: str
    folder: str


@dataclasses.dataclass(frozen=True)
class KubernetesTarget(Target):
    """Requests, limits and pod settings; a GPU for training only where `gpus` asks for one.

    Attributes:
        gpus: for the train step.
        gpu_resource: by which name the cluster's device plugin offers them.
        small: requests that fit a laptop; limits stay.
        volumes: for every step.
        user: number of the user that steps run as; None: the image's.
        google_secret: secret with a service account's key, for buckets; empty: the cluster's own.
        pull_secrets: for a private registry.
        node_labels: that a node has to have to take a step.
        annotations: of the pods.
        timeout_seconds: of a step.
    """

    extra_steps: tuple[str, ...] = (PUBLISH,)
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    small: bool = False
    volumes: tuple[Volume, ...] = ()
    user: tuple[int, int] | None = None
    google_secret: str = ""
    pull_secrets: tuple[str, ...] = ()
    node_labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    timeout_seconds: int = STEP_TIMEOUT_SECONDS

    def conclude(self, on: On, destination: str, outputs: Mapping[str, Any]) -> None:
        names = ("examples", "example_statistics", "trained_model", "evaluation", "verdict")
        task = publish(
            destination=destination,
            run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            **{name: outputs[name] for name in (*names, "serving_model") if name in outputs},
        )
        # Always runs: where it writes is outside of what the cluster's cache knows.
        on(task).set_caching_options(False)

    def place(self, step: str, task: dsl.PipelineTask) -> None:
        super().place(step, task)
        training = step == "train"
        if self.small:
            task.set_cpu_request("250m").set_memory_request("512Mi")
        else:
            task.set_cpu_request("1").set_memory_request("4Gi" if training else "2Gi")
        task.set_memory_limit("16Gi" if training else "8Gi")
        if training and self.gpus:
            task.set_accelerator_type(self.gpu_resource).set_accelerator_limit(self.gpus)
        kubernetes.set_image_pull_policy(task, "IfNotPresent")
        kubernetes.set_timeout(task, self.timeout_seconds)
        # TensorFlow and Beam use shared memory; the cluster's default is 64 MB.
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit="1Gi")
        for volume in self.volumes:
            kubernetes.mount_pvc(task, volume.claim, volume.folder)
        if self.user is not None:
            kubernetes.set_security_context(
                task, run_as_user=self.user[0], run_as_group=self.user[1]
            )
        if self.google_secret:
            kubernetes.use_secret_as_volume(task, self.google_secret, _KEY_FOLDER)
            task.set_env_variable("GOOGLE_APPLICATION_CREDENTIALS", f"{_KEY_FOLDER}/{GOOGLE_KEY}")
        if self.pull_secrets:
            kubernetes.set_image_pull_secrets(task, list(self.pull_secrets))
        for key, value in self.node_labels:
            kubernetes.add_node_selector(task, key, value)
        for key, value in self.annotations:
            kubernetes.add_pod_annotation(task, key, value)


def volumes_of(settings: list[str]) -> tuple[Volume, ...]:
    """Checked volumes, from `claim:/folder`.

    Raises:
        InputError: another form, or a folder twice.
    """
    found: list[Volume] = []
    for setting in settings:
        claim, _, folder = setting.partition(":")
        if not claim or not PurePosixPath(folder).is_absolute():
            raise InputError(f"volume {setting!r}: expected claim:/folder")
        if folder in [volume.folder for volume in found]:
            raise InputError(f"volume {setting!r}: {folder} is given twice")
        found.append(Volume(claim, folder))
    return tuple(found)
