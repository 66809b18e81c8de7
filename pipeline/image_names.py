"""Names of the container images: their tags are the digest of what is in them.

The same digest is in the cache key of every step on every target, so a changed source file, lock or
Dockerfile can neither meet an old image nor an old result.
"""

from __future__ import annotations

from pathlib import Path

from trainer.source_digest import source_digest

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "nextvlad-pipeline-{kind}"
KINDS = {
    "cpu": "every step, on CPUs",
    "gpu": "training and evaluation on GPUs, with CUDA",
    "serving": "the prediction server",
    "dataflow": "the statistics step's workers on Dataflow and other Beam engines",
}

LOCKS = ("bootstrap", "cpu", "gpu", "serving")


def code_digest() -> str:
    """Digest of what a step's result depends on beside its inputs: code, libraries, images."""
    locks = [ROOT / "requirements" / f"{name}.txt" for name in LOCKS]
    docker = sorted(path for path in (ROOT / "docker").iterdir() if path.is_file())
    return source_digest([ROOT / "trainer", ROOT / "components", *locks, *docker])


def image_name(kind: str, registry: str = "") -> str:
    """`registry/nextvlad-pipeline-<kind>:<digest>`; `{kind}` stays open for later."""
    prefix = f"{registry.rstrip('/')}/" if registry else ""
    return f"{prefix}{REPOSITORY.format(kind=kind)}:{code_digest()}"


def dockerfile(kind: str) -> Path:
    return ROOT / "docker" / f"{'steps' if kind in ('cpu', 'gpu') else kind}.Dockerfile"
