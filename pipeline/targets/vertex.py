"""Vertex AI Pipelines: machines by step."""

from __future__ import annotations

import dataclasses

from kfp import dsl

from pipeline.training_pipeline import Target


@dataclasses.dataclass(frozen=True)
class VertexTarget(Target):
    """Machine sizes, and the accelerator of the train step by its Vertex name.

    Vertex picks the machine type that fits the limits:
    https://cloud.google.com/vertex-ai/docs/pipelines/machine-types.
    """

    accelerator: str = "NVIDIA_TESLA_T4"
    accelerators: int = 1

    def place(self, step: str, task: dsl.PipelineTask) -> None:
        large = step in ("train", "evaluate")
        task.set_cpu_limit("8" if large else "4").set_memory_limit("30G" if large else "16G")
        if step == "train" and self.accelerators:
            task.set_accelerator_type(self.accelerator).set_accelerator_limit(self.accelerators)
