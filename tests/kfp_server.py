"""A loopback server that speaks KFP's API and rejects what the real one does not know.

Bodies are checked against the attribute maps of `kfp_server_api`, specs by strict parsing of
KFP's own messages. What a run does is given as snapshots, or the DAG is run by KFP's local runner.
"""

import contextlib
import datetime
import email
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from collections import deque, namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.check_spec import check_spec
from pipeline.training_pipeline import STEPS
from tests.conftest import ROOT

TYPES = {"str": (str, int), "int": int, "bool": bool}
"""By the client's names; a number of 64 bits is text there and either to the server."""
LIST_QUERY = {"namespace", "page_token", "page_size", "sort_by", "filter"}


Asked = namedtuple("Asked", "rest query body headers")


class RefusalError(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


def node(name, state, child="", start=None, end=None):
    """A node of a run as the real server gives it: without pod, parent or id of its own."""
    content = {
        "run_id": "set", "task_id": str(uuid.uuid4()), "display_name": name, "state": state,
        "child_tasks": [{"pod_name": child}] if child else [],
    }  # fmt: skip
    begin = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    if start is not None:
        content["start_time"] = (begin + datetime.timedelta(seconds=start)).isoformat()
    if end is not None:
        content["end_time"] = (begin + datetime.timedelta(seconds=end)).isoformat()
    return content


def pod_of(name):
    """The pod of a step's executor."""
    return f"wf-x1-system-container-impl-{abs(zlib.crc32(name.encode()))}"


def step(name, state, executor=None, start=0, end=None):
    """A step with its driver, and its executor unless it has none yet."""
    ids = {one: f"wf-x1-{zlib.crc32(one.encode())}" for one in (name, f"{name} next")}
    nodes = [
        node(f"{name}-driver", "SUCCEEDED", ids[f"{name} next"], start, start),
        node(name, state, ids[name] if executor else "", start, end),
    ]
    if executor:
        nodes.append(node("executor", executor, ids[f"{name} next"], start, end))
    return nodes


def strict(body, model, where="body"):
    """Refuse what the API does not know, as the real server's strict JSON does."""
    cls = getattr(kfp_server_api, model)
    known = {value: key for key, value in cls.attribute_map.items()}
    for name, value in body.items():
        if name not in known:
            raise RefusalError(400, f"unknown field {name!r} in {where}")
        kind = cls.openapi_types[known[name]]
        if kind.startswith("list[V2") and isinstance(value, list):
            for one in value:
                strict(one, kind[5:-1], f"{where}.{name}")
        elif kind.startswith("V2") and isinstance(value, dict):
            strict(value, kind, f"{where}.{name}")
        elif kind in TYPES and not isinstance(value, TYPES[kind]):
            raise RefusalError(400, f"{where}.{name} has the wrong type")


def checked_spec(content):
    """The pipeline spec of a run, proved with its platform part."""
    spec, platform = content, None
    if "pipeline_spec" in content:
        spec, platform = content["pipeline_spec"], content.pop("platform_spec", None)
        if set(content) != {"pipeline_spec"}:
            raise RefusalError(400, f"unknown parts of a pipeline: {sorted(content)}")
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
        if platform is not None:
            json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
            executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
            for one in executors.values():
                json_format.ParseDict(
                    one, kubernetes_executor_config_pb2.KubernetesExecutorConfig()
                )
    except json_format.ParseError as error:
        raise RefusalError(400, str(error)) from None
    check_spec(spec, "submitted")
    return spec


class KfpServer:
    """Serves on a port of the loopback until `close`.

    Attributes:
        snapshots: what a run looks like, one after the other; (state, nodes); the last one stays.
        faults: (method and path pattern, what) that the next requests meet: a status, `cut`,
            `slow`, `page`, `lost` (it is done, and the answer is
            not sent), `late` (the same, and a gateway answers 504).
        logs: of pods by name.
        token: that has to be shown.
    """

    def __init__(self, multi_user=False):
        self.snapshots, self.faults, self.logs = deque(), deque(), {}
        self.token, self.multi_user = "", multi_user
        self.experiments, self.runs, self.pipelines, self.recurring = {}, {}, {}, {}
        self._processes, self.cache = {}, tempfile.TemporaryDirectory()
        self.versions, self.requests, self.terminated = [], [], []
        self.execute, self.pages, self.bug = False, False, None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                server.answer(self, "GET")

            def do_POST(self):
                server.answer(self, "POST")

            def do_DELETE(self):
                server.answer(self, "DELETE")

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.host = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self.cache.cleanup()

    def answer(self, handler, method):
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        url = urlsplit(handler.path)
        fault = ""
        if self.faults and re.search(self.faults[0][0], f"{method} {url.path}"):
            fault = self.faults.popleft()[1]
        self.requests.append((method, url.path))
        status, content = 200, {}
        if fault == "slow":
            time.sleep(1.5)
        try:
            if isinstance(fault, int):
                raise RefusalError(fault, "as told")
            if fault == "cut":
                handler.close_connection = True
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
                return
            if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
                raise RefusalError(401, "token is not valid")
            query = {key: values[-1] for key, values in parse_qs(url.query).items()}
            content = self._route(method, url.path, query, body, handler.headers)
        except RefusalError as refusal:
            status, content = refusal.status, {"code": 3, "message": refusal.message, "details": []}
        except Exception as error:  # a bug here must not look like a refusal of the client's
            self.bug = error
            raise
        if fault == "late":  # a gateway that did not wait for what was done
            status, content = 504, {"message": "as told"}
        if fault == "lost":
            handler.close_connection = True
            return
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/json"
        if fault == "page":
            status, text, kind = 200, b"<html>log in</html>", "text/html"
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(text)

    def _route(self, method, path, query, body, headers):
        if match := not self.pages and re.fullmatch(
            r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path
        ):
            if match[2] not in self.logs:
                raise RefusalError(500, "no such pod")
            return self.logs[match[2]].encode()
        if path == "/k8s/pod/logs" and self.pages:
            return self.logs[query["podname"]].encode()
        place = path.removeprefix("/apis/v2beta1/")
        if place == path:
            raise RefusalError(404, "Not Found")
        if place == "healthz":
            return {
                "commit_sha": "unknown", "tag_name": "2.17.0", "multi_user": self.multi_user,
                "pipeline_store": "database",
            }  # fmt: skip
        name, _, rest = place.partition("/")
        route = getattr(self, f"_{method.lower()}_{name}", None)
        if route is None:
            raise RefusalError(404, "Not Found")
        return route(Asked(rest, query, body, headers))

    def _listed(self, key, stored, query, extra=()):
        if unknown := set(query) - LIST_QUERY - set(extra):
            raise RefusalError(400, f"unknown query {unknown}")
        found = list(stored.values())
        for predicate in json.loads(query.get("filter", "{}")).get("predicates", []):
            if set(predicate) != {"operation", "key", "stringValue"}:
                raise RefusalError(400, f"unknown predicate {predicate}")
            found = [one for one in found if one.get(predicate["key"]) == predicate["stringValue"]]
        return {key: found, "total_size": len(found)}

    def _made(self, stored, model, body, id_key, **more):
        content = json.loads(body)
        strict(content, model)
        made = content | {id_key: str(uuid.uuid4())} | more
        stored[made[id_key]] = made
        return made

    def _get_experiments(self, asked):
        return self._listed("experiments", self.experiments, asked.query)

    def _post_experiments(self, asked):
        return self._made(self.experiments, "V2beta1Experiment", asked.body, "experiment_id")

    def _get_runs(self, asked):
        if not asked.rest:
            return self._listed("runs", self.runs, asked.query, ["experiment_id"])
        if asked.rest not in self.runs:
            raise RefusalError(404, f"Run {asked.rest} not found")
        run = self.runs[asked.rest]
        if self.snapshots:
            state, nodes = self.snapshots[0]
            if len(self.snapshots) > 1:
                self.snapshots.popleft()
            if asked.rest in self.terminated:
                state = "FAILED"  # as KFP calls it
                run["state_history"] = [{"state": "CANCELING"}, {"state": "FAILED"}]
            run |= {"state": state, "run_details": {"task_details": nodes}}
            if state == "FAILED":
                run["error"] = {"code": 13, "message": "the workflow failed"}
        return run

    def _post_runs(self, asked):
        if asked.rest:
            run_id, _, verb = asked.rest.partition(":")
            if run_id not in self.runs or verb != "terminate":
                raise RefusalError(404, f"Run {run_id} not found")
            if self.runs[run_id].get("state") in ("SUCCEEDED", "FAILED"):
                raise RefusalError(400, f"Failed to terminate a run {run_id}. Row not found")
            self.terminated.append(run_id)
            if run_id in self._processes:
                os.killpg(self._processes[run_id].pid, signal.SIGKILL)
            return {}
        content = json.loads(asked.body)
        spec = checked_spec(dict(content["pipeline_spec"]))
        if content["experiment_id"] not in self.experiments:
            raise RefusalError(404, "Experiment not found")
        known = spec["root"]["inputDefinitions"]["parameters"]
        if unknown := set(content["runtime_config"]["parameters"]) - set(known):
            raise RefusalError(400, f"unknown parameters {unknown}")
        run = self._made(self.runs, "V2beta1Run", asked.body, "run_id", state="PENDING")
        run["created_at"] = "2026-11-01T00:00:00Z"
        if self.execute:
            threading.Thread(target=self._execute, args=(run, spec), daemon=True).start()
        return run

    def _get_pipelines(self, asked):
        if asked.rest:
            pipeline, _, rest = asked.rest.partition("/")
            if pipeline not in self.pipelines or rest != "versions":
                raise RefusalError(404, "Not Found")
            stored = {
                f"{owner}-{name}": {"pipeline_version_id": f"{owner}-{name}", "display_name": name}
                for owner, name in self.versions
                if owner == pipeline
            }
            return self._listed("pipeline_versions", stored, asked.query)
        return self._listed("pipelines", self.pipelines, asked.query)

    def _post_pipelines(self, asked):
        if asked.rest == "upload_version":
            if unknown := set(asked.query) - {"name", "display_name", "pipelineid", "description"}:
                raise RefusalError(400, f"unknown query {unknown}")
            if asked.query["pipelineid"] not in self.pipelines:
                raise RefusalError(404, "Pipeline not found")
            if (asked.query["pipelineid"], asked.query["name"]) in self.versions:
                raise RefusalError(409, "The version exists already")
            message = email.message_from_bytes(
                b"Content-Type: "
                + asked.headers["Content-Type"].encode()
                + b"\r\n\r\n"
                + asked.body
            )
            (part,) = message.get_payload()
            docs = list(yaml.safe_load_all(part.get_payload(decode=True)))
            parts = {"pipeline_spec": docs[0]} | ({"platform_spec": docs[1]} if docs[1:] else {})
            checked_spec(parts)
            self.versions.append((asked.query["pipelineid"], asked.query["name"]))
            return {
                "pipeline_id": asked.query["pipelineid"],
                "pipeline_version_id": f"{asked.query['pipelineid']}-{asked.query['name']}",
            }
        return self._made(self.pipelines, "V2beta1Pipeline", asked.body, "pipeline_id")

    def _get_recurringruns(self, asked):
        return self._listed("recurringRuns", self.recurring, asked.query, ["experiment_id"])

    def _post_recurringruns(self, asked):
        if asked.rest:
            run_id, _, verb = asked.rest.partition(":")
            self.recurring[run_id]["mode"] = {"enable": "ENABLE", "disable": "DISABLE"}[verb]
            return {}
        checked_spec(dict(json.loads(asked.body)["pipeline_spec"]))
        return self._made(
            self.recurring, "V2beta1RecurringRun", asked.body, "recurring_run_id", status="ENABLED"
        )

    def _delete_recurringruns(self, asked):
        del self.recurring[asked.rest]
        return {}

    def _execute(self, run, spec):
        """Run the DAG by KFP's local runner, and show it as a cluster would."""
        text = json.dumps(spec).replace("{{$.pipeline_job_uuid}}", run["run_id"])
        parameters = json.dumps(run["runtime_config"]["parameters"])
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.kfp_server", parameters, self.cache.name],
            cwd=ROOT, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._processes[run["run_id"]] = process
        process.stdin.write(text)
        process.stdin.close()
        run |= {"state": "RUNNING", "run_details": {"task_details": []}}
        with process.stdout as output:
            self._follow(run, output)
        failed = process.wait()
        if not failed:  # the local runner says nothing of what came from its cache
            nodes = run["run_details"]["task_details"]
            shown = {one["display_name"] for one in nodes}
            for name in (name for name in STEPS if name not in shown):
                nodes += step(name, "SUCCEEDED", "SKIPPED", len(nodes), len(nodes))
        run["state"] = "FAILED" if failed else "SUCCEEDED"
        if run["run_id"] in self.terminated:
            run["state_history"] = [{"state": "CANCELING"}, {"state": "FAILED"}]

    def _follow(self, run, output):
        states, current = {}, ""
        for raw in output:
            line = re.sub(r"\x1b\[[0-9;]*m", "", raw)
            if match := re.search(r"Executing task '([\w-]+)'", line):
                current = match[1]
                states[current] = "RUNNING"
            elif match := re.search(r"Task '([\w-]+)' finished with status (\w+)", line):
                states[match[1]] = "SUCCEEDED" if match[2] == "SUCCESS" else "FAILED"
            elif current:
                pod = pod_of(current)
                self.logs[pod] = self.logs.get(pod, "") + line
            order = list(states.items())
            run["run_details"]["task_details"] = [
                one
                for n, (name, state) in enumerate(order)
                for one in step(name, state, state, n, n + 1)
            ]


def _run_locally():
    from kfp import local
    from kfp.components import load_component_from_text

    local.init(
        local.SubprocessRunner(use_venv=False), pipeline_root=f"{sys.argv[2]}/{uuid.uuid4()}",
        enable_caching=True, cache_root=f"{sys.argv[2]}/cache",
    )  # fmt: skip
    pipeline = load_component_from_text(sys.stdin.read())
    pipeline(**json.loads(sys.argv[1]))


if __name__ == "__main__":
    _run_locally()
