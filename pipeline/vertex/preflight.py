"""What a run needs of the project, looked at before anything is started.

Every check asks Google and changes nothing. What can not be looked at for want of a role is a note,
not a failure: people may run pipelines without seeing quotas.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
from typing import Any

import google.api_core.exceptions as api

from components.register.vertex_ai import FAILURES, in_words
from pipeline.targets.vertex import VertexTarget
from pipeline.targets.vertex_machines import quota_metric, serving_metric
from pipeline.training_pipeline import BATCH_PREDICT, DEPLOY, REGISTER, STEPS
from pipeline.vertex.checks import (
    Finding,
    check_apis,
    check_bucket,
    check_credentials,
    check_image,
    check_permissions,
    check_quota,
    check_service_account,
)
from pipeline.vertex.cloud import Cloud
from trainer.errors import InputError


def preflight(
    cloud: Cloud, target: VertexTarget, say: Callable[[str], None] = print, parallel: int = 1
) -> None:
    """Look at everything that a run needs; each finding is said as it comes.

    Args:
        cloud: signed in.
        target: of the run.
        say: takes the lines.
        parallel: trainings at once, of a tuning job.

    Raises:
        InputError: something is missing; all of what was found has been said.
    """
    failed = []
    for finding in findings(cloud, target, parallel):
        say(f"  {finding.line()}")
        if finding.problem and finding.fatal:
            failed.append(finding.what)
    if failed:
        raise InputError(
            f"project {cloud.home.project} is not ready: {', '.join(failed)}; see the lines above, "
            "or set all of it up: make vertex-setup (docs/vertex.md)"
        )


def findings(cloud: Cloud, target: VertexTarget, parallel: int = 1) -> Iterable[Finding]:
    """The findings of all checks; of no more than the first where nobody is signed in."""
    who = check_credentials(cloud)
    yield who
    if who.problem:
        return
    yield from _checked("APIs", check_apis, cloud, target)
    yield from _checked("permissions", check_permissions, cloud)
    if cloud.home.service_account:
        yield from _checked("service account", check_service_account, cloud)
    else:
        yield Finding(
            "service account",
            "none is given: steps run as Compute Engine's default one, whatever that may do",
            "SERVICE_ACCOUNT=nextvlad-pipeline@… of make vertex-setup may do what they need alone",
            fatal=False,
        )
    yield from _checked(f"bucket {cloud.home.bucket}", check_bucket, cloud)
    for image in sorted(images_of(target)):
        yield from _checked(f"image {image}", check_image, cloud, image)
    for metric, needed in quotas_needed(target, parallel).items():
        yield from _checked("quota", check_quota, cloud, metric, needed)


def images_of(target: VertexTarget) -> set[str]:
    """The images that a run pulls."""
    wanted = {target.image(step) for step in STEPS}
    for argument in target.beam_pipeline_args:
        name, _, value = argument.partition("=")
        if name == "--sdk_container_image":
            wanted.add(value)
    return wanted | ({target.serving_image} if REGISTER in target.extra_steps else set())


def _checked(what: str, check: Callable[..., Finding], *arguments: Any) -> Iterable[Finding]:
    try:
        yield check(*arguments)
    except api.Forbidden as error:
        yield Finding(what, f"may not be looked at ({in_words(error)})", fatal=False)
    except FAILURES as error:
        yield Finding(what, in_words(error))


def quotas_needed(target: VertexTarget, parallel: int = 1) -> dict[str, int]:
    """Accelerators that a run takes at once, by the quota's metric.

    Args:
        target: of the run.
        parallel: trainings at once, of a tuning job.
    """
    settings = target.settings
    needed: collections.Counter[str] = collections.Counter()
    if settings.accelerator:
        metric = quota_metric(settings.accelerator, settings.spot)
        needed[metric] = settings.accelerators * settings.workers * parallel
        # Evaluation comes after training, and never on spot machines.
        metric = quota_metric(settings.accelerator, False)
        needed[metric] = max(needed[metric], settings.evaluate_accelerators)
    if settings.serving_accelerator:
        metric = serving_metric(settings.serving_accelerator)
        if DEPLOY in target.extra_steps:
            needed[metric] += settings.replicas
        if BATCH_PREDICT in target.extra_steps:
            needed[metric] += settings.batch_replicas
    return {metric: count for metric, count in needed.items() if count}
