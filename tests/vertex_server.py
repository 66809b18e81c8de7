"""A loopback server that speaks the APIs of Google Cloud that runs on Vertex AI need.

Bodies are parsed strictly into the API's own messages, so that a field that it does not know is
refused, and pipelines into KFP's. What a job does is given as snapshots.
"""

import contextlib
import datetime
import json
import re
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import google.auth.credentials
from google.cloud import aiplatform_v1 as v1
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.check_spec import check_spec
from pipeline.targets.vertex_settings import Home
from pipeline.vertex.cloud import Cloud

PROJECT, REGION, BUCKET = "my-project-1", "us-central1", "data"
HOME = Home(PROJECT, REGION, BUCKET)
PARENT = f"projects/{PROJECT}/locations/{REGION}"
REGISTRY = f"{REGION}-docker.pkg.dev"
IMAGE = f"{REGISTRY}/{PROJECT}/nextvlad/nextvlad-pipeline-{{kind}}:fixed"
BEGIN = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
STATE = "PIPELINE_STATE_"
RUN_AS = {"NUMBER_INTEGER": int, "NUMBER_DOUBLE": (int, float), "STRING": str, "BOOLEAN": bool}
KINDS = {
    "pipelineJobs": v1.PipelineJob,
    "schedules": v1.Schedule,
    "models": v1.Model,
    "endpoints": v1.Endpoint,
    "batchPredictionJobs": v1.BatchPredictionJob,
    "hyperparameterTuningJobs": v1.HyperparameterTuningJob,
    "customJobs": v1.CustomJob,
}
ACTIONS = {
    "deployModel": v1.DeployModelRequest,
    "undeployModel": v1.UndeployModelRequest,
    "mergeVersionAliases": v1.MergeVersionAliasesRequest,
    "upload": v1.UploadModelRequest,
}


class Signed(google.auth.credentials.Credentials):
    """Credentials that are taken wherever the server does not say otherwise."""

    def __init__(self):
        super().__init__()
        self.token = "token"

    def refresh(self, _request):
        pass


