"""Where on Vertex AI, on what, and for whose money, as the command line says it."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from components.download.step import SAMPLE
from pipeline.targets.vertex_settings import Home, VertexSettings, check_home
from trainer.errors import InputError

_IMAGE = re.compile(r"[\w.:/-]*\{kind\}[\w./-]*:(?P<tag>\w[\w.-]{0,127})")
REPOSITORY = "nextvlad"
"""Of Artifact Registry, where no other is named."""


def add_vertex_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `home_of` and `pipeline.vertex.command` read."""
    group = parser.add_argument_group("Vertex AI")
    group.add_argument("--project", default="", help="id of the Google Cloud project")
    group.add_argument("--region", default="", help="such as us-central1")
    group.add_argument("--bucket", default="", help="gs:// or its name, in that region")
    group.add_argument("--service-account", default="", help="e-mail that steps run as")
    group.add_argument("--network", default="", help="projects/NUMBER/global/networks/NAME")
    group.add_argument("--kms-key", default="", help="projects/…/cryptoKeys/NAME to encrypt with")
    group.add_argument(
        "--registry", default="", help="of the images; default: REGION-docker.pkg.dev/PROJECT/"
        + REPOSITORY,
    )  # fmt: skip
    group.add_argument(
        "--vertex", nargs="*", default=[], metavar="NAME=VALUE",
        help="machines and more: "
        + ", ".join(field.name for field in dataclasses.fields(VertexSettings)),
    )  # fmt: skip
    group.add_argument(
        "--dataflow", nargs="*", default=[], metavar="NAME=VALUE",
        help="run the statistics step on Dataflow: project=… region=… temp_location=gs://… (where "
        "not given above), service_account, subnetwork, machine_type, max_workers, public_ips, "
        "kms_key, labels=a:b,c:d",
    )  # fmt: skip


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a run of its own."""
    group = parser.add_argument_group("a run on Vertex AI")
    group.add_argument("--display-name", default="", help="of the run in the console")
    group.add_argument("--prices", default="", help="YAML file of prices an hour")
    group.add_argument(
        "--hours", nargs="*", default=[], metavar="STEP=HOURS",
        help="that steps are expected to take, for the estimate of cost",
    )  # fmt: skip
    group.add_argument(
        "--dry-run", action="store_true", help="show machines, limits and cost, start nothing"
    )


def given_flags(options: argparse.Namespace) -> list[str]:
    """Names of the flags above that are given, as make has them."""
    names = (
        "project", "region", "bucket", "service_account", "network", "kms_key", "vertex",
        "dataflow", "display_name", "prices", "hours", "dry_run",
    )  # fmt: skip
    return [name.upper() for name in names if getattr(options, name)]


def home_of(
    options: argparse.Namespace, needed: Sequence[str] = ("project", "region", "bucket")
) -> Home:
    """Whose project.

    Args:
        options: parsed flags.
        needed: what has to be given.

    Raises:
        InputError: a part is missing, or can not be.
    """
    home = Home(
        options.project, options.region, options.bucket.removeprefix("gs://").rstrip("/"),
        options.service_account, options.network, options.kms_key,
    )  # fmt: skip
    check_home(home, needed)
    return home


def check_image(image: str) -> None:
    """Raise `InputError` unless it is a name for each kind, of one build."""
    found = _IMAGE.fullmatch(image)
    if not found or found["tag"] == "latest":
        raise InputError(
            f"image is {image!r}, expected a name with {{kind}} for cpu or gpu and a tag of one "
            "build (not latest: caches know an image by its name)"
        )


def with_places(parameters: Mapping[str, Any], home: Home) -> dict[str, Any]:
    """The parameters, with places in the bucket for what outlives a run where none is given."""
    found = dict(parameters)
    if home.bucket:
        found["destination"] = found["destination"] or f"{home.root}/data"
        found["checkpoint_root"] = found["checkpoint_root"] or f"{home.root}/checkpoints"
    return found


_BUCKETS = ("gs://", "/gcs/")
_PLACES = {
    "data_source": ((SAMPLE,), (*_BUCKETS, "youtube8m:", "http://", "https://")),
    "destination": (("",), _BUCKETS),
    "checkpoint_root": (("",), _BUCKETS),
    "champion": (("", "registered"), (*_BUCKETS, "projects/")),
}
"""What may stand there: whole values, and how others begin."""


def check_parameters(parameters: Mapping[str, Any], settings: VertexSettings) -> None:
    """Raise `InputError` for places that no machine of Vertex AI has, or that it needs."""
    for name, (whole, begins) in _PLACES.items():
        value = str(parameters[name])
        if value not in whole and not value.startswith(begins):
            raise InputError(
                f"{name} {value}: no machine of Vertex AI has this folder, expected gs://…: "
                f"gcloud storage cp --recursive {value} gs://BUCKET/"
            )
    if settings.workers > 1 and not parameters["checkpoint_root"]:
        raise InputError("checkpoint_root is empty, expected gs://…: several workers share it")
