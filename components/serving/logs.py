"""One JSON object a line, with the fields that Cloud Logging knows.

https://cloud.google.com/logging/docs/structured-logging
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import traceback
from typing import Any

LOGGER = logging.getLogger("nextvlad.serving")


class JsonLines(logging.Formatter):
    """`severity`, `time`, `message`, and what a call gave as `extra={"fields": {…}}`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "severity": record.levelname,
            "time": moment.isoformat(timespec="milliseconds"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["stack_trace"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def configure() -> None:
    """Send this server's lines, and uvicorn's, to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    for name in (LOGGER.name, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)


def say(message: str, **fields: Any) -> None:
    LOGGER.info(message, extra={"fields": fields})
