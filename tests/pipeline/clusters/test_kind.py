"""A cluster is made, gone on with, removed; `kind` and `kubectl` are scripts that note it all."""

import contextlib
import json
import shutil
import socket
import sys
from types import SimpleNamespace

import docker
import pytest

from pipeline.clusters import kind
from pipeline.clusters.manifests import API, PAGES, kfp_version
from pipeline.clusters.waiting import wait_for_deployments
from trainer.errors import InputError

IMAGE = "nextvlad-pipeline-cpu:1"
TOOL = f"""#!{sys.executable}
import json, pathlib, re, sys
here = pathlib.Path(__file__).parent
name = pathlib.Path(__file__).name
words = " ".join([name, *sys.argv[1:]])
given = sys.stdin.read() if "=-" in words else ""
with open(here / "calls", "a") as file:
    file.write(json.dumps([words, given]) + "\\n")
for pattern, answers in json.loads((here / "answers").read_text()):
    if re.search(pattern, words):
        seen = sum(bool(re.search(pattern, json.loads(l)[0])) for l in (here / "calls").open())
        code, out, err = answers[min(seen, len(answers)) - 1]
        print(out, end="")
        print(err, end="", file=sys.stderr)
        sys.exit(code)
"""


def deployment(name, up=True, image="x:1"):
    return {
        "metadata": {"name": name, "generation": 1},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"image": image}]}}},
        "status": {"observedGeneration": 1, "availableReplicas": int(up)},
    }


def listed(*items):
    return [0, json.dumps({"items": items}), ""]


class Tools:
    """`kind` and `kubectl` that answer as they are told, the latest rule first."""

    def __init__(self, folder):
        self.folder, self._answers = folder, []
        for name in ("kind", "kubectl", "docker"):
            (folder / name).write_text(TOOL)
            (folder / name).chmod(0o755)
        self.say("", [0, "", ""])
        self.say("^docker version", [0, "28.2.2", ""])
        self.say("^kind version", [0, "kind v0.32.0 go1.26", ""])
        self.say("kubectl version", [0, '{"clientVersion": {"gitVersion": "v1.36.0"}}', ""])
        up = [deployment("ml-pipeline", image=f"x:{kfp_version()}"), deployment("mysql")]
        self.say("get deployments", listed(), listed(*up))
        self.say("get pods", listed())

    def say(self, pattern, *answers):
        self._answers.insert(0, (pattern, answers))
        (self.folder / "answers").write_text(json.dumps(self._answers))

    def calls(self):
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def said(self, pattern):
        return [words for words, _ in self.calls() if pattern in words]


class Engine:
    """A Docker engine with images and, after `kind create`, a node."""

    def __init__(self, root, tools):
        self.node, self.here, self.removed, self.whole = None, {IMAGE}, [], True
        self.in_node, self._tools = "", tools
        self.images = SimpleNamespace(get=self._image)
        self.containers = SimpleNamespace(list=lambda **_: self._nodes())
        self.networks = SimpleNamespace(list=lambda **_: [self])
        self._root = root

    def info(self):
        return {"DockerRootDir": str(self._root)}

    def remove(self):
        self.removed.append("network")

    def _image(self, name):
        if name not in self.here:
            raise docker.errors.ImageNotFound(name)

    def _nodes(self):
        if self.node is None and self._tools.said("kind create"):
            self.has({"/data": True})
        return [self.node] if self.node else []

    def _run(self, command):
        code = 0 if command[0] == "crictl" or self.whole else 1
        return SimpleNamespace(exit_code=code, output=self.in_node.encode())

    def has(self, folders, port=8888, status="running"):
        bindings = {f"{API}/tcp": [{"HostPort": str(port)}], f"{PAGES}/tcp": [{"HostPort": "1"}]}
        mounts = [
            {"Type": "bind", "Source": folder, "Destination": folder, "RW": not read_only}
            for folder, read_only in folders.items()
        ]
        mounts.append(
            {"Type": "bind", "Source": "/lib/modules", "Destination": "/lib/modules", "RW": False}
        )
        self.started = []
        self.node = SimpleNamespace(
            status=status, attrs={"HostConfig": {"PortBindings": bindings}, "Mounts": mounts},
            exec_run=self._run, start=self._start, remove=lambda **_: self._gone(),
        )  # fmt: skip

    def _start(self):
        self.started.append(True)
        self.node.status = "running"

    def _gone(self):
        self.node = None


