"""`python -m components.serving`: serve an exported model over HTTP."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from components.download.bucket_folder import local_folder
from components.serving.server import serve
from components.serving.settings import ServingSettings
from trainer.errors import InputError, reported
from trainer.exported_model import ExportedModel
from trainer.files import atomic_file
from trainer.flags import FlagParser
from trainer.manifest import read_manifest
from trainer.newest_run import newest
from trainer.records import read_records

USAGE = "python -m components.serving [--model FOLDER] [--port N] [FLAG …]"
DESCRIPTION = """Serves an exported model until SIGTERM. Speaks Vertex AI's custom-prediction
contract, from whose AIP_… variables the defaults come, and TensorFlow Serving's REST form at
/v1/models/NAME:predict; /metrics is for Prometheus. Logs are JSON, a line each."""
_PORTS = 65535


def parser() -> FlagParser:
    """Flags; the environment gives defaults, as Vertex AI sets it."""
    flags = FlagParser(usage=USAGE, description=DESCRIPTION)
    defaults = ServingSettings()
    environment = os.environ
    flags.add_argument(
        "--model", default=environment.get("AIP_STORAGE_URI", ""),
        help="folder or gs:// URI of the export step; default: the newest run's (--runs)",
    )  # fmt: skip
    flags.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs")
    flags.add_argument("--host", default="0.0.0.0", help="address to listen on")
    flags.add_argument(
        "--port", default=environment.get("AIP_HTTP_PORT", "8080"), metavar="N",
        help="port to listen on",
    )  # fmt: skip
    flags.add_argument(
        "--health-route", default=environment.get("AIP_HEALTH_ROUTE", defaults.health_route)
    )
    flags.add_argument(
        "--predict-route", default=environment.get("AIP_PREDICT_ROUTE", defaults.predict_route)
    )
    flags.add_argument("--name", default=defaults.name, help="in /v1/models/NAME")
    for name, help_text in {
        "max_batch": "videos that the model scores in one call",
        "batch_milliseconds": "how long the first video of a batch waits for others",
        "max_instances": "of a request",
        "max_body_bytes": "of a request",
        "max_queue": "videos that wait at most, then 503",
        "max_bytes_in_flight": "bodies of all requests at work, then 503",
        "max_connections": "at once, then 503",
        "body_seconds": "within which a body has to arrive",
        "header_seconds": "within which headers have to arrive",
        "stop_seconds": "that requests in progress get when the server stops",
    }.items():
        value = getattr(defaults, name)
        flags.add_argument(
            f"--{name.replace('_', '-')}", default=value, type=type(value), metavar="N",
            help=f"{help_text} ({value:g})",
        )  # fmt: skip
    flags.add_argument(
        "--example", type=Path, metavar="FILE",
        help="write a request for a video of the model's run there, and print how it is sent",
    )  # fmt: skip
    return flags


def main(arguments: Sequence[str] | None = None) -> None:
    with reported():
        options = vars(parser().parse_args(arguments))
        port = _port(options.pop("port"))
        host, uri, runs, example = (
            options.pop(name) for name in ("host", "model", "runs", "example")
        )
        settings = _settings(options)
        uri = uri or str(newest(runs, "serving_model"))
        with contextlib.ExitStack() as held:

            def load() -> ExportedModel:
                return ExportedModel(held.enter_context(local_folder(uri, "model")))

            def ready(model: ExportedModel) -> None:
                if not example:
                    return
                examples = Path(uri).parent / "examples"
                if examples.is_dir():
                    _write_example(example, model, examples)
                    how = _HOW.format(port=port, route=settings.predict_route, file=example)
                else:
                    how = f"\nready; {examples} is not there: no request to try is written\n"
                print(how, flush=True)

            serve(load, settings, host, port, ready)


_HOW = """
ready; in another terminal:

  curl -s http://127.0.0.1:{port}{route} -d @{file}
"""


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _PORTS):
        raise InputError(f"--port is {text!r}, expected 1 to {_PORTS}")
    return int(text)


def _settings(options: dict[str, object]) -> ServingSettings:
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if name.endswith("_route") and not str(value).startswith("/"):
            raise InputError(f"{flag} is {value!r}, expected a path that begins with /")
        least = 0 if name in ("batch_milliseconds", "stop_seconds") else 1
        if isinstance(value, int | float) and not least <= value:
            raise InputError(f"{flag} is {value:g}, expected at least {least}")
    return ServingSettings(**options)  # type: ignore[arg-type]


def _write_example(path: Path, model: ExportedModel, examples: Path) -> None:
    """A request for the first video of a manifest's validate shards."""
    shards = read_manifest(examples).split("validate")
    record = next(itertools.chain.from_iterable(read_records(one.path) for one in shards))
    model.parse(record)
    request = {
        "instances": [{"b64": b64encode(record.payload).decode()}],
        "parameters": {"top_k": min(5, model.top_k)},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(request))


if __name__ == "__main__":
    main()
