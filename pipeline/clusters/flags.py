"""Which KFP to talk to, as the command line says it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipeline.clusters.endpoint import Endpoint
from pipeline.clusters.kind import running_cluster
from pipeline.clusters.running import EXPERIMENT

TOKEN = "KFP_TOKEN"
"""Environment variable with a token: a command line can be read by every user of a machine."""


def add_endpoint_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `endpoint_of` reads."""
    group = parser.add_argument_group("Kubeflow Pipelines on a cluster")
    group.add_argument("--host", default="", help="address; default: the cluster of make kind-up")
    group.add_argument(
        "--token-file", default="", help=f"holds a token, read anew each time (or {TOKEN} in the "
        "environment)",
    )  # fmt: skip
    group.add_argument("--namespace", default="", help="of the user, where there are several")
    group.add_argument("--ca", default="", help="PEM file of certificates to trust")
    group.add_argument("--experiment", default="", help=f"that runs go to (default: {EXPERIMENT})")


def endpoint_of(options: argparse.Namespace) -> Endpoint:
    """Connect to what the flags say.

    Raises:
        InputError: it is not there, or does not let this user in.
    """
    return Endpoint(
        options.host or running_cluster().host,
        token=os.environ.get(TOKEN, ""),
        token_file=Path(options.token_file) if options.token_file else None,
        namespace=options.namespace,
        ca=Path(options.ca) if options.ca else None,
    )
