"""Vertex AI's SDK: one way to start it, and its failures as one line."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator

import google.api_core.exceptions as api
import google.auth.exceptions
import requests
from google.cloud import aiplatform
from google.protobuf.json_format import ParseError

from trainer.errors import InputError

LOGIN = "gcloud auth application-default login"
FAILURES = (
    api.GoogleAPIError,
    google.auth.exceptions.GoogleAuthError,
    requests.RequestException,
    ParseError,
    ConnectionError,
    TimeoutError,
)
"""What Google's libraries raise that is no bug of ours."""

_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (google.auth.exceptions.DefaultCredentialsError, "no credentials are there: {login}"),
    (google.auth.exceptions.RefreshError, "the credentials have expired or were revoked: {login}"),
    (google.auth.exceptions.TransportError, "can not be reached: is there a network?"),
    (api.Unauthenticated, "does not take the credentials: {login}"),
    (api.Unauthorized, "does not take the credentials: {login}"),
    (api.Forbidden, "does not let this account do that: docs/vertex.md has the roles"),
    (api.NotFound, "is not there"),
    (api.TooManyRequests, "no quota is left, or too much was asked at once"),
    (api.Conflict, "is there already"),
)


def started(project: str, location: str) -> None:
    """Tell the SDK where to work; credentials and address stay those that it was given before."""
    aiplatform.init(project=project, location=location, api_transport="rest")


def in_words(error: BaseException) -> str:
    """A failure of Google's libraries as part of a line: what it is, what Google says of it."""
    if isinstance(error, ParseError):
        return "something else than its API answers: is a proxy, or a page to log in at, between?"
    said = said_by(error)
    for kind, words in _WORDS:
        if isinstance(error, kind):
            plain = words.format(login=LOGIN)
            return f"{plain} ({said})" if said else plain
    if isinstance(error, (api.ServerError, api.RetryError)):
        return f"can not answer now ({said}): try again later"
    if isinstance(error, api.GoogleAPIError):
        return f"refuses it: {said}" if said else type(error).__name__
    return f"can not be reached ({said or type(error).__name__})"


def said_by(error: BaseException) -> str:
    """What the service says, on one line; of JSON the message alone."""
    text = str(getattr(error, "message", "") or error)
    with contextlib.suppress(ValueError, TypeError, AttributeError, LookupError):
        text = json.loads(text[text.index("{") :])["error"]["message"]
    text = re.sub(r"^(GET|POST|PATCH|DELETE|PUT) \S+: ", "", " ".join(text.split()))
    return text[:300]


@contextlib.contextmanager
def vertex_errors(what: str) -> Iterator[None]:
    """Failures of Google's services in the block as `InputError`s that name what they are of."""
    try:
        yield
    except FAILURES as error:
        raise InputError(f"Vertex AI: {what}: {in_words(error)}") from None
