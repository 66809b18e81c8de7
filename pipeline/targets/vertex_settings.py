"""What VERTEX="name=value …" may set of a run on Vertex AI, and whose project it runs in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from components.register.names import check_names
from pipeline.name_values import listed, named_values, pairs
from pipeline.targets.vertex_machines import check_machine
from trainer.errors import InputError
from trainer.parameter import parameter

_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_MOST_LABELS = 60
"""Vertex AI takes 64, and adds some of its own."""
_MAIL = re.compile(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+")
_MOST_RECIPIENTS = 3
"""Of the notification component."""


@dataclasses.dataclass(frozen=True)
class VertexSettings:
    """Machines, time-outs, and what follows the export."""

    machine: str = parameter("n1-standard-8", "type of the training machines")
    accelerator: str = parameter("NVIDIA_TESLA_T4", "of a training machine; empty: CPUs alone")
    accelerators: int = parameter(1, "how many each", minimum=1, maximum=16)
    workers: int = parameter(1, "training machines", minimum=1, maximum=100)
    spot: bool = parameter(False, "train on spot machines: cheaper, and ended at any time")
    disk_gb: int = parameter(200, "boot disk of a training machine", minimum=100, maximum=64000)
    tensorboard: str = parameter("", "instance for the training's curves, its resource name")
    train_hours: float = parameter(24.0, "after which training is ended", above=0, maximum=168)
    train_retries: int = parameter(3, "times that a lost training is started again", minimum=0)
    evaluate_accelerators: int = parameter(0, "of the same type for evaluation", minimum=0)
    extract_accelerator: bool = parameter(
        False, "one of the same type to extract features of videos"
    )
    step_hours: float = parameter(6.0, "after which another step is ended", above=0, maximum=168)
    step_retries: int = parameter(1, "times that another step is started again", minimum=0)
    labels: str = parameter("", "key:value,key:value, for the bill, of all that is made")
    email: str = parameter("", "a,b: up to three addresses that are told how a run ended")
    registered_model: str = parameter(
        "nextvlad", "id in the Model Registry that exported models get a version of; empty: none"
    )
    aliases: str = parameter("", "a,b: of the version, beside champion and default")
    endpoint: str = parameter("", "display name of an endpoint to deploy to; empty: none")
    traffic: int = parameter(100, "percent that the new version gets there", minimum=0, maximum=100)
    keep: int = parameter(1, "versions without traffic that stay, to roll back to", minimum=0)
    serving_machine: str = parameter("n1-standard-4", "type of the endpoint's and batch machines")
    serving_accelerator: str = parameter("", "of one of them; empty: none")
    replicas: int = parameter(1, "machines of the endpoint at least", minimum=1)
    most_replicas: int = parameter(1, "machines of the endpoint at most", minimum=1)
    batch_source: str = parameter("", "gs:// shards to score with each exported model; empty: none")
    batch_destination: str = parameter("", "gs:// prefix of the answers")
    batch_replicas: int = parameter(1, "machines of the batch prediction", minimum=1)

    def label_pairs(self) -> dict[str, str]:
        return pairs("VERTEX setting labels", self.labels)

    def recipients(self) -> list[str]:
        return listed(self.email)

    def alias_list(self) -> list[str]:
        return listed(self.aliases)


@dataclasses.dataclass(frozen=True)
class Home:
    """Whose project and money it is.

    Attributes:
        project: id of the Google Cloud project; empty in a file that is compiled for any project.
        region: such as us-central1.
        bucket: name of the bucket, in that region, for artifacts, data and checkpoints.
        service_account: e-mail that steps run as; empty: Compute Engine's default one.
        network: projects/NUMBER/global/networks/NAME to peer with; empty: none.
        kms_key: projects/…/cryptoKeys/NAME to encrypt with; empty: Google's keys.
    """

    project: str = ""
    region: str = ""
    bucket: str = ""
    service_account: str = ""
    network: str = ""
    kms_key: str = ""

    @property
    def root(self) -> str:
        """The pipeline's part of the bucket."""
        return f"gs://{self.bucket}/nextvlad"


