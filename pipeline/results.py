"""Where the artifacts of a local run are, whether a step ran or its earlier result was used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kfp import dsl
from kfp.local import cache

from trainer.errors import InputError


class RecordingCache(cache.LocalCache):
    """KFP's local cache, which also remembers the outputs that went through it.

    Args:
        cache_root: folder of the cache.
        on_hit: called with the step's name when its earlier result is used.
        reuse: whether earlier results are used at all.

    The runner tells nobody where a task's outputs are if the task was skipped; they pass here in
    either case.

    Attributes:
        outputs: by name of the output; names are unique in the DAG but for metrics and reports.
    """

    def __init__(self, cache_root: str, on_hit: Callable[[str], None], reuse: bool = True) -> None:
        super().__init__(cache_root)
        self.outputs: dict[str, Any] = {}
        self._on_hit = on_hit
        self._reuse = reuse
        self._steps: dict[str, str] = {}

    def compute_key(self, component_name: str, **kwargs: Any) -> str:
        key: str = super().compute_key(component_name=component_name, **kwargs)
        self._steps[key] = component_name.removeprefix("comp-")
        return key

    def get(self, key: str) -> dict[str, Any] | None:
        outputs: dict[str, Any] | None = super().get(key) if self._reuse else None
        if outputs is not None:
            self.outputs.update(outputs)
            self._on_hit(self._steps[key])
        return outputs

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        super().put(key, outputs)
        self.outputs.update(outputs)

    def install(self) -> None:
        """Make KFP use this cache; after `local.init`, which resets it."""
        cache._cache_singleton = self
        cache._cache_singleton_root = self.cache_root

    def folder(self, name: str) -> str:
        """The path of an artifact.

        Raises:
            InputError: no step of the run has that output.
        """
        artifact = self.outputs.get(name)
        if not isinstance(artifact, dsl.Artifact):
            raise InputError(f"the run has no artifact {name}")
        return str(artifact.path)
