"""Where a champion is: a folder, a bucket, or Vertex AI's Model Registry."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import google.api_core.exceptions
import google.auth.exceptions

from components.download.bucket_folder import in_bucket, objects_under
from components.download.local_store import md5_of
from trainer.errors import InputError
from trainer.files import local_path
from trainer.progress import say

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

REGISTERED = "registered"
"""In place of a model's name: the one that this pipeline registers."""
_REGISTERED = re.compile(
    r"projects/(?P<project>[^/]+)/locations/(?P<location>[a-z0-9-]+)/models/[^/@]+(@[^/]+)?"
)
_MODELS = ("model.keras", "saved_model/saved_model.pb", "saved_model.pb")
_SECONDS = 60.0


def resolved(champion: str, registered: str = "") -> tuple[str, str]:
    """Where a champion's files are now, and a digest of what they are.

    Args:
        champion: a folder, `gs://bucket/prefix`, or `projects/P/locations/L/models/M`, optionally
            with `@version` (without one: the default version); `registered`: what this pipeline
            registered last, and nothing before it has; empty: none.
        registered: the name that `registered` stands for; empty: there is no registry here.

    Returns:
        A path or `gs://` URI, and the digest; both empty if there is no champion.

    Raises:
        InputError: there is none, or it can not be looked up.
    """
    if champion == REGISTERED:
        if not registered:
            raise InputError(
                f"champion {REGISTERED}: this pipeline has no Model Registry to look into, give a "
                "folder, a gs:// URI or projects/P/locations/L/models/M"
            )
        champion = _of_registry(registered)
    if not champion:
        return "", ""
    uri = _registered(champion) if champion.startswith("projects/") else champion
    facts = [uri]
    if in_bucket(uri):
        objects = objects_under(uri, "champion")
        prefix = f"{uri.rstrip('/')}/"
        _check_models(champion, (name.removeprefix(prefix) for name in objects))
        for one in objects.values():
            facts.append(f"{one.uri} {one.generation}")
    else:
        folder = local_path(uri)
        if not folder.is_dir():
            raise InputError(f"champion {champion}: no such folder: {folder}")
        _check_models(champion, (name for name in _MODELS if (folder / name).is_file()))
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            facts.append(f"{path.relative_to(folder)} {md5_of(path)}")
    return uri, hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]


class NotRegisteredError(InputError):
    """The Model Registry has no such model."""


@contextlib.contextmanager
def named(champion: str) -> Iterator[None]:
    """Errors that say which of the models they are of."""
    try:
        yield
    except InputError as error:
        raise InputError(f"champion {champion}: {error}") from None


class _OfVideos(Protocol):
    video_ids: list[str]


def check_same_videos(champion: str, one: _OfVideos, other: _OfVideos) -> None:
    """Raise `InputError` unless two models were scored on the same videos in the same order."""
    if one.video_ids != other.video_ids:
        raise InputError(f"champion {champion}: was not scored on the same videos as the model")


def _check_models(champion: str, names: Iterable[str]) -> None:
    """Raise `InputError` unless one of the files is a model: hours before it is loaded."""
    if not set(names) & set(_MODELS):
        raise InputError(
            f"champion {champion}: has no model: expected {', '.join(_MODELS[:-1])} or "
            f"{_MODELS[-1]} there"
        )


def _of_registry(name: str) -> str:
    """The name, or without its alias where no version has that; empty: no such model yet.

    An alias is off for a moment while it moves to another version, and people take it off: that
    must not let a model pass without a comparison. The first run of a pipeline finds no model.
    """
    for one in dict.fromkeys((name, name.partition("@")[0])):
        try:
            _registered(one)
        except NotRegisteredError:
            continue
        return one
    say("download", f"champion {name}: there is none yet, the model is compared with no other")
    return ""


def _registered(name: str) -> str:
    """The artifact folder of a model in the registry.

    https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.models/get
    """
    found = _REGISTERED.fullmatch(name)
    if not found:
        raise InputError(
            f"champion {name}: expected projects/PROJECT/locations/LOCATION/models/MODEL"
        )
    try:
        model = _model_service(found["location"]).get_model(name=name, timeout=_SECONDS)
    except (
        google.api_core.exceptions.GoogleAPIError, google.auth.exceptions.GoogleAuthError
    ) as error:  # fmt: skip
        kind = (
            NotRegisteredError
            if isinstance(error, google.api_core.exceptions.NotFound)
            else InputError
        )
        reason = " ".join(str(error).split())
        raise kind(f"champion {name}: Vertex AI does not give it: {reason}") from None
    if not model.artifact_uri:
        raise InputError(f"champion {name}: the registry has no files of it (artifact_uri)")
    uri: str = model.artifact_uri
    say("download", f"champion {name}: version {model.version_id} at {uri}")
    return uri


def _model_service(location: str) -> ModelServiceClient:
    # A second to import, which only a champion of the registry is worth.
    from google.cloud.aiplatform_v1.services.model_service import (  # noqa: PLC0415
        ModelServiceClient,
    )

    return ModelServiceClient(
        client_options={"api_endpoint": f"{location}-aiplatform.googleapis.com"}
    )
