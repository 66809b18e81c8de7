"""One thing each that a run needs of the project, asked of Google; nothing is changed."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse

import google.api_core.exceptions as api
import google.auth.exceptions
import google.auth.transport.requests

from components.register.vertex_ai import LOGIN, in_words
from pipeline.targets.vertex import VertexTarget
from pipeline.vertex.cloud import Cloud

APIS = ("aiplatform.googleapis.com", "storage.googleapis.com", "artifactregistry.googleapis.com")
DATAFLOW_API = "dataflow.googleapis.com"
PERMISSIONS = ("aiplatform.pipelineJobs.create", "aiplatform.pipelineJobs.get")
_REGISTRY = re.compile(r"(?P<region>[a-z0-9-]+)-docker\.pkg\.dev/(?P<project>[^/]+)/")
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_CONTINENTS = {"us": "US", "europe": "EU", "asia": "ASIA", "northamerica": "", "me": ""}
"""Multi-regions of Cloud Storage that have a region of Vertex AI, by the region's first word."""
_PAIRS = {
    "NAM4": ("US-CENTRAL1", "US-EAST1"),
    "EUR4": ("EUROPE-NORTH1", "EUROPE-WEST4"),
    "EUR5": ("EUROPE-WEST1", "EUROPE-WEST2"),
    "EUR7": ("EUROPE-WEST2", "EUROPE-WEST3"),
    "EUR8": ("EUROPE-WEST3", "EUROPE-WEST6"),
    "ASIA1": ("ASIA-NORTHEAST1", "ASIA-NORTHEAST2"),
}
"""Predefined dual-regions: https://cloud.google.com/storage/docs/locations#predefined."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        what: was looked at.
        problem: in words; empty: it is in order.
        mend: the command that mends it, or what to do.
        fatal: whether a run can not succeed.
    """

    what: str
    problem: str = ""
    mend: str = ""
    fatal: bool = True

    def line(self) -> str:
        mark = "ok   " if not self.problem else "fail " if self.fatal else "note "
        words = f"{self.what}: {self.problem}" if self.problem else self.what
        return f"{mark}{words}" + (f"\n     → {self.mend}" if self.mend else "")


def check_credentials(cloud: Cloud) -> Finding:
    credentials = cloud.credentials
    try:
        if not getattr(credentials, "valid", True):
            credentials.refresh(google.auth.transport.requests.Request())
    except google.auth.exceptions.GoogleAuthError as error:
        return Finding("credentials", in_words(error), LOGIN)
    who = getattr(credentials, "service_account_email", "") or "of this machine"
    return Finding(f"credentials {who}")


def check_apis(cloud: Cloud, target: VertexTarget) -> Finding:
    """https://cloud.google.com/service-usage/docs/reference/rest/v1/services/batchGet."""
    wanted = [*APIS, *([DATAFLOW_API] if target.beam_pipeline_args else [])]
    project = cloud.home.project
    query = urllib.parse.urlencode(
        [("names", f"projects/{project}/services/{name}") for name in wanted]
    )
    try:
        answer = cloud.ask(
            "serviceusage.googleapis.com", f"/v1/projects/{project}/services:batchGet?{query}"
        )
    except (api.NotFound, api.BadRequest) as error:
        return Finding(f"project {project}", in_words(error), "gcloud projects list")
    on = {one["config"]["name"] for one in answer.get("services", []) if one["state"] == "ENABLED"}
    missing = [name for name in wanted if name not in on]
    if missing:
        return Finding(
            f"APIs of {project}",
            f"{', '.join(missing)} not enabled",
            f"gcloud services enable {' '.join(missing)} --project={project}",
        )
    return Finding(f"APIs of {project}: {', '.join(one.partition('.')[0] for one in wanted)}")


