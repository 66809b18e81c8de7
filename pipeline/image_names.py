"""Names of the container images: their tags are the digest of what is in them.

The same digest is in the cache key of every step on every target, so a changed source file, lock or
Dockerfile can neither meet an old image nor an old result.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import IO

from trainer.source_digest import source_digest, source_files

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
    return source_digest(_parts())


def write_context(file: IO[bytes]) -> None:
    """Write the build context, a tar archive: the files that the digest is of and no others.

    Whatever the checkout's owner and permissions are, all may read them in an image.
    """
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path in (path for part in _parts() for path in source_files(part)):
            entry = tarfile.TarInfo(path.relative_to(ROOT).as_posix())
            entry.size, entry.mode = path.stat().st_size, 0o644
            entry.mtime = int(path.stat().st_mtime)
            with path.open("rb") as content:
                archive.addfile(entry, content)


def _parts() -> list[Path]:
    locks = [ROOT / "requirements" / f"{name}.txt" for name in LOCKS]
    docker = sorted(path for path in (ROOT / "docker").iterdir() if path.is_file())
    return [ROOT / "trainer", ROOT / "components", *locks, *docker]


def image_name(kind: str, registry: str = "") -> str:
    """`registry/nextvlad-pipeline-<kind>:<digest>`; `{kind}` stays open for later."""
    prefix = f"{registry.rstrip('/')}/" if registry else ""
    return f"{prefix}{REPOSITORY.format(kind=kind)}:{code_digest()}"


def dockerfile(kind: str) -> Path:
    return ROOT / "docker" / f"{'steps' if kind in ('cpu', 'gpu') else kind}.Dockerfile"
