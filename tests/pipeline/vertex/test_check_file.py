"""A compiled file, whole and spoiled in every way that Vertex AI would refuse or mistake."""

import copy
import json
import re

import pytest
import yaml

from pipeline.compiled_file import compile_target
from pipeline.targets.vertex import vertex_target
from pipeline.targets.vertex_settings import Home, vertex_settings
from pipeline.vertex import check_file
from pipeline.vertex.check_file import check_vertex_file
from trainer.errors import InputError

IMAGE = "registry.example:5000/nextvlad-{kind}:fixed"
SETTINGS = (
    "workers=2 evaluate_accelerators=1 email=a@example.com endpoint=videos "
    "batch_source=gs://data/x batch_destination=gs://data/y"
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    home = Home("my-project-1", "us-central1", "data")
    compile_target(vertex_target(IMAGE, vertex_settings(SETTINGS.split()), home), path)
    return path


@pytest.fixture(scope="module")
def whole(compiled):
    """Its content without the steps' code, which is most of it."""
    (spec,) = yaml.safe_load_all(compiled.read_text())
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"].update(command=["true"], args=[])
    for pool in POOLS.of(spec):
        pool["container_spec"].update(command=["true"], args=[])
    return json.dumps(spec)


@pytest.fixture
def spec(whole):
    """One to spoil at will."""
    return json.loads(whole)


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Check a spec."""
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    monkeypatch.setattr(yaml, "safe_load_all", lambda text: yaml.load_all(text, fast))

    def run(content):
        path = tmp_path / "pipeline.yaml"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        check_vertex_file(path)

    return run


class Place:
    """Where in a spec something is."""

    def __init__(self, *path):
        self.path = path

    def __truediv__(self, key):
        return Place(*self.path, key)

    def of(self, spec):
        for key in self.path:
            spec = spec[key]
        return spec

    def put(self, spec, value):
        *parents, last = self.path
        Place(*parents).of(spec)[last] = value

    def drop(self, spec):
        *parents, last = self.path
        del Place(*parents).of(spec)[last]


COMPONENTS = Place("components")
POOLS = COMPONENTS / "comp-train" / "inputDefinitions" / "parameters" / "worker_pool_specs"
POOLS /= "defaultValue"
CONTAINER = Place("deploymentSpec", "executors", "exec-evaluate", "container")
RESOURCES = CONTAINER / "resources"
PARAMETERS = Place("root", "inputDefinitions", "parameters")
NAME = Place("pipelineInfo", "name")


def test_what_is_compiled_is_right(compiled, spec, check):
    check_vertex_file(compiled)
    check_vertex_file(str(compiled))
    check(spec)


def test_what_is_spoiled_here_is_there(spec):
    assert [pool["replica_count"] for pool in POOLS.of(spec)] == [1, 1]
    assert RESOURCES.of(spec)["accelerator"]["resourceType"] == "NVIDIA_TESLA_T4"
    assert RESOURCES.of(spec)["resourceCpuLimit"] == "8"
    assert NAME.of(spec) == "nextvlad-training"
    assert PARAMETERS.of(spec)["epochs"]["parameterType"] == "NUMBER_INTEGER"


@pytest.mark.parametrize(("more", "number"), [("---\nplatforms: {}\n", 2), ("---\n---\n", 3)])
def test_settings_of_kubernetes_are_not_for_vertex(spec, check, more, number):
    with pytest.raises(InputError, match=f"has {number} documents, expected one: settings of Kub"):
        check(f"{json.dumps(spec)}\n{more}")


def test_an_empty_file(check):
    with pytest.raises(InputError, match="has 0 documents, expected one"):
        check("")


def test_what_another_backend_would_stumble_on_is_looked_for_too(spec, check, tmp_path):
    del spec["components"]["comp-gate"]
    words = f"{tmp_path / 'pipeline.yaml'}: comp-.*: task gate: component 'comp-gate' does not exi"
    with pytest.raises(InputError, match=words):
        check(spec)


TYPES = "expected one of STRING, NUMBER_INTEGER, NUMBER_DOUBLE, BOOLEAN"
NO_IMAGE = "executor exec-evaluate: has no image"


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (NAME, "Training", "pipeline name 'Training': expected up to 128 of a-z, 0-9, -"),
        (NAME, "a_b", "pipeline name 'a_b': expected"),
        (NAME, "-ab", "pipeline name '-ab': expected"),
        (NAME, "", "pipeline name '': expected"),
        (NAME, "a" * 129, "expected up to 128 of a-z"),
        (PARAMETERS / "overrides" / "parameterType", "STRUCT",
         f"parameter overrides: is a STRUCT, {TYPES}: numbers in the others change their type"),
        (PARAMETERS / "overrides" / "parameterType", "LIST",
         f"parameter overrides: is a LIST, {TYPES}"),
        (PARAMETERS / "epochs" / "description", "",
         "parameter epochs: has no description for the console's form"),
        (PARAMETERS / "epochs" / "description", None, "parameter epochs: has no description"),
        (PARAMETERS / "epochs" / "defaultValue", None, "parameter epochs: has no default value"),
        (CONTAINER / "image", "set-by-target", NO_IMAGE),
        (CONTAINER / "image", "nextvlad-cpu",
         "executor exec-evaluate: image nextvlad-cpu: expected the tag of one build, not latest"),
        (CONTAINER / "image", "host/nextvlad-cpu:latest",
         "image host/nextvlad-cpu:latest: expected the tag of one build"),
        (CONTAINER / "image", "nextvlad-cpu:", "image nextvlad-cpu:: expected the tag of one"),
        # The port of a registry is no tag.
        (CONTAINER / "image", "host:5000/nextvlad-cpu", "expected the tag of one build"),
        (RESOURCES / "resourceCpuLimit", "97", "resourceCpuLimit is 97, expected at most 96"),
        (RESOURCES / "resourceCpuLimit", "96100m", "resourceCpuLimit is 96.1, expected at most"),
        (RESOURCES / "cpuLimit", 96.5, "executor exec-evaluate: cpuLimit is 96.5, expected at mos"),
        (RESOURCES / "resourceMemoryLimit", "625G", "resourceMemoryLimit is 625, expected at most"
                                                    " 624"),
        (RESOURCES / "resourceMemoryLimit", "600Gi", "resourceMemoryLimit is 644.4, expected at"),
        (RESOURCES / "resourceMemoryLimit", "624001M", "resourceMemoryLimit is 624.001, expected"),
        (RESOURCES / "memoryLimit", 624.5, "memoryLimit is 624.5, expected at most 624"),
        (RESOURCES / "resourceCpuRequest", "2",
         "executor exec-evaluate: asks for cpu by a request, expected a limit"),
        (RESOURCES / "cpuRequest", 2.0, "asks for cpu by a request, expected a limit"),
        (RESOURCES / "resourceMemoryRequest", "2G", "asks for memory by a request, expected a li"),
        (RESOURCES / "memoryRequest", 2.0, "asks for memory by a request, expected a limit"),
        (RESOURCES / "accelerator", {"resourceType": "nvidia.com/gpu", "resourceCount": "1"},
         "executor exec-evaluate: accelerator 'nvidia.com/gpu': expected one of NVIDIA_TESLA_T4, "),
        (RESOURCES / "accelerator", {"type": "NVIDIA_TESLA_K80", "count": "1"},
         "accelerator 'NVIDIA_TESLA_K80': expected one of NVIDIA_TESLA_T4, "),
        (RESOURCES / "accelerator", {"resourceType": "NVIDIA_TESLA_T4", "resourceCount": "3"},
         "executor exec-evaluate: 3 of NVIDIA_TESLA_T4, expected 1, 2, 4"),
        (RESOURCES / "accelerator", {"type": "NVIDIA_TESLA_T4", "count": "8"},
         "8 of NVIDIA_TESLA_T4, expected 1, 2, 4"),
        (RESOURCES / "accelerator", {"resourceType": "NVIDIA_TESLA_A100", "resourceCount": "3"},
         "3 of NVIDIA_TESLA_A100, expected 1, 2, 4, 8, 16"),
        (RESOURCES / "accelerator", {"resourceType": "NVIDIA_TESLA_T4"},
         "0 of NVIDIA_TESLA_T4, expected 1, 2, 4"),
    ],
)  # fmt: skip
def test_what_vertex_would_refuse_is_found(spec, check, tmp_path, place, value, words):
    if value is None:
        place.drop(spec)
    else:
        place.put(spec, value)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        check(spec)
    assert str(caught.value).startswith(f"{tmp_path / 'pipeline.yaml'}: ")


@pytest.mark.parametrize("limit", ["much", "-1", "8 G", "{{$.inputs.parameters['n']}}"])
@pytest.mark.parametrize("name", ["resourceCpuLimit", "resourceMemoryLimit"])
def test_a_limit_that_is_no_number(spec, check, name, limit):
    (RESOURCES / name).put(spec, limit)
    with pytest.raises(InputError, match=f"{re.escape(repr(limit))}.* expected a number"):
        check(spec)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (NAME, "a" * 128),
        (NAME, "9-lives"),
        (PARAMETERS / "epochs" / "parameterType", "NUMBER_DOUBLE"),
        (PARAMETERS / "epochs" / "parameterType", "BOOLEAN"),
        (PARAMETERS / "epochs" / "defaultValue", 0),  # 0 is a default, and so is the empty text
        (PARAMETERS / "overrides" / "defaultValue", ""),
        (CONTAINER / "image", "host:5000/a/b-cpu:1"),
        (CONTAINER / "image", "b-cpu@sha256:0123"),
        (CONTAINER / "image", "b-cpu:latest1"),
        (RESOURCES / "resourceCpuLimit", "96"),
        (RESOURCES / "resourceCpuLimit", "500m"),
        (RESOURCES / "cpuLimit", 0.5),
        (RESOURCES / "resourceMemoryLimit", "624G"),
        (RESOURCES / "resourceMemoryLimit", "581Gi"),  # 581 × 1.0737 is 623.8
        (RESOURCES / "resourceMemoryLimit", "624000M"),
        (RESOURCES / "memoryLimit", 624.0),
        (RESOURCES / "accelerator", {"resourceType": "NVIDIA_TESLA_T4", "resourceCount": "4"}),
        (RESOURCES / "accelerator", {"type": "NVIDIA_TESLA_A100", "count": "16"}),
        (RESOURCES / "accelerator", {"resourceType": "NVIDIA_L4", "resourceCount": 2}),
        (RESOURCES, {}),
        (POOLS / 0 / "machine_spec" / "accelerator_count", "2"),  # as JSON has an int64
        (POOLS / 0 / "machine_spec", {"machineType": "e2-standard-4"}),
        (POOLS / 1 / "replica_count", 99),
    ],
)
def test_what_vertex_takes(spec, check, place, value):
    place.put(spec, value)
    check(spec)


def test_a_step_that_asks_for_nothing(spec, check):
    RESOURCES.drop(spec)
    check(spec)


MACHINE = Place("machine_spec")


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (MACHINE / "machine_type", "n1-standard-7",
         "machine 'n1-standard-7': Vertex AI has no such machine type for training; did you mean"),
        (MACHINE / "machine_type", "e2-standard-8",
         "machine e2-standard-8: takes no NVIDIA_TESLA_T4, expected one of n1-standard-4, "),
        (MACHINE / "accelerator_count", 3,
         "machine n1-standard-8: takes 1, 2, 4 of NVIDIA_TESLA_T4, found 3"),
        (MACHINE / "accelerator_count", None, "takes 1, 2, 4 of NVIDIA_TESLA_T4, found 0"),
        (MACHINE / "accelerator_type", "NVIDIA_T4", "is no WorkerPoolSpec ("),
        (MACHINE, {"machine_type": "g2-standard-8"},
         "machine g2-standard-8: comes with NVIDIA_L4, expected it as accelerator"),
        (MACHINE, None, "machine '': Vertex AI has no such machine type"),
        (MACHINE / "machine_typ", "n1-standard-8", "is no WorkerPoolSpec ("),
        (MACHINE / "accelerator_count", "two", "is no WorkerPoolSpec ("),
        (Place("replicas"), 1, "is no WorkerPoolSpec ("),
        (Place("replica_count"), 0, "has no replica"),
        (Place("replica_count"), None, "has no replica"),
        (Place("container_spec") / "image_uri", "set-by-target", "has no image"),
        (Place("container_spec") / "image_uri", None, "has no image"),
        (Place("container_spec"), None, "has no image"),
        (Place("container_spec") / "image_uri", "x:latest",
         "image x:latest: expected the tag of one build, not latest"),
    ],
)  # fmt: skip
def test_worker_pools_that_can_not_be(spec, check, place, value, words):
    pool = (POOLS / 1).of(spec)
    if value is None:
        place.drop(pool)
    else:
        place.put(pool, value)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        check(spec)
    assert "comp-train: worker_pool_specs[1]: " in str(caught.value)


def test_the_first_pool_counts_as_well(spec, check):
    (POOLS / 0 / "replica_count").put(spec, 0)
    with pytest.raises(InputError, match=re.escape("worker_pool_specs[0]: has no replica")):
        check(spec)


def test_the_launcher_s_own_image_is_checked_too(spec, check):
    spec["deploymentSpec"]["executors"]["exec-train"]["container"]["image"] = "launcher:latest"
    with pytest.raises(InputError, match="executor exec-train: image launcher:latest: expected"):
        check(spec)


@pytest.mark.parametrize("kind", ["inputDefinitions", "outputDefinitions"])
def test_the_artifacts_of_a_component(spec, check, kind):
    of_gate = COMPONENTS.of(spec)["comp-gate"][kind].setdefault("artifacts", {})
    one = {"artifactType": {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}}
    one |= {"isOptional": True} if kind == "inputDefinitions" else {}
    for number in range(100 - len(of_gate)):
        of_gate[f"more_{number}"] = copy.deepcopy(one)
    check(spec)
    of_gate["one_too_many"] = one
    with pytest.raises(InputError, match="comp-gate has 101 artifacts, expected at most 100"):
        check(spec)


def test_the_tasks_of_all_dags_count(spec, check, monkeypatch):
    dags = [part["dag"] for part in (spec["root"], *spec["components"].values()) if "dag" in part]
    assert len(dags) == 3  # the whole, what is told of its end, what follows the gate
    tasks = sum(len(dag["tasks"]) for dag in dags)
    monkeypatch.setattr(check_file, "_MOST_TASKS", tasks)
    check(spec)
    monkeypatch.setattr(check_file, "_MOST_TASKS", tasks - 1)
    with pytest.raises(InputError, match=f"has more than {tasks - 1} tasks"):
        check(spec)


def test_the_limits_are_vertex_ai_s():
    """https://cloud.google.com/vertex-ai/docs/quotas#vertex-pipelines."""
    assert (check_file._MOST_TASKS, check_file._MOST_ARTIFACTS) == (10_000, 100)


@pytest.mark.parametrize("text", ["[", "3", "a: 1", "root: {}", "\x00"])
def test_what_is_no_compiled_pipeline_is_one_line(text, tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"pipeline\.yaml: ") as failure:
        check_vertex_file(path)
    assert "\n" not in str(failure.value)