@pytest.fixture
def tools(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return Tools(folder)


@pytest.fixture
def engine(tmp_path, monkeypatch, tools):
    one = Engine(tmp_path, tools)
    monkeypatch.setattr(kind, "docker_engine", lambda: contextlib.nullcontext(one))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100 << 30))
    monkeypatch.setattr(kind, "Endpoint", lambda *_, **__: None)
    return one


@pytest.fixture
def port():
    """One that is free, as is the next."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1] - 1 or 1


def order(tools, *patterns):
    words = [call for call, _ in tools.calls()]
    places = [next(n for n, call in enumerate(words) if pattern in call) for pattern in patterns]
    return places == sorted(places)


def test_from_nothing(tools, engine, port, capsys):
    kind.up(port, {"/data": True}, [IMAGE], 5)
    ((_, configuration),) = [call for call in tools.calls() if "kind create cluster" in call[0]]
    assert f"hostPort: {port}\n" in configuration
    assert "hostPath: /data" in configuration
    assert order(
        tools, "kind create", "cluster-scoped-resources", " wait --for=condition=established",
        "docker/kind/kfp", f"kind load docker-image {IMAGE}", "--filename=-",
    )  # fmt: skip
    ((_, volumes),) = [call for call in tools.calls() if "--filename=-" in call[0]]
    assert "kind: PersistentVolumeClaim" in volumes
    seen = capsys.readouterr().out
    assert "makes the cluster nextvlad of kindest/node:v1.36.1" in seen
    assert "2 deployments are up" in seen
    assert f"KFP {kfp_version()} answers at http://localhost:{port}" in seen


def test_again_where_it_is_there(tools, engine):
    engine.has({"/data": False})
    kind.up(8888, {"/data": True}, [IMAGE], 5)
    assert not tools.said("kind create")
    assert not tools.said("kind delete")
    assert len(tools.said("--kustomize")) == 2  # compared, and completed if it was interrupted


def test_a_stopped_one_is_started(tools, engine):
    engine.has({}, status="exited")
    kind.up(8888, {}, [IMAGE], 5)
    assert engine.started == [True]


def test_one_that_was_killed_half_way_is_made_anew(tools, engine, port):
    engine.has({}, port)
    engine.whole = False
    kind.up(port, {}, [IMAGE], 5)
    assert order(tools, "kind delete cluster", "kind create cluster")


def test_one_that_does_not_answer_is_kept(tools, engine, monkeypatch):
    engine.has({})
    monkeypatch.setattr(kind, "_READY_SECONDS", 0.1)
    tools.say("get --raw=/readyz", [1, "", "Unable to connect to the server: EOF"])
    with pytest.raises(
        InputError, match=r"does not answer \(.*EOF\).*make kind-down and begin anew"
    ):
        kind.up(8888, {}, [IMAGE], 5)
    assert tools.said("kind export kubeconfig")
    assert not tools.said("kind delete")


def test_images_are_loaded_where_the_node_lacks_them(tools, engine):
    engine.has({})
    engine.in_node = '{"images": [{"repoTags": ["docker.io/library/other:1"]}]}'
    kind.load_images([IMAGE])
    assert len(tools.said("kind load docker-image")) == 1
    engine.in_node = f'{{"images": [{{"repoTags": ["docker.io/library/{IMAGE}"]}}]}}'
    kind.load_images([IMAGE])
    assert len(tools.said("kind load docker-image")) == 1
    with pytest.raises(
        InputError, match="image x-gpu:2 is not there: make images IMAGES='cpu gpu'"
    ):
        kind.load_images(["x-gpu:2"])
    engine.node = None
    with pytest.raises(InputError, match="there is no cluster"):
        kind.load_images([IMAGE])


def test_folders_of_an_earlier_call_have_their_claims(tools, engine):
    engine.has({"/data": True, "/runs": False})
    kind.up(8888, {"/runs": False}, [IMAGE], 5)
    ((_, volumes),) = [call for call in tools.calls() if "--filename=-" in call[0]]
    assert "path: /data\n" in volumes


@pytest.mark.parametrize("port", [0, -1, 65535, 99999])
def test_a_port_that_can_not_be(port, tools, engine):
    with pytest.raises(InputError, match=f"KIND_PORT is {port}, expected 1 to 65534"):
        kind.up(port, {}, [IMAGE], 5)


def test_what_is_missing_is_told_before_anything_is_made(tools, engine):
    with pytest.raises(InputError, match="image other:1 is not there: make images"):
        kind.up(8888, {}, ["other:1"], 5)
    tools.say("^kind version", [0, "kind v0.1.0", ""])
    with pytest.raises(InputError, match=r"kind is 0\.1, expected 0\.30"):
        kind.up(8888, {}, [IMAGE], 5)
    assert not tools.said("create")


def test_a_port_that_is_taken(tools, engine):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port {taken} .*KIND_PORT"):
            kind.up(taken, {}, [IMAGE], 5)
    assert not tools.said("kind create")


def test_no_disk(tools, engine, port, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3 << 30))
    with pytest.raises(InputError, match="has 3 GB left, a cluster with KFP takes 20"):
        kind.up(port, {}, [IMAGE], 5)
    assert not tools.said("kind create")


def test_the_nodes_image_can_not_be_pulled(tools, engine, port):
    tools.say("kind create", [1, "", 'ERROR: failed to create cluster: failed to pull image "k"'])
    with pytest.raises(InputError, match=r"node's image can not be pulled: kindest/node:v1\.36\.1"):
        kind.up(port, {}, [IMAGE], 5)


@pytest.mark.parametrize(
    ("folders", "port", "words"),
    [
        ({}, 8888, "does not see /data, and its folders can not be changed: make kind-down first"),
        ({"/data": True}, 8888, "does not see /data"),  # only to read
        ({"/data": False}, 9999, "answers at port 9999, not 8888.*KIND_PORT=9999"),
    ],
)
def test_another_cluster_of_that_name(folders, port, words, tools, engine):
    engine.has(folders, port)
    with pytest.raises(InputError, match=words):
        kind.up(8888, {"/data": False}, [IMAGE], 5)
    assert not tools.said("kind delete")


def test_another_version_of_kfp(tools, engine):
    engine.has({})
    tools.say("get deployments", listed(deployment("ml-pipeline", image="x/api-server:2.3.0")))
    with pytest.raises(
        InputError, match=r"has KFP 2\.3\.0, expected 2\.17\.0: make kind-down first"
    ):
        kind.up(8888, {}, [IMAGE], 5)
    assert not tools.said("apply")


def test_it_does_not_come_up(tools, capsys):
    tools.say("get deployments", listed(deployment("mysql", up=False), deployment("cache")))
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    pod = {
        "metadata": {"name": "mysql-1"},
        "status": {"phase": "Pending", "containerStatuses": [
            {"name": "mysql", "ready": False, "state": {"waiting": waiting}}]},
    }  # fmt: skip
    ready = {
        "metadata": {"name": "c"},
        "status": {"containerStatuses": [{"name": "c", "ready": True}]},
    }
    tools.say("get pods", listed(pod, ready))
    tools.say("get events", listed({"reason": "Failed", "message": "no such\nhost"}))
    tools.say(" logs ", [0, "line one\nline two\n", ""])
    with pytest.raises(InputError, match=r"not up after 0:00: mysql .*make kind-up goes on"):
        wait_for_deployments(kind.kubectl(), 0.2, 0.05)
    told = capsys.readouterr()
    assert "1 of 2 deployments are up, waits for: mysql (mysql: ImagePullBackOff)" in told.out
    assert told.out.count("waits for") == 1
    assert told.err.splitlines() == [
        "pod mysql-1: mysql ImagePullBackOff: Back-off pulling image",
        "  event: Failed: no such host",
        "  log: line one",
        "  log: line two",
    ]


def test_down_leaves_nothing(tools, engine):
    engine.has({})
    (tools.folder / "kubectl").unlink()  # is not needed for it
    kind.down()
    assert tools.said("kind delete cluster --name nextvlad")
    assert engine.node is None
    assert engine.removed == ["network"]
    kind.down()


def test_which_cluster_runs(engine):
    with pytest.raises(InputError, match="there is no cluster nextvlad: make kind-up"):
        kind.running_cluster()
    engine.has({"/data": True}, status="exited")
    with pytest.raises(InputError, match="is exited: make kind-up starts it"):
        kind.running_cluster()
    engine.has({"/data": True}, 9000)
    found = kind.running_cluster()
    assert (found.host, found.folders) == ("http://localhost:9000", {"/data": True})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["up", "--mounts", "/nowhere"], "mount /nowhere: no such folder")],
)
def test_what_can_not_be_is_one_line(arguments, words, tools, engine, capsys):
    with pytest.raises(SystemExit) as caught:
        kind.main(arguments)
    assert caught.value.code == 1
    assert words in capsys.readouterr().err