class RefusalError(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


def parsed(content, kind):
    """A message of the API; a field that it does not have is refused."""
    message = kind()
    try:
        json_format.ParseDict(content, message._pb)
    except json_format.ParseError as error:
        raise RefusalError(400, f"Invalid JSON payload received. {error}") from None
    return message


def moment(seconds):
    return (BEGIN + datetime.timedelta(seconds=seconds)).isoformat()


def task(name, state, start=None, end=None, job=0, outputs=None, error="", started=()):
    """A step as the service describes it; `job` is the number of its container's custom job."""
    content = {"taskId": str(abs(hash(name)) % 10**9), "taskName": name, "state": state}
    if start is not None:
        content["startTime"] = moment(start)
    if end is not None:
        content["endTime"] = moment(end)
    if job:
        content["executorDetail"] = {
            "containerDetail": {"mainJob": f"projects/1/locations/{REGION}/customJobs/{job}"}
        }
    if error:
        content["error"] = {"code": 9, "message": error}
    if outputs:
        content["outputs"] = {
            key: {"artifacts": [{"name": "a", "uri": uri, "metadata": metadata}]}
            for key, (uri, metadata) in outputs.items()
        }
    if started:
        resources = [
            {
                "resourceType": "CustomJob",
                "resourceUri": f"https://{REGION}-aiplatform.googleapis.com/v1/{PARENT}/customJobs/{one}",
            }
            for one in started
        ]  # fmt: skip
        value = json.dumps({"resources": resources})
        content["execution"] = {"metadata": {"output:gcp_resources": value}}
    return content


def checked_job(job):
    """Refuse a pipeline that KFP's messages, or its own parameters, do not know."""
    spec = json_format.MessageToDict(job._pb)["pipelineSpec"]
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        raise RefusalError(400, str(error)) from None
    check_spec(spec, "submitted")
    config = json_format.MessageToDict(job.runtime_config._pb)
    if not str(config.get("gcsOutputDirectory", "")).startswith("gs://"):
        raise RefusalError(400, "gcs_output_directory is missing")
    known = spec["root"]["inputDefinitions"]["parameters"]
    for name, value in config.get("parameterValues", {}).items():
        if name not in known:
            raise RefusalError(400, f"parameter {name} is not of the pipeline")
        if not isinstance(value, RUN_AS[known[name]["parameterType"]]) and not (
            known[name]["parameterType"] == "NUMBER_INTEGER" and float(value).is_integer()
        ):
            raise RefusalError(400, f"parameter {name} has the wrong type")


class VertexServer:
    """Serves on a port of the loopback until `close`.

    Attributes:
        snapshots: of pipeline jobs, (state, tasks), one for each look; the last one stays.
        faults: (pattern of method and path, what) that the next requests meet: a status, `cut`,
            `lost` (it is done, and the answer is not sent), `page`.
        requests: (method, path, body) of all of them.
        answers: of the plain REST APIs, by the pattern of method and path.
        logs: entries by the number of a custom job.
        finished: what tuning and batch jobs end as.
        shown: paths of requests that had credentials.
    """

    def __init__(self):
        self.snapshots, self.faults = deque(), deque()
        self.requests, self.logs, self.answers = [], {}, {}
        self.shown = set()
        self.resources, self.versions = {}, {}
        self.finished, self.error = {}, None
        self._number = 100
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, content, kind="application/json"):
                body = (
                    b""
                    if content is None
                    else (content if isinstance(content, bytes) else json.dumps(content).encode())
                )
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def handle_one(self):
                split = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}") if length else {}
                path = unquote(split.path)
                server.requests.append((self.command, path, body))
                if self.headers.get("Authorization"):
                    server.shown.add(path)
                fault = server._fault(f"{self.command} {path}")
                if fault == "cut":
                    self.close_connection = True
                    self.connection.close()
                    return
                if fault == "page":
                    self.answer(200, b"<html>log in</html>", "text/html")
                    return
                if isinstance(fault, int):
                    self.answer(fault, {"error": {"code": fault, "message": f"fault {fault}"}})
                    return
                try:
                    found = server._plain(f"{self.command} {path}")
                    if found is None:
                        found = 200, server._api(self.command, path, parse_qs(split.query), body)
                    status, content = found
                except RefusalError as error:
                    status = error.status
                    content = {"error": {"code": status, "message": error.message}}
                except Exception as error:
                    server.error = error
                    raise
                if fault == "lost":
                    self.close_connection = True
                    self.connection.close()
                    return
                self.answer(status, content)

            do_GET = do_POST = do_PATCH = do_DELETE = do_HEAD = handle_one  # noqa: N815

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._httpd.server_port}"
        self.ready()

    def close(self):
        self._httpd.shutdown()
        self._httpd.server_close()
        if self.error is not None:
            raise self.error

    def cloud(self, home=HOME, credentials=None):
        """Signed in as nobody, with every API at this server."""
        names = (
            "serviceusage", "cloudresourcemanager", "iam", "storage", "cloudquotas", "logging",
        )  # fmt: skip
        addresses = {f"{name}.googleapis.com": f"{self.address}/{name}" for name in names}
        addresses[f"{home.region}-aiplatform.googleapis.com"] = self.address
        addresses[REGISTRY] = f"{self.address}/registry"
        addresses["registry.example"] = f"{self.address}/elsewhere"
        return Cloud(home, credentials or Signed(), addresses)

    def ready(self):
        """A project that has everything."""
        apis = ("aiplatform", "storage", "artifactregistry", "dataflow")
        enabled = [
            {"config": {"name": f"{one}.googleapis.com"}, "state": "ENABLED"} for one in apis
        ]
        permissions = ["aiplatform.pipelineJobs.create", "aiplatform.pipelineJobs.get"]
        quotas = [
            {"metric": f"aiplatform.googleapis.com/custom_model_training_{kind}{name}_gpus",
             "dimensionsInfos": [{"applicableLocations": [REGION], "details": {"value": "4"}}]}
            for kind in ("", "preemptible_") for name in ("nvidia_t4", "nvidia_l4")
        ]  # fmt: skip
        objects = [f"storage.objects.{verb}" for verb in ("create", "get", "list")]
        self.answers = {
            r"GET /serviceusage/v1/.*:batchGet": (200, {"services": enabled}),
            r"POST /cloudresourcemanager/.*": (200, {"permissions": permissions}),
            r"POST /iam/.*": (200, {"permissions": ["iam.serviceAccounts.actAs"]}),
            r"GET /storage/storage/v1/b/data": (
                200,
                {"location": REGION.upper(), "locationType": "region", "projectNumber": "1"},
            ),
            r"GET /cloudresourcemanager/v3/projects/[^/]+": (200, {"name": "projects/1"}),
            r"GET /storage/storage/v1/b/data/iam/testPermissions": (200, {"permissions": objects}),
            r"HEAD /registry/v2/.*": (200, None),
            r"GET /cloudquotas/.*": (200, {"quotaInfos": quotas}),
        }  # fmt: skip

    def sent(self, pattern):
        """The bodies of requests whose method and path fit."""
        return [body for method, path, body in self.requests
                if re.fullmatch(pattern, f"{method} {path}")]  # fmt: skip

    def _fault(self, request):
        if self.faults and re.fullmatch(self.faults[0][0], request):
            return self.faults.popleft()[1]
        return None

    def _plain(self, request):
        if re.fullmatch(r"POST /logging/v2/entries:list", request):
            wanted = self.requests[-1][2]
            number = re.search(r'job_id="(\d+)"', wanted["filter"])[1]
            assert set(wanted) <= {
                "resourceNames", "filter", "orderBy", "pageSize", "pageToken"
            }  # fmt: skip
            assert wanted["resourceNames"] == [f"projects/{PROJECT}"]
            return self.answers.get("logging", (200, {"entries": self.logs.get(number, [])}))
        for pattern, answer in self.answers.items():
            if re.fullmatch(pattern, request):
                return answer
        return None

    def _api(self, method, path, query, body):  # noqa: PLR0911
        if not path.startswith("/v1/"):
            raise RefusalError(404, f"no such path: {path}")
        name = path.removeprefix("/v1/")
        if "/operations/" in name:
            return self.resources[name]
        resource, _, action = name.partition(":")
        if action:
            return self._act(resource, action, query, body)
        last = resource.rpartition("/")[2]
        if method == "POST" and last in KINDS:
            return self._create(resource, last, query, body)
        if method == "GET" and last in KINDS:
            return self._list(resource, last, query)
        if resource.partition("@")[0] not in self.resources and resource not in self.resources:
            raise RefusalError(404, f"{resource} is not found")
        if method == "DELETE":
            del self.resources[resource]
            return self._operation("Empty", {})
        if method == "PATCH":
            kind = KINDS[resource.split("/")[-2]]
            change = parsed(body, kind)
            for field in query["updateMask"][0].split(","):
                if field in ("trafficSplit", "traffic_split"):
                    self._split(resource, dict(change.traffic_split))
                elif field == "labels":
                    self.resources[resource]["labels"] = dict(change.labels)
                else:
                    raise RefusalError(400, f"{field} can not be changed")
            return self.resources[resource]
        return self._got(resource)

    def _new(self):
        self._number += 1
        return str(self._number)

    def _operation(self, kind, response):
        name = f"{PARENT}/operations/{self._new()}"
        self.resources[name] = {
            "name": name, "done": True,
            "response": {"@type": f"type.googleapis.com/google.cloud.aiplatform.v1.{kind}"}
            | response,
        }  # fmt: skip
        if kind == "Empty":
            empty = {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}
            self.resources[name]["response"] = empty
        return self.resources[name]

    def _create(self, parent, kind, query, body):
        assert parent == f"{PARENT}/{kind}"
        message = parsed(body, KINDS[kind])
        if len(getattr(message, "display_name", "")) > 128:
            raise RefusalError(400, "display_name is too long")
        number = query.get("pipelineJobId", [self._new()])[0]
        name = f"{PARENT}/{kind}/{number}"
        if name in self.resources:
            raise RefusalError(409, f"{name} already exists")
        if kind == "pipelineJobs":
            checked_job(message)
        if kind == "schedules":
            checked_job(message.create_pipeline_job_request.pipeline_job)
        if kind == "customJobs":
            assert message.job_spec.worker_pool_specs
        content = json_format.MessageToDict(message._pb) | {
            "name": name, "createTime": moment(self._number),
        }  # fmt: skip
        if kind == "schedules":
            content["state"] = "ACTIVE"
        if kind in ("batchPredictionJobs", "hyperparameterTuningJobs", "customJobs"):
            content["state"] = "JOB_STATE_PENDING"
        self.resources[name] = content
        if kind == "endpoints":
            return self._operation("CreateEndpointOperationMetadata", {}) | {
                "response": {"@type": "type.googleapis.com/google.cloud.aiplatform.v1.Endpoint"}
                | content
            }
        return content

    def _list(self, parent, kind, query):
        found = [
            one for name, one in self.resources.items()
            if name.startswith(f"{parent}/") and "operations" not in name
        ]  # fmt: skip
        if wanted := query.get("filter"):
            match = re.fullmatch(r'(display_name|pipeline_name)="(.*)"', wanted[0])
            assert match, wanted
            if match[1] == "display_name":
                found = [one for one in found if one.get("displayName") == match[2]]
        found.sort(key=lambda one: one["createTime"], reverse=True)
        return {kind: found}

    def _got(self, resource):
        name, _, version = resource.partition("@")
        content = self.resources[name]
        kind = name.split("/")[-2]
        if kind == "models":
            return self._version(name, version)
        if kind == "pipelineJobs":
            state, tasks = self.snapshots[0] if self.snapshots else ("RUNNING", [])
            if len(self.snapshots) > 1:
                self.snapshots.popleft()
            if content.get("state") != f"{STATE}CANCELLED":
                content |= {"state": STATE + state, "jobDetail": {"taskDetails": tasks}}
            if state == "FAILED" and "error" not in content:
                content["error"] = {
                    "code": 9,
                    "message": "The DAG failed because some tasks failed.",
                }
        if kind in self.finished:
            content |= self.finished[kind]
        return content

    def _version(self, name, version):
        versions = self.versions[name]
        for one in versions:
            if version in (one["versionId"], *one["versionAliases"]) or (
                not version and "default" in one["versionAliases"]
            ):
                return one
        raise RefusalError(404, f"{name}@{version} is not found")

    def _act(self, resource, action, query, body):
        if action == "cancel":
            if resource not in self.resources:
                raise RefusalError(404, f"{resource} is not found")
            self.resources[resource]["state"] = f"{STATE}CANCELLED"
            return {}
        if action in ("pause", "resume"):
            state = {"pause": "PAUSED", "resume": "ACTIVE"}[action]
            self.resources[resource]["state"] = state
            return {}
        if action == "listVersions":
            return {"models": self._listed_versions(resource, query)}
        content = dict(body)
        message = parsed(content, ACTIONS[action])
        return getattr(self, f"_{action}")(resource, message)

    def _listed_versions(self, name, query):
        if name not in self.versions:
            raise RefusalError(404, f"{name} is not found")
        if not (wanted := query.get("filter")):
            return self.versions[name]
        match = re.fullmatch(r'labels\.(\w+)="([\w-]+)"', wanted[0])
        assert match, wanted
        return [one for one in self.versions[name]
                if one.get("labels", {}).get(match[1]) == match[2]]  # fmt: skip

    def _upload(self, _parent, message):
        model = message.model
        assert model.artifact_uri.startswith("gs://")
        assert model.container_spec.image_uri
        name = message.parent_model or f"{PARENT}/models/{message.model_id or self._new()}"
        if bool(message.parent_model) != (name in self.versions):
            raise RefusalError(409, f"{name}: there already, or not yet")
        content = json_format.MessageToDict(model._pb)
        known = self.versions.setdefault(name, [])
        aliases = list(model.version_aliases)
        if "default" in aliases or not known:
            for one in known:
                one["versionAliases"] = [a for a in one["versionAliases"] if a != "default"]
            aliases = [*(a for a in aliases if a != "default"), "default"]
        number = str(len(known) + 1)
        content |= {
            "name": name, "versionId": number, "versionAliases": aliases,
            "versionCreateTime": moment(self._number), "createTime": moment(self._number),
            "supportedDeploymentResourcesTypes": ["DEDICATED_RESOURCES"],
        }  # fmt: skip
        known.append(content)
        self.resources[name] = content
        return self._operation("UploadModelResponse", {"model": name, "modelVersionId": number})

    def _mergeVersionAliases(self, resource, message):  # noqa: N802
        name, _, version = resource.partition("@")
        one = self._version(name, version)
        for alias in message.version_aliases:
            if alias == "-default":
                raise RefusalError(400, "the default version can not be without its alias")
            if alias == "default":  # it moves by itself
                for other in self.versions[name]:
                    other["versionAliases"] = [a for a in other["versionAliases"] if a != "default"]
            if alias.startswith("-"):
                one["versionAliases"].remove(alias[1:])
                continue
            for other in self.versions[name]:
                if alias in other["versionAliases"]:
                    raise RefusalError(400, f"alias {alias} is of version {other['versionId']}")
            one["versionAliases"].append(alias)
        return one

    def _deployModel(self, resource, message):  # noqa: N802
        endpoint = self.resources[resource]
        deployed = json_format.MessageToDict(message.deployed_model._pb)
        model, _, version = deployed["model"].partition("@")
        if model not in self.versions:
            raise RefusalError(404, f"{model} is not found")
        number = self._new()
        deployed |= {
            "id": number, "createTime": moment(self._number), "model": model,
            "modelVersionId": version or self._version(model, "")["versionId"],
        }  # fmt: skip
        endpoint.setdefault("deployedModels", []).append(deployed)
        split = {number if key == "0" else key: value
                 for key, value in message.traffic_split.items()}  # fmt: skip
        self._split(resource, split)
        return self._operation("DeployModelResponse", {"deployedModel": deployed})

    def _undeployModel(self, resource, message):  # noqa: N802
        endpoint = self.resources[resource]
        split = dict(message.traffic_split) or endpoint.get("trafficSplit", {})
        if split.get(message.deployed_model_id) and len(endpoint["deployedModels"]) > 1:
            raise RefusalError(400, "it has traffic")
        endpoint["deployedModels"] = [
            one for one in endpoint["deployedModels"] if one["id"] != message.deployed_model_id
        ]
        if message.traffic_split:
            self._split(resource, dict(message.traffic_split))
        if not endpoint["deployedModels"]:
            endpoint["trafficSplit"] = {}
        return self._operation("UndeployModelResponse", {})

    def _split(self, resource, split):
        endpoint = self.resources[resource]
        ids = {one["id"] for one in endpoint.get("deployedModels", [])}
        split = {key: value for key, value in split.items() if key in ids or value}
        if set(split) - ids or (split and sum(split.values()) != 100):
            raise RefusalError(400, f"traffic split {split} of {sorted(ids)}")
        endpoint["trafficSplit"] = split


@contextlib.contextmanager
def serving():
    """A server for as long as the context lasts."""
    server = VertexServer()
    try:
        yield server
    finally:
        server.close()


def entry(name, text, seconds=0):
    """A line of a container as Cloud Logging gives it."""
    return {
        "insertId": name, "timestamp": moment(seconds).replace("+00:00", "Z"),
        "jsonPayload": {"message": text},
    }  # fmt: skip