def check_permissions(cloud: Cloud) -> Finding:
    """https://cloud.google.com/resource-manager/reference/rest/v3/projects/testIamPermissions."""
    project = cloud.home.project
    answer = cloud.ask(
        "cloudresourcemanager.googleapis.com",
        f"/v3/projects/{project}:testIamPermissions",
        {"permissions": list(PERMISSIONS)},
    )
    if lacking := sorted(set(PERMISSIONS) - set(answer.get("permissions", []))):
        return Finding(
            "permissions",
            f"this account lacks {', '.join(lacking)}",
            f"gcloud projects add-iam-policy-binding {project} --member=user:YOU "
            "--role=roles/aiplatform.user",
        )
    return Finding("permission to run pipelines")


def check_service_account(cloud: Cloud) -> Finding:
    """https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts."""
    account, project = cloud.home.service_account, cloud.home.project
    path = f"/v1/projects/-/serviceAccounts/{urllib.parse.quote(account, safe='@')}"
    needed = "iam.serviceAccounts.actAs"
    try:
        answer = cloud.ask(
            "iam.googleapis.com", f"{path}:testIamPermissions", {"permissions": [needed]}
        )
    except api.NotFound:
        return Finding(
            f"service account {account}", "there is none",
            f"make vertex-setup PROJECT={project} REGION={cloud.home.region} "
            f"BUCKET={cloud.home.bucket} APPLY=1",
        )  # fmt: skip
    if needed not in answer.get("permissions", []):
        return Finding(
            f"service account {account}",
            "this account may not start steps as it",
            f"gcloud iam service-accounts add-iam-policy-binding {account} --member=user:YOU "
            f"--role=roles/iam.serviceAccountUser --project={project}",
        )
    return Finding(f"service account {account}")


def check_bucket(cloud: Cloud) -> Finding:
    """https://cloud.google.com/storage/docs/locations."""
    name, region = cloud.home.bucket, cloud.home.region
    make = (
        f"gcloud storage buckets create gs://{name} --project={cloud.home.project} "
        f"--location={region} --uniform-bucket-level-access"
    )
    try:
        found = cloud.ask("storage.googleapis.com", f"/storage/v1/b/{urllib.parse.quote(name)}")
    except api.NotFound:
        return Finding(f"bucket {name}", "there is none", make)
    except api.Forbidden:
        found = {}
    if lacking := _lacking_on(cloud, name):
        return Finding(
            f"bucket {name}", f"this account lacks {', '.join(lacking)} on it",
            f"gcloud storage buckets add-iam-policy-binding gs://{name} --member=user:YOU "
            f"--role=roles/storage.objectUser, or another BUCKET: {make}",
        )  # fmt: skip
    if not found:
        return Finding(f"bucket {name}", "may not be looked at: is it in the region?", fatal=False)
    place, kind = str(found.get("location", "")), str(found.get("locationType", "region"))
    fits = place.lower() == region or (
        kind == "multi-region" and place == _CONTINENTS.get(region.partition("-")[0])
    )
    pair = found.get("customPlacementConfig", {}).get("dataLocations", _PAIRS.get(place, ()))
    if fits or (kind == "dual-region" and region.upper() in pair):
        return _owned(cloud, name, place, str(found.get("projectNumber", "")))
    return Finding(
        f"bucket {name}", f"is in {place}, expected {region}: each byte that crosses is paid for",
        f"{f'REGION={place.lower()}, or ' if kind == 'region' else ''}another BUCKET in {region}",
    )  # fmt: skip


def _lacking_on(cloud: Cloud, bucket: str) -> list[str]:
    """https://cloud.google.com/storage/docs/json_api/v1/buckets/testIamPermissions."""
    wanted = ("storage.objects.create", "storage.objects.get", "storage.objects.list")
    query = urllib.parse.urlencode([("permissions", one) for one in wanted])
    path = f"/storage/v1/b/{urllib.parse.quote(bucket)}/iam/testPermissions?{query}"
    try:
        answer = cloud.ask("storage.googleapis.com", path)
    except api.Forbidden:
        return list(wanted)
    return sorted(set(wanted) - set(answer.get("permissions", [])))


