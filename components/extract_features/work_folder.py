"""What was done of an extraction so far, in a folder that its workers and this process share.

A file is whole or absent, and named by all that its content depends on: an extraction that was
killed goes on with what is there.
"""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.download.bucket_folder import in_bucket
from components.download.cloud_storage import CloudStorage
from trainer.errors import InputError
from trainer.files import atomic_file, local_path

ABOUT = "about"


@dataclasses.dataclass(frozen=True)
class WorkFolder:
    """Small files by name.

    Attributes:
        uri: of the folder: of this machine, or `gs://bucket/prefix`.
    """

    uri: str

    @property
    def is_local(self) -> bool:
        return not in_bucket(self.uri)

    @property
    def path(self) -> Path:
        return local_path(self.uri)

    def make(self) -> None:
        if self.is_local:
            self.path.mkdir(parents=True, exist_ok=True)

    def names(self) -> set[str]:
        """Of the files that are there."""
        if self.is_local:
            return {path.name for path in self.path.iterdir() if path.name[0] != "."}
        prefix = f"{self.uri.rstrip('/')}/"
        return {uri.removeprefix(prefix) for uri in CloudStorage().under(prefix)}

    def write(self, name: str, about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        content = io.BytesIO()
        encoded = np.frombuffer(json.dumps(about).encode(), np.uint8)
        np.savez(content, allow_pickle=False, **{ABOUT: encoded}, **arrays)
        if self.is_local:
            with atomic_file(self.path / name) as partial:
                partial.write_bytes(content.getbuffer())
        else:
            CloudStorage().write(f"{self.uri.rstrip('/')}/{name}", content.getvalue())

    def read(self, name: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What `write` was given.

        Raises:
            InputError: it is not there: the workers write to another place.
        """
        content = self._content(name)
        if content is None:
            raise InputError(
                f"the engine's workers did not leave {self.uri.rstrip('/')}/{name}, in a folder "
                "which they do not share with this machine; give --work, a place where all of "
                "them can write"
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            arrays = {key: found[key] for key in found.files}
        return json.loads(arrays.pop(ABOUT).tobytes()), arrays

    def _content(self, name: str) -> bytes | None:
        if not self.is_local:
            return CloudStorage().read(f"{self.uri.rstrip('/')}/{name}")
        path = self.path / name
        return path.read_bytes() if path.is_file() else None
