"""KFP on Kubernetes: what the DAG needs on a cluster."""

from __future__ import annotations

import dataclasses

from kfp import dsl, kubernetes

from pipeline.training_pipeline import Target

STEP_TIMEOUT_SECONDS = 24 * 3600
"""An image that can not be pulled never fails a run by itself; this does."""


@dataclasses.dataclass(frozen=True)
class KubernetesTarget(Target):
    """Requests, limits and pod settings; a GPU for training only where `gpus` asks for one."""

    gpus: int = 0

    def place(self, step: str, task: dsl.PipelineTask) -> None:
        training = step == "train"
        task.set_cpu_request("1").set_memory_request("4Gi" if training else "2Gi")
        task.set_memory_limit("16Gi" if training else "8Gi")
        if training and self.gpus:
            task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(self.gpus)
        kubernetes.set_image_pull_policy(task, "IfNotPresent")
        kubernetes.set_timeout(task, STEP_TIMEOUT_SECONDS)
        # TensorFlow and Beam use shared memory; the cluster's default is 64 MB.
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit="1Gi")
