"""A connection to KFP's API by its own client: bounded in time, tried again where that is safe."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import kfp
import tenacity
import urllib3
from kfp.client.token_credentials_base import TokenCredentialsBase

from pipeline.clusters.answers import (
    FAILURES,
    HEALTH,
    OtherAnswerError,
    bounded,
    in_words,
    passes,
    quiet,
)
from trainer.errors import InputError

Answer = TypeVar("Answer")
_CONNECT_SECONDS = 10.0
_TEXT_SECONDS = 10.0
_TEXT_BYTES = 64 << 20
_OK = 200
_OUTAGE_ATTEMPTS = 4
_REFUSED = (408, 425, 429, 503)
"""Answers that say that nothing was done. A gateway's 502 or 504 does not."""


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long a client waits.

    Attributes:
        answer_seconds: for one answer.
        connect_seconds: for the first answer.
        outage_seconds: for an endpoint that gives none any more, or says that it is busy.
        first_wait, longest_wait: seconds between two attempts.
    """

    answer_seconds: float = 60.0
    connect_seconds: float = 15.0
    outage_seconds: float = 300.0
    first_wait: float = 1.0
    longest_wait: float = 20.0


class _Client(kfp.Client):  # type: ignore[misc]
    """KFP's client, which neither asks before it has time-outs nor reads notes of other clients."""

    def _load_context_setting_or_default(self) -> None:
        self._context_setting = {"namespace": "known later"}


class _TokenFile(TokenCredentialsBase):
    """A token that somebody else renews: read anew for each request."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def refresh_api_key_hook(self, config: Any) -> None:
        # Whoever renews the file may be writing it just now: then the one before is shown.
        with contextlib.suppress(InputError):
            config.api_key["authorization"] = token_in(self._path)


def checked_token(token: str, where: str) -> str:
    """A token, without the blanks around it.

    Raises:
        InputError: nothing that a header can carry; the message does not show it.
    """
    token = token.strip()
    if not token.isascii() or not token.isprintable() or len(token.split()) != 1:
        raise InputError(f"{where}: expected one token, found {len(token.split())} words")
    return token


def token_in(path: Path) -> str:
    """The token that a file holds.

    Raises:
        InputError: there is no such file, or nothing in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"token file {path}: {getattr(error, 'strerror', error)}") from None
    return checked_token(text, f"token file {path}")


class Connection:
    """One KFP deployment.

    Args:
        host: `http://…` or `https://…` of its API server, or of its UI, which passes on.
        token: to show, where there is no file of one; empty: none.
        token_file: holds the token, and is read anew for each request.
        namespace: of the user, where there are several; empty: the only one.
        ca: PEM file of certificates to trust in place of the public ones.
        patience: how long to wait.
        pages: address of its web pages; empty: the same.

    Raises:
        InputError: nothing there that speaks KFP's API, or it does not let this user in.
    """

    def __init__(
        self,
        host: str,
        token: str = "",
        token_file: Path | None = None,
        namespace: str = "",
        ca: Path | None = None,
        patience: Patience | None = None,
        pages: str = "",
    ) -> None:
        if not re.match(r"https?://[^/\s]+", host):
            raise InputError(
                f"KFP_HOST is {host!r}, expected an address such as http://localhost:8888 (of a "
                "port-forward) or https://kfp.example.com"
            )
        if ca is not None and not ca.is_file():
            raise InputError(f"certificates {ca}: no such file")
        self.host = host.rstrip("/")
        self.pages = pages or self.host
        self.namespace = namespace
        self._patience = patience or Patience()
        credentials = None
        if token_file is not None:
            token_in(token_file)
            token, credentials = "", _TokenFile(token_file)
        elif token:
            token = checked_token(token, "KFP_TOKEN")
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore", FutureWarning)
            self.client = _Client(
                host=self.host, existing_token=token or None, credentials=credentials,
                namespace="kubeflow", ssl_ca_cert=str(ca) if ca else None,
            )  # fmt: skip
        self.client._context_setting = {"namespace": namespace}
        self._bound_answers()
        health = self.ask(
            HEALTH,
            self.client._healthz_api.healthz_service_get_healthz,
            self._patience.connect_seconds,
        )
        if health.multi_user is None:
            raise InputError(in_words(self.host, HEALTH, OtherAnswerError()))
        if health.multi_user and not namespace:
            raise InputError(
                f"KFP at {self.host} has several users: say whose namespace with KFP_NAMESPACE=…"
            )

    def _bound_answers(self) -> None:
        """Give each request a time-out, and no attempt of its own: only some may be repeated."""
        rest = self.client._run_api.api_client.rest_client
        timeout = (_CONNECT_SECONDS, self._patience.answer_seconds)
        rest.request = functools.partial(bounded, rest.request, timeout)
        rest.pool_manager.connection_pool_kw["retries"] = urllib3.Retry(
            3, connect=0, read=0, status=0, other=0, redirect=3
        )

    def once(self, what: str, request: Callable[[], str], done_already: Callable[[], str]) -> str:
        """Send what must not be done twice until it is known to be done; returns an id."""
        deadline = time.monotonic() + self._patience.outage_seconds
        while True:
            try:
                with quiet():
                    return request()
            except FAILURES as error:
                if not passes(error) or time.monotonic() > deadline:
                    raise InputError(in_words(self.host, what, error)) from None
                refused = getattr(error, "status", 0) in _REFUSED or "refused" in str(error)
            # One that was taken and not answered may still be at work there.
            until = time.monotonic() + (0 if refused else self._patience.answer_seconds)
            while True:
                time.sleep(self._patience.first_wait)
                if found := done_already():
                    return found
                if time.monotonic() >= until:
                    break

    def ask(self, what: str, request: Callable[[], Answer], outage: float | None = None) -> Answer:
        """Ask until there is an answer; `what` it is about is for the error's line."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(passes),
            stop=tenacity.stop_after_delay(outage or self._patience.outage_seconds),
            wait=tenacity.wait_random_exponential(
                self._patience.first_wait, max=self._patience.longest_wait
            ),
            before_sleep=_say_once,
            reraise=True,
        )

        def quietly() -> Answer:
            with quiet():
                return request()

        try:
            return retrying(quietly)
        except FAILURES as error:
            raise InputError(in_words(self.host, what, error)) from None

    def text(self, address: str) -> str | None:
        """A page of plain text; None: it can not be had, or is something else."""
        api = self.client._run_api.api_client
        headers: dict[str, str] = dict(api.default_headers)
        api.update_params_for_auth(headers, [], ["Bearer"])
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_TEXT_SECONDS)
        try:
            answer = api.rest_client.pool_manager.request(
                "GET", address, headers=headers, timeout=timeout, preload_content=False
            )
            try:
                text = bytes(answer.read(_TEXT_BYTES)).decode(errors="replace")
            finally:
                answer.close()  # what was not read must not be taken for the next answer
        except urllib3.exceptions.HTTPError:
            return None
        page = "html" in answer.headers.get("Content-Type", "")
        failed = answer.status != _OK or text.startswith('{"error_message"')
        return None if page or failed else text


def _say_once(state: tenacity.RetryCallState) -> None:
    """Say that an outage is waited for, when it is one."""
    if state.attempt_number == _OUTAGE_ATTEMPTS:
        print("[kfp] no answer, tries on", file=sys.stderr, flush=True)