def vertex_settings(settings: Sequence[str]) -> VertexSettings:
    """Checked settings, from `name=value`.

    Raises:
        InputError: an unknown name, a value that can not be, or two that do not go together.
    """
    found = VertexSettings(**named_values("VERTEX", VertexSettings, settings))
    check_machine("machine", found.machine, found.accelerator, found.accelerators)
    check_machine(
        "serving_machine", found.serving_machine, found.serving_accelerator, 1, serving=True
    )
    for name in ("evaluate_accelerators", "extract_accelerator"):
        if getattr(found, name) and not found.accelerator:
            raise InputError(f"VERTEX setting {name}: needs an accelerator")
    _check_labels(found.label_pairs())
    for one in found.recipients():
        if not _MAIL.fullmatch(one):
            raise InputError(f"VERTEX setting email {one!r}: expected an e-mail address")
    if len(found.recipients()) > _MOST_RECIPIENTS:
        raise InputError(f"VERTEX setting email: expected at most {_MOST_RECIPIENTS} addresses")
    if found.tensorboard and not re.fullmatch(
        r"projects/[^/]+/locations/[a-z0-9-]+/tensorboards/\d+", found.tensorboard
    ):
        raise InputError(
            f"VERTEX setting tensorboard {found.tensorboard!r}: expected "
            "projects/P/locations/L/tensorboards/NUMBER (gcloud ai tensorboards list)"
        )
    if found.registered_model:
        check_names(found.registered_model, found.alias_list())
    elif found.endpoint or found.batch_source:
        raise InputError("VERTEX settings endpoint and batch_source: need a registered_model")
    if found.most_replicas < found.replicas:
        raise InputError(
            f"VERTEX setting most_replicas is {found.most_replicas}, expected at least replicas, "
            f"{found.replicas}"
        )
    for name in ("batch_source", "batch_destination"):
        for place in listed(getattr(found, name)):
            if not place.startswith("gs://"):
                raise InputError(f"VERTEX setting {name} {place!r}: expected gs://")
    return found


_FORMS = {
    "project": (r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "such as my-project-1"),
    "region": (r"[a-z]+-[a-z]+\d+", "such as us-central1"),
    "bucket": (r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", "such as my-bucket"),
    "service_account": (r"[^@\s]+@[^@\s]+", "an e-mail address"),
    "network": (
        r"projects/\d+/global/networks/[a-z0-9-]+",
        "projects/NUMBER/global/networks/NAME (the project's number, not its id)",
    ),
    "kms_key": (
        r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+",
        "projects/P/locations/L/keyRings/R/cryptoKeys/K",
    ),
}


def check_home(home: Home, needed: Sequence[str] = ("project", "region", "bucket")) -> None:
    """Raise `InputError` for a part in a form that it can not have.

    Args:
        home: whose project.
        needed: what has to be given.
    """
    for name, (form, words) in _FORMS.items():
        value = getattr(home, name)
        if not value and name in needed:
            raise InputError(f"TARGET=vertex: {name.upper()} is missing, expected a value {words}")
        if value and not re.fullmatch(form, value):
            raise InputError(f"{name.upper()} is {value!r}, expected {words}")
    if home.kms_key and home.region and f"/locations/{home.region}/" not in home.kms_key:
        raise InputError(f"KMS_KEY {home.kms_key}: is not in the region {home.region}")


def _check_labels(labels: dict[str, str]) -> None:
    """https://cloud.google.com/vertex-ai/docs/general/labels."""
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise InputError(
                f"VERTEX setting labels: {key}:{value}: expected up to 63 of a-z, 0-9, - and _, "
                "a letter first in the key"
            )
    if len(labels) > _MOST_LABELS:
        raise InputError(f"VERTEX setting labels: {len(labels)}, expected at most {_MOST_LABELS}")
