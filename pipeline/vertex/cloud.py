"""A signed-in session for Google Cloud: the REST APIs, and the SDK beside them."""

from __future__ import annotations

import functools
import logging
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import google.api_core.exceptions
import google.auth
import google.auth.exceptions
import requests
from google.auth.transport.requests import AuthorizedSession
from google.cloud import aiplatform

from components.register.vertex_ai import LOGIN
from pipeline.targets.vertex_settings import Home
from trainer.errors import InputError

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_GOOGLES = re.compile(r"([a-z0-9-]+\.)*(googleapis\.com|pkg\.dev|gcr\.io)")
SECONDS = 60.0
"""That a request may take."""


class Cloud:
    """Google Cloud as this machine's credentials see it.

    Args:
        home: project and region.
        credentials: in place of the machine's.
        addresses: `http://host:port` in place of an API's `https://NAME`, by NAME.

    Raises:
        InputError: no credentials are there.
    """

    def __init__(
        self, home: Home, credentials: Any = None, addresses: Mapping[str, str] | None = None
    ) -> None:
        self.home = home
        self._addresses = dict(addresses or {})
        if credentials is None:
            try:
                credentials, _ = google.auth.default(scopes=[SCOPE], quota_project_id=home.project)
            except google.auth.exceptions.GoogleAuthError:
                raise InputError(f"no Google Cloud credentials are there: {LOGIN}") from None
        self.credentials = credentials
        _quiet()
        vertex = f"{home.region}-aiplatform.googleapis.com"
        more: dict[str, Any] = {}
        if vertex in self._addresses:
            more["api_endpoint"] = self._addresses[vertex]
        aiplatform.init(
            project=home.project,
            location=home.region,
            staging_bucket=home.root if home.bucket else None,
            credentials=credentials,
            # By gRPC credentials that have expired are "unavailable", which is tried again.
            api_transport="rest",
            **more,
        )

    @functools.cached_property
    def _session(self) -> AuthorizedSession:
        return AuthorizedSession(self.credentials)

    def ask(self, host: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a GET, or, with a body, to a POST.

        Args:
            host: `logging.googleapis.com`.
            path: `/v2/entries:list`, with its query.
            body: JSON.

        Raises:
            google.api_core.exceptions.GoogleAPIError: another status than 200.
            google.auth.exceptions.GoogleAuthError: the credentials have expired.
            requests.RequestException: no answer.
        """
        answer = self.request(host, path, body=body)
        if answer.status_code != 200:
            raise google.api_core.exceptions.from_http_response(answer)
        try:
            content = answer.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise google.api_core.exceptions.Unknown(f"{host} answers something else than JSON")
        return content

    def request(
        self,
        host: str,
        path: str,
        method: str = "",
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The response itself, whatever its status; the credentials are shown to Google alone."""
        url = self._addresses.get(host, f"https://{host}") + path
        session = self._session if _GOOGLES.fullmatch(host) else requests.Session()
        return session.request(
            method or ("GET" if body is None else "POST"), url, json=body, headers=headers,
            timeout=SECONDS,
        )  # fmt: skip

    def pages(self, host: str, path: str, name: str) -> list[dict[str, Any]]:
        """All items of a list that comes in pages."""
        found: list[dict[str, Any]] = []
        mark = ""
        while True:
            token = urllib.parse.quote(mark, safe="")
            query = f"{'&' if '?' in path else '?'}pageToken={token}" if mark else ""
            answer = self.ask(host, path + query)
            found += answer.get(name, [])
            mark = answer.get("nextPageToken", "")
            if not mark:
                return found


def _quiet() -> None:
    """The SDK says of each call what it does, by loggers with levels and handlers of their own.

    What it shows of a bucket of another project is a traceback; `preflight` says it in words.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("google.cloud.aiplatform"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
