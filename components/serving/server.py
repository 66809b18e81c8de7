"""Runs the application under uvicorn until it is told to stop."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

import uvicorn

from components.serving import logs
from components.serving.app import Load, Service
from components.serving.http import guarded
from components.serving.settings import ServingSettings
from trainer.errors import InputError
from trainer.exported_model import ExportedModel


def serve(
    load: Load,
    settings: ServingSettings,
    host: str,
    port: int,
    ready: Callable[[ExportedModel], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT; requests in progress are answered first.

    Args:
        load: gives the model.
        settings: limits and routes.
        host, port: to listen on.
        ready: told once requests are answered.

    Raises:
        InputError: the model can not be loaded, or the address not be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # Python adds the address to the system's words.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"{host}:{port}: can not be listened on ({reason})") from None
    logs.configure()
    problems: list[Exception] = []

    def failed(error: Exception) -> None:
        problems.append(error)
        server.should_exit = True

    service = Service(load, settings, failed, ready)
    server = uvicorn.Server(
        uvicorn.Config(
            service.app,
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            limit_concurrency=settings.max_connections,
            timeout_graceful_shutdown=settings.stop_seconds,
            http=guarded(settings.header_seconds),
            ws="none",
        )
    )
    # uvicorn raises the signal anew when it has stopped: a stop that was asked for is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stopped)
    server.run(sockets=[listener])
    if problems:
        raise problems[0]


def _stopped(_number: int, _frame: object) -> NoReturn:
    logs.say("stopped")
    sys.exit(0)
