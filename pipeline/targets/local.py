"""In-process on one machine: KFP's own runner, each step a process of this environment."""

from __future__ import annotations

from pathlib import Path

from pipeline.training_pipeline import Target
from trainer.source_digest import source_digest

ROOT = Path(__file__).resolve().parents[2]


def code_digest() -> str:
    """Digest of what a step's result depends on beside its inputs: the code and the libraries."""
    locks = [ROOT / "requirements" / name for name in ("cpu.txt", "gpu.txt")]
    return source_digest([ROOT / "trainer", ROOT / "components", *locks])


def local_target() -> Target:
    """No container is started; the image's name only carries the digest into KFP's cache key."""
    image = f"nextvlad-python:{code_digest()}"
    return Target("local", image, image)
