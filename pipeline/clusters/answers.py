"""What KFP's API answers: bounded in time, proved to be KFP's, and its refusals as one line."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
from kfp_server_api.exceptions import ApiException, OpenApiException

HEALTH = "its health"
_PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers that another attempt may change."""


class OtherAnswerError(Exception):
    """Something else than KFP answers."""


FAILURES = (OpenApiException, urllib3.exceptions.HTTPError, ValueError, OtherAnswerError)
"""What KFP's client raises."""

_WORDS = {
    401: "KFP at {host} does not take the credentials (401{said}): give a token with "
    "KFP_TOKEN_FILE=…, or a new one if it has expired",
    403: "KFP at {host} does not let this user do that (403{said}): {what}",
    404: "KFP at {host} has no {what} (404{said})",
    409: "KFP at {host} has {what} already (409{said})",
    429: "KFP at {host} is asked too much (429{said}), try again later: {what}",
    502: "KFP at {host} can not answer now ({status}{said}): are its pods up?",
    503: "KFP at {host} can not answer now ({status}{said}): are its pods up?",
    504: "KFP at {host} can not answer now ({status}{said}): are its pods up?",
}
_REFUSED = "KFP at {host} refuses {what} ({status}{said})"
_NO_KFP = (
    "{host} is no KFP endpoint (404 for /apis/v2beta1/healthz): KFP_HOST has to be the address of "
    "its API server or of its UI"
)
_OTHER = (
    "{host} answers something else than KFP's API: is KFP_HOST right, or is this a page to log in "
    "at (give a token with KFP_TOKEN_FILE=…)?"
)
_SILENT = "KFP at {host} does not answer ({reason}): is it up, is KFP_HOST right?"


def passes(error: BaseException) -> bool:
    """Whether another attempt may bring another answer."""
    if isinstance(error, ApiException):
        return error.status in _PASSING
    return isinstance(error, urllib3.exceptions.HTTPError)


def in_words(host: str, what: str, error: BaseException) -> str:
    """A failure as one line, with what to do.

    Args:
        host: that was asked.
        what: it was about.
        error: one of `FAILURES`.
    """
    if isinstance(error, OtherAnswerError):
        return _OTHER.format(host=host)
    if isinstance(error, ApiException) and error.status:
        words = _WORDS.get(error.status, _REFUSED)
        if error.status == 404 and what == HEALTH:
            words = _NO_KFP
        return words.format(host=host, what=what, status=error.status, said=_said(error))
    if isinstance(error, ValueError) and not isinstance(error, OpenApiException):
        return f"KFP at {host}: {error}"
    return _SILENT.format(host=host, reason=_reason(error))


def bounded(
    request: Callable[..., Any], timeout: tuple[float, float], *arguments: Any, **named: Any
) -> Any:
    """A request of the generated client, with a time-out, whose answer has to be JSON."""
    if not named.get("_request_timeout"):
        named["_request_timeout"] = timeout
    answer = request(*arguments, **named)
    try:
        whole = isinstance(json.loads(answer.data), dict)
    except ValueError:
        whole = False
    if not whole:
        raise OtherAnswerError
    return answer


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep KFP's client from printing links and logging tracebacks."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _said(error: ApiException) -> str:
    """What the server says of its refusal, after a colon; empty: nothing that people can read."""
    try:
        content = json.loads(error.body)
        words = str(content.get("message") or content.get("error") or "")
    except (ValueError, TypeError, AttributeError):
        return ""
    words = " ".join(words.split())
    return f": {words[:300]}" if words else ""


def _reason(error: BaseException) -> str:
    """What a connection died of."""
    words = " ".join(str(getattr(error, "reason", None) or error).split())
    words = re.sub(r"^<[^>]*>: |^[\w.]+\(.*\): |\(?<[^>]*>,? ?", "", words)
    return words[:200] or type(error).__name__