def _owned(cloud: Cloud, name: str, place: str, owner: str) -> Finding:
    """Somebody else may own a bucket of a name that was guessed, and read what is written there."""
    project = cloud.home.project
    try:
        found = cloud.ask("cloudresourcemanager.googleapis.com", f"/v3/projects/{project}")
    except api.Forbidden:
        found = {}
    number = str(found.get("name", "")).rpartition("/")[2]
    if number and owner and number != owner:
        return Finding(
            f"bucket {name} in {place}",
            f"is of another project, number {owner}, and not of {project}",
            "is it yours? Its owner can read all that the run writes",
            fatal=False,
        )
    return Finding(f"bucket {name} in {place}")


def check_image(cloud: Cloud, image: str) -> Finding:  # noqa: PLR0911
    """https://distribution.github.io/distribution/spec/api/#existing-manifests."""
    host, _, rest = image.partition("/")
    name, _, tag = rest.rpartition(":")
    region = cloud.home.region
    build = "make images IMAGES=… REGISTRY=… PUSH=1, with docker logged in: gcloud auth "
    build += f"configure-docker {host}"
    if "." not in host or not tag:
        return Finding(
            f"image {image}", "has no registry in its name, so no service can pull it",
            f"REGISTRY={region}-docker.pkg.dev/{cloud.home.project}/nextvlad",
        )  # fmt: skip
    headers = {"Accept": _MANIFESTS}
    answer = cloud.request(host, f"/v2/{name}/manifests/{tag}", "HEAD", headers=headers)
    if answer.status_code == 404:
        return Finding(f"image {image}", "is not in its registry", build)
    if answer.status_code in (401, 403) and not _REGISTRY.match(image):
        return Finding(
            f"image {image}", f"its registry does not say ({answer.status_code}): can Vertex AI "
            "pull it from there?", fatal=False,
        )  # fmt: skip
    if answer.status_code in (401, 403):
        return Finding(
            f"image {image}", f"can not be pulled ({answer.status_code})",
            "the account needs roles/artifactregistry.reader on the repository (make vertex-setup)",
        )  # fmt: skip
    if answer.status_code != 200:
        return Finding(f"image {image}", f"its registry answers {answer.status_code}", fatal=False)
    found = _REGISTRY.match(image)
    if found and found["region"] not in (region, region.partition("-")[0]):
        return Finding(
            f"image {image}", f"is in {found['region']}, expected {region}: each pull is paid for",
            fatal=False,
        )  # fmt: skip
    return Finding(f"image {image}")


def check_quota(cloud: Cloud, metric: str, needed: int) -> Finding:
    """https://cloud.google.com/docs/quotas/reference/rest/v1/projects.locations.services.quotaInfos."""
    region = cloud.home.region
    what = f"quota {metric.partition('/')[2]} in {region}"
    infos = cloud.pages(
        "cloudquotas.googleapis.com",
        f"/v1/projects/{cloud.home.project}/locations/global/services/aiplatform.googleapis.com/"
        "quotaInfos?pageSize=1000",
        "quotaInfos",
    )
    of_metric = [one for one in infos if one.get("metric") == metric]
    if not of_metric:
        return Finding(what, f"there is no quota {metric} to be seen", fatal=False)
    have = 0
    for one in of_metric[0].get("dimensionsInfos", []):
        if region in one.get("applicableLocations", []):
            # Absent means 0; -1 means no limit.
            have = int(one.get("details", {}).get("value", 0))
    if 0 <= have < needed:
        return Finding(
            what, f"{have}, expected at least {needed} ({metric})",
            "ask for more: https://console.cloud.google.com/iam-admin/quotas"
            f"?project={cloud.home.project}, or give another accelerator, region or spot",
        )  # fmt: skip
    return Finding(f"{what}: {'no limit' if have < 0 else have}, {needed} needed")
