"""Endpoints: who answers with what, back to the version before, and an end to what is paid for."""

from __future__ import annotations

from typing import Any

from google.cloud import aiplatform
from google.cloud.aiplatform.models import ModelRegistry

from components.deploy.step import WHOLE, before, by_age, endpoint_named
from components.register.names import CHAMPION, DEFAULT
from components.register.step import move_aliases
from components.register.vertex_ai import vertex_errors
from trainer.errors import InputError


def describe(name: str) -> list[str]:
    """A line for each version on the endpoint of a name, the newest first.

    Raises:
        InputError: there is no such endpoint.
    """
    with vertex_errors(f"endpoint {name}"):
        endpoint = _endpoint(name)
        return _lines(endpoint)


def roll_back(name: str) -> list[str]:
    """All traffic to the version that had it before the newest one came, and the aliases with it.

    Returns:
        What `describe` says afterwards.

    Raises:
        InputError: no such endpoint, or no version from before is deployed.
    """
    with vertex_errors(f"endpoint {name}"):
        endpoint = _endpoint(name)
        split = dict(endpoint.traffic_split)
        deployed = by_age(endpoint)
        busy = [place for place, one in enumerate(deployed) if split.get(one.id)]
        newest = deployed[busy[-1]] if busy else None
        marked = [one for one in deployed if newest and one.id == before(endpoint) != newest.id]
        if not newest or not (marked or busy[-1]):
            raise InputError(
                f"endpoint {name}: no version from before is deployed there, so there is none "
                "to go back to: VERTEX=keep=1 keeps one"
            )
        back = marked[0] if marked else deployed[busy[-1] - 1]
        endpoint.update(traffic_split={back.id: WHOLE})
        # The next model has to beat what answers now, not what was taken back.
        model = aiplatform.Model(back.model.partition("@")[0])
        move_aliases(ModelRegistry(model), [CHAMPION, DEFAULT], back.model_version_id)
        return _lines(endpoint)


def undeploy(name: str) -> int:
    """Take all versions off an endpoint, and delete it; returns how many there were.

    The models stay in the registry.

    Raises:
        InputError: there is no such endpoint.
    """
    with vertex_errors(f"endpoint {name}"):
        endpoint = _endpoint(name)
        count = len(endpoint.list_models())
        endpoint.delete(force=True)
        return count


def _endpoint(name: str) -> aiplatform.Endpoint:
    if not name:
        raise InputError("ENDPOINT is missing, expected its display name")
    endpoint = endpoint_named(name)
    if endpoint is None:
        raise InputError(f"endpoint {name}: there is none in this project and region")
    return endpoint


def _lines(endpoint: aiplatform.Endpoint) -> list[str]:
    split = dict(endpoint.traffic_split)
    return [_line(one, split.get(one.id, 0)) for one in reversed(by_age(endpoint))]


def _line(one: Any, share: int) -> str:
    resources = one.dedicated_resources
    machine = resources.machine_spec.machine_type
    count = resources.min_replica_count
    return f"{one.display_name:<40} {share:>3} %  {count} × {machine}"
