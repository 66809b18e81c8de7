"""In-process on one machine: KFP's own runner, each step a process of this environment."""

from __future__ import annotations

from pipeline.image_names import code_digest
from pipeline.training_pipeline import Target


def local_target() -> Target:
    """No container is started; the image's name only carries the digest into KFP's cache key."""
    image = f"nextvlad-python:{code_digest()}"
    return Target("local", image, image)
