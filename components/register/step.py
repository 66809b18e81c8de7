"""Add a model version to Vertex AI's Model Registry, once for each run.

https://cloud.google.com/vertex-ai/docs/model-registry/introduction
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import google.api_core.exceptions
from google.cloud import aiplatform
from google.cloud.aiplatform.models import ModelRegistry

from components.register.names import CHAMPION, DEFAULT, check_names
from components.register.vertex_ai import started, vertex_errors
from trainer.errors import InputError
from trainer.files import read_json
from trainer.progress import say

RUN = "nextvlad_run"
"""Label of a version: the run that made it."""


@dataclasses.dataclass(frozen=True)
class Version:
    """What is registered; the fields are the register component's arguments."""

    artifact_uri: str
    serving_image: str
    aliases: Sequence[str] = ()
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kms_key: str = ""
    run: str = ""


def run_register(project: str, location: str, model: str, version: Version, evaluation: str) -> str:
    """Register a version and give it its aliases; returns its resource name.

    A second try of the step finds the version of the first one by the run's label.

    Args:
        project, location: of the registry.
        model: id of the model, made if it is not there.
        version: what is registered.
        evaluation: folder of evaluation.json.

    Raises:
        InputError: a name that the registry does not take, or it refuses.
    """
    check_names(model, version.aliases)
    if not version.artifact_uri.startswith("gs://"):
        raise InputError(
            f"model {model}: is at {version.artifact_uri}, expected gs://: the registry takes "
            "models from buckets alone"
        )
    gap = read_json(f"{evaluation}/evaluation.json")["metrics"]["model"]["gap"]
    started(project, location)
    with vertex_errors(f"model {model} of the registry"):
        parent = _registered(model)
        found = _known(parent, version) if parent else None
        if found is None:
            made = aiplatform.Model.upload(
                display_name=model,
                model_id=None if parent else model,
                parent_model=parent.resource_name if parent else None,
                artifact_uri=version.artifact_uri,
                serving_container_image_uri=version.serving_image,
                # components/serving takes these from the environment that Vertex AI sets.
                serving_container_predict_route="/predict",
                serving_container_health_route="/health",
                serving_container_ports=[8080],
                version_description=f"GAP@20 {gap:.4f}, pipeline run {version.run}",
                labels={**version.labels, RUN: version.run},
                encryption_spec_key_name=version.kms_key or None,
            )
            found = str(made.version_id)
            say("register", f"model {model} has version {found}, GAP@20 {gap:.4f}")
        else:
            say("register", f"model {model}: version {found} is this model already")
        whole = aiplatform.Model(model)
        move_aliases(ModelRegistry(whole), [CHAMPION, *version.aliases], found)
    return f"{whole.resource_name}@{found}"


def _registered(model: str) -> aiplatform.Model | None:
    try:
        return aiplatform.Model(model)
    except google.api_core.exceptions.NotFound:
        return None


def _known(parent: aiplatform.Model, version: Version) -> str | None:
    """The version that an earlier try made, or the default one if it is of the same files.

    A run that takes its export from the cache has no other model than the run before.
    """
    found = ModelRegistry(parent).list_versions(filter=f'labels.{RUN}="{version.run}"')
    if found:
        return str(found[0].version_id)
    same = str(parent.uri).rstrip("/") == version.artifact_uri.rstrip("/")
    return str(parent.version_id) if same else None


def move_aliases(registry: ModelRegistry, aliases: Sequence[str], version: str) -> None:
    """An alias is of one version alone: it is taken from the others first."""
    held: set[str] = set()
    for one in registry.list_versions():
        taken = sorted(set(one.version_aliases or ()) & set(aliases))
        if str(one.version_id) == version:
            held = set(taken)
        elif taken := [alias for alias in taken if alias != DEFAULT]:
            registry.remove_version_aliases(taken, str(one.version_id))
    if missing := [alias for alias in aliases if alias not in held]:
        registry.add_version_aliases(missing, version)
        say("register", f"version {version} is now {', '.join(aliases)}")
