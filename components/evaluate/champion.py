"""Where a champion is: a folder, a bucket, or Vertex AI's Model Registry."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google.api_core.exceptions
import google.auth.exceptions
from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

from components.download.cloud_storage import SCHEME, CloudStorage
from components.download.local_store import md5_of
from trainer.errors import InputError
from trainer.files import BUCKETS, local_path

_REGISTERED = re.compile(
    r"projects/(?P<project>[^/]+)/locations/(?P<location>[a-z0-9-]+)/models/[^/@]+(@[^/]+)?"
)
_SECONDS = 60.0


def resolved(champion: str) -> tuple[str, str]:
    """Where a champion's files are now, and a digest of what they are.

    Args:
        champion: a folder, `gs://bucket/prefix`, or `projects/P/locations/L/models/M`, optionally
            with `@version` (without one: the default version); empty: none.

    Returns:
        A path or `gs://` URI, and the digest; both empty if there is no champion.

    Raises:
        InputError: there is none, or it can not be looked up.
    """
    if not champion:
        return "", ""
    uri = _registered(champion) if champion.startswith("projects/") else champion
    facts = [uri]
    if _in_bucket(uri):
        for one in _objects(uri).values():
            facts.append(f"{one.uri} {one.generation}")
    else:
        folder = local_path(uri)
        if not folder.is_dir():
            raise InputError(f"champion {champion}: no such folder: {folder}")
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            facts.append(f"{path.relative_to(folder)} {md5_of(path)}")
    return uri, hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]


@contextlib.contextmanager
def local_folder(uri: str) -> Iterator[Path]:
    """The files of `resolved`'s URI on this machine, as long as the context lasts."""
    if not _in_bucket(uri):
        yield local_path(uri)
        return
    with tempfile.TemporaryDirectory() as scratch:
        storage = CloudStorage()
        prefix = f"{uri.rstrip('/')}/"
        for one in _objects(uri):
            target = Path(scratch) / one.removeprefix(prefix)
            if Path(scratch) not in target.resolve().parents:
                raise InputError(f"champion {uri}: has an object with the name {one!r}")
            content = storage.read(one)
            if content is None:
                raise InputError(f"champion {uri}: {one} went away while it was read")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield Path(scratch)


def _in_bucket(uri: str) -> bool:
    """Whether it has to be fetched: in a bucket, none of which is mounted."""
    return uri.startswith(SCHEME) and not BUCKETS.is_dir()


def _objects(uri: str) -> dict[str, Any]:
    found = CloudStorage().under(f"{uri.rstrip('/')}/")
    files = {name: one for name, one in sorted(found.items()) if not name.endswith("/")}
    if not files:
        raise InputError(f"champion {uri}: nothing is there")
    return files


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
        reason = " ".join(str(error).split())
        raise InputError(f"champion {name}: Vertex AI does not give it: {reason}") from None
    if not model.artifact_uri:
        raise InputError(f"champion {name}: the registry has no files of it (artifact_uri)")
    uri: str = model.artifact_uri
    return uri


def _model_service(location: str) -> ModelServiceClient:
    return ModelServiceClient(
        client_options={"api_endpoint": f"{location}-aiplatform.googleapis.com"}
    )
