"""What the containers of a run have said: Cloud Logging.

https://cloud.google.com/logging/docs/reference/v2/rest/v2/entries/list
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

import google.api_core.exceptions as api

from components.register.vertex_ai import FAILURES, in_words
from pipeline.vertex.cloud import Cloud

_HOST = "logging.googleapis.com"
_PAGE = 1000
_LATE_SECONDS = 60
"""Entries may come that much later than their time says."""


class Logs:
    """The lines of custom jobs, each once, in the order of their times.

    Args:
        cloud: signed in.

    Attributes:
        refusal: why logs can not be read; empty: they can.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._seen: dict[str, set[str]] = {}
        self._since: dict[str, str] = {}
        self.refusal = ""

    def new_lines(self, job: str) -> list[str]:
        """What a job has said since the last look.

        Args:
            job: number of a custom job; a pipeline's step runs in one.
        """
        if self.refusal:
            return []
        try:
            return list(self._lines(job))
        except api.Forbidden as error:
            self.refusal = in_words(error)
        except FAILURES:
            pass  # lines come late then; the run is followed by its state
        return []

    def _lines(self, job: str) -> Iterable[str]:
        wanted = f'resource.type="ml_job" AND resource.labels.job_id="{job}"'
        if since := self._since.get(job):
            wanted += f' AND timestamp>="{since}"'
        body: dict[str, Any] = {
            "resourceNames": [f"projects/{self._cloud.home.project}"],
            "filter": wanted,
            "orderBy": "timestamp asc",
            "pageSize": _PAGE,
        }
        entries: list[dict[str, Any]] = []
        while True:
            answer = self._cloud.ask(_HOST, "/v2/entries:list", body)
            entries += answer.get("entries", [])
            if not answer.get("nextPageToken"):
                break
            body["pageToken"] = answer["nextPageToken"]
        # Only now: what a page that could not be had would follow is not to be passed over.
        seen = self._seen.setdefault(job, set())
        for entry in entries:
            name = str(entry.get("insertId"))
            if name in seen:
                continue
            seen.add(name)
            newest = _earlier(str(entry.get("timestamp", "")))
            self._since[job] = max(newest, self._since.get(job, ""))
            yield from _text(entry).splitlines()


def _text(entry: dict[str, Any]) -> str:
    payload = entry.get("jsonPayload")
    if isinstance(payload, dict):
        return str(payload.get("message", ""))
    return str(entry.get("textPayload", ""))


def _earlier(time: str) -> str:
    """A little before, for entries that come late."""
    try:
        moment = datetime.datetime.fromisoformat(time.replace("Z", "+00:00"))
    except ValueError:
        return time
    return (moment - datetime.timedelta(seconds=_LATE_SECONDS)).isoformat().replace("+00:00", "Z")
