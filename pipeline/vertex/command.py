"""A run on Vertex AI as the command line asks for it: plan, checks, run."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any

from pipeline.clusters.tools import interruptible
from pipeline.image_names import image_name
from pipeline.report import Run
from pipeline.targets.dataflow import dataflow_arguments
from pipeline.targets.vertex import VertexTarget, vertex_target
from pipeline.targets.vertex_settings import Home, vertex_settings
from pipeline.training_pipeline import STEPS
from pipeline.vertex.cloud import Cloud
from pipeline.vertex.flags import REPOSITORY, check_image, check_parameters, home_of, with_places
from pipeline.vertex.jobs import Jobs, check_display_name
from pipeline.vertex.plan import expected_hours, plan_text
from pipeline.vertex.preflight import preflight
from pipeline.vertex.prices import PRICES, read_prices
from pipeline.vertex.running import Request, run_on_vertex
from trainer.errors import InputError


def run_command(options: argparse.Namespace, parameters: Mapping[str, Any]) -> Run | None:
    """The run; None: it was only planned.

    Raises:
        InputError: a setting that can not be, a project that is not ready, a run that failed.
    """
    home = home_of(options)
    target = vertex_target_of(options, home, not options.no_cache)
    parameters = with_places(parameters, home)
    check_parameters(parameters, target.settings)
    check_display_name(options.display_name)
    prices = read_prices(options.prices or PRICES)
    hours = expected_hours(options.hours, (*STEPS, *target.extra_steps))
    print(plan_text(target, prices, parameters, hours), flush=True)
    if options.dry_run:
        return None
    print(flush=True)
    with interruptible("nothing was started"):
        cloud = connect(home)
        preflight(cloud, target)
    print(flush=True)
    request = Request(target, parameters, prices, options.display_name)
    return run_on_vertex(Jobs(cloud), request, options.runs.resolve())


def vertex_target_of(options: argparse.Namespace, home: Home, caching: bool = True) -> VertexTarget:
    """The target that the flags say.

    Raises:
        InputError: a setting that can not be.
    """
    settings = vertex_settings(options.vertex)
    if settings.batch_source and not settings.batch_destination:
        if not home.bucket:
            raise InputError("VERTEX setting batch_destination is missing, expected gs://…")
        settings = dataclasses.replace(settings, batch_destination=f"{home.root}/predictions")
    if settings.tensorboard:
        if not home.bucket or not home.service_account:
            raise InputError(
                "VERTEX setting tensorboard: needs BUCKET, for the events on their way, and "
                "SERVICE_ACCOUNT, which writes them"
            )
        if home.region and f"/locations/{home.region}/" not in settings.tensorboard:
            raise InputError(
                f"VERTEX setting tensorboard {settings.tensorboard}: is not in {home.region}"
            )
    image = options.image or image_name("{kind}", _registry(options, home))
    check_image(image)
    given = {
        "project": home.project,
        "region": home.region,
        "temp_location": f"{home.root}/dataflow" if home.bucket else "",
        "service_account": home.service_account,
        "kms_key": home.kms_key,
        "labels": settings.labels,
    }
    arguments = dataflow_arguments(options.dataflow, image.replace("{kind}", "dataflow"), given)
    return vertex_target(image, settings, home, arguments, caching)


def connect(home: Home) -> Cloud:
    """Sign in."""
    return Cloud(home)


def _registry(options: argparse.Namespace, home: Home) -> str:
    if options.registry or not (home.project and home.region):
        return str(options.registry)
    return f"{home.region}-docker.pkg.dev/{home.project.replace(':', '/')}/{REPOSITORY}"
