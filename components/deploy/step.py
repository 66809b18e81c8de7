"""Deploy a registered model to an endpoint, and share its traffic.

https://cloud.google.com/vertex-ai/docs/general/deployment
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from google.cloud import aiplatform

from components.register.vertex_ai import started, vertex_errors
from trainer.errors import InputError
from trainer.progress import say

BEFORE = "nextvlad_before"
"""Label of an endpoint: what to go back to."""
WHOLE = 100
"""Percent: the sum of an endpoint's traffic."""


@dataclasses.dataclass(frozen=True)
class Deployment:
    """How a model is deployed; the fields are the deploy component's arguments."""

    traffic: int = WHOLE
    machine_type: str = "n1-standard-4"
    accelerator: str = ""
    accelerators: int = 1
    replicas: int = 1
    most_replicas: int = 1
    keep: int = 1
    service_account: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kms_key: str = ""


def run_deploy(
    project: str, location: str, model: str, endpoint: str, deployment: Deployment
) -> str:
    """Deploy a version; returns the endpoint's resource name.

    A second try of the step finds what the first one deployed.

    Raises:
        InputError: several endpoints of that name, or Vertex AI refuses.
    """
    started(project, location)
    with vertex_errors(f"endpoint {endpoint}"):
        place = endpoint_named(endpoint) or aiplatform.Endpoint.create(
            display_name=endpoint,
            labels=dict(deployment.labels),
            encryption_spec_key_name=deployment.kms_key or None,
        )
        name, _, version = model.partition("@")
        found = _deployed(place, name, version)
        if found is None:
            stable = _stable(place)
            accelerated = bool(deployment.accelerator)
            # Of several canaries the older ones give theirs to the version that has most: what is
            # deployed is bounded so, and paid for by the hour.
            share = deployment.traffic if stable else WHOLE
            split = {"0": share, stable.id: WHOLE - share} if stable else {"0": share}
            if stable:
                place.update(labels={**place.labels, BEFORE: stable.id})
            place.deploy(
                aiplatform.Model(name, version=version or None),
                deployed_model_display_name=f"{name.rpartition('/')[2]} {version}",
                traffic_split={key: value for key, value in split.items() if value},
                machine_type=deployment.machine_type,
                accelerator_type=deployment.accelerator or None,
                accelerator_count=deployment.accelerators if accelerated else None,
                min_replica_count=deployment.replicas,
                max_replica_count=max(deployment.replicas, deployment.most_replicas),
                service_account=deployment.service_account or None,
            )
            say("deploy", f"endpoint {endpoint}: version {version} is deployed")
        else:
            say("deploy", f"endpoint {endpoint}: version {version} is deployed there already")
        _tidy(place, endpoint, deployment.keep, _deployed(place, name, version))
    return str(place.resource_name)


def endpoint_named(name: str) -> aiplatform.Endpoint | None:
    """The endpoint of a display name, or None.

    Raises:
        InputError: there are several.
    """
    found = aiplatform.Endpoint.list(filter=f'display_name="{name}"')
    if len(found) > 1:
        raise InputError(f"Vertex AI has {len(found)} endpoints {name}, expected one: delete some")
    return found[0] if found else None


def by_age(endpoint: aiplatform.Endpoint) -> list[Any]:
    """What is deployed there, the oldest first."""
    return sorted(endpoint.list_models(), key=lambda one: (one.create_time, one.id))


def _deployed(endpoint: aiplatform.Endpoint, name: str, version: str) -> Any:
    """This version there; the model may be named by the project's number or by its id."""
    model = name.rpartition("/")[2]
    for one in endpoint.list_models():
        found, _, of = one.model.partition("@")
        if found.rpartition("/")[2] == model and version in (of, one.model_version_id):
            return one
    return None


def before(endpoint: aiplatform.Endpoint) -> str:
    """The id of what had most of the traffic when the newest version came; empty: nothing."""
    return str(dict(endpoint.labels).get(BEFORE, ""))


def _stable(endpoint: aiplatform.Endpoint) -> Any:
    """What has most of the traffic, of several the newest; None: nothing is deployed."""
    split = dict(endpoint.traffic_split)
    deployed = by_age(endpoint)
    return max(reversed(deployed), key=lambda one: split.get(one.id, 0)) if deployed else None


def _tidy(endpoint: aiplatform.Endpoint, name: str, keep: int, new: Any) -> None:
    """Undeploy what has no traffic, but for a few: each is paid for by the hour.

    Those that stay are what had the traffic before, and then the newest.
    """
    split, last = dict(endpoint.traffic_split), before(endpoint)
    idle = [one for one in by_age(endpoint) if not split.get(one.id) and one.id != new.id]
    idle.sort(key=lambda one: one.id == last)
    for one in idle[: max(0, len(idle) - keep)]:
        endpoint.undeploy(one.id)
        say("deploy", f"endpoint {name}: {one.display_name} had no traffic and is undeployed")
    shares = ", ".join(
        f"{one.display_name} {split.get(one.id, 0)} %" for one in reversed(by_age(endpoint))
    )
    say("deploy", f"endpoint {name}: {shares}")
