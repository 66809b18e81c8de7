"""Copy a run's artifacts to where they outlive its cluster, whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.download.bucket_folder import in_bucket
from components.download.cloud_storage import CloudStorage
from trainer.errors import InputError
from trainer.files import atomic_directory, json_bytes, local_path, write_file
from trainer.progress import say

RESULTS = "RESULTS.json"
"""Written last: where it is, the rest is whole."""


def results_of(destination: str, run: str) -> str:
    """Where the results of a run are, below a folder or `gs://` prefix."""
    return f"{destination.rstrip('/')}/runs/{run}"


def run_publish(
    destination: str, run: str, artifacts: Mapping[str, str], verdict: Mapping[str, Any]
) -> str:
    """Copy artifacts to `destination/runs/RUN`; returns that place.

    Args:
        destination: folder or `gs://bucket/prefix`; empty: nothing is copied.
        run: id of the run.
        artifacts: folders by name.
        verdict: the gate's `blessed` and `reason`.

    Raises:
        InputError: an artifact is not there, or the place can not be written to.
    """
    if not destination:
        say("publish", "no destination: the results stay in the cluster's store of artifacts")
        return ""
    place = results_of(destination, run)
    files = {}
    for name, folder in artifacts.items():
        if not Path(folder).is_dir():
            raise InputError(f"artifact {name}: {folder} is no folder")
        files[name] = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    sizes = {
        f"{name}/{path.relative_to(artifacts[name]).as_posix()}": path.stat().st_size
        for name, paths in files.items()
        for path in paths
    }
    results = {
        "run": run,
        "blessed": bool(verdict["blessed"]),
        "reason": str(verdict["reason"]),
        "artifacts": sorted(artifacts),
        "files": sizes,
    }
    if in_bucket(destination):
        storage = CloudStorage()
        storage.delete(f"{place}/{RESULTS}")  # of a try before this one
        for name in artifacts:
            for path in files[name]:
                relative = path.relative_to(artifacts[name]).as_posix()
                storage.write(f"{place}/{name}/{relative}", path.read_bytes())
        storage.write(f"{place}/{RESULTS}", json_bytes(results))
    else:
        local_path(f"{place}/{RESULTS}").unlink(missing_ok=True)
        for name, folder in artifacts.items():
            with atomic_directory(local_path(f"{place}/{name}")) as partial:
                shutil.copytree(folder, partial, dirs_exist_ok=True)
        write_file(local_path(f"{place}/{RESULTS}"), json_bytes(results))
    say("publish", f"{len(sizes)} files, {sum(sizes.values()) / 1e6:,.1f} MB: {place}")
    return place
