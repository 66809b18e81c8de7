"""One DAG: on every target the same steps, edges and parameters, but for declared extra steps."""

import itertools

import pytest
import yaml
from kfp import compiler

from pipeline.clusters.running import pod_settings
from pipeline.targets.docker import docker_target
from pipeline.targets.local import local_target
from pipeline.targets.vertex import vertex_target
from pipeline.targets.vertex_settings import vertex_settings
from pipeline.training_pipeline import EXTRA_STEPS, STEPS, build
from tests.pipeline.test_compile import EVERYTHING, HOME, IMAGE

TARGETS = {
    "local": local_target,
    "docker": docker_target,
    "kfp": lambda: pod_settings(["gpus=1"]).target("kfp", IMAGE),
    "vertex": lambda: vertex_target(IMAGE),
    "vertex everything": lambda: vertex_target(IMAGE, vertex_settings(EVERYTHING.split()), HOME),
    "vertex least": lambda: vertex_target(
        IMAGE, vertex_settings(["accelerator=", "registered_model="])
    ),
}
OF_THE_TARGET = {"beam_pipeline_args", "registered"}
"""Inputs of core steps that are constants of the place to run."""
NOTIFICATION = "vertex-pipelines-notification-email"


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    found = {}
    for name, make in TARGETS.items():
        target = make()
        compiler.Compiler().compile(build(target), str(folder / "pipeline.yaml"))
        text = (folder / "pipeline.yaml").read_text()
        found[name] = target, next(iter(yaml.safe_load_all(text)))
    return found


class Dag:
    """A compiled DAG, flattened: where each task's inputs come from in the end."""

    def __init__(self, spec):
        self.spec = spec
        self.parents = {}
        for owner, component in {"root": spec["root"], **spec["components"]}.items():
            for name, task in component.get("dag", {}).get("tasks", {}).items():
                self.parents.setdefault(task["componentRef"]["name"], []).append(
                    (owner, name, task)
                )

    def tasks(self):
        return {
            name: (owner, task)
            for owner, name, task in itertools.chain(*self.parents.values())
            if "dag" not in self.spec["components"][task["componentRef"]["name"]]
        }

    def origin(self, owner, kind, source):
        for key in ("componentInputParameter", "componentInputArtifact"):
            if key in source:
                if owner == "root":
                    return "parameter", source[key]
                ((above, _, task),) = self.parents[owner]
                return self.origin(above, kind, task["inputs"][kind][source[key]])
        for key in ("taskOutputParameter", "taskOutputArtifact"):
            if key in source:
                reference = source[key]
                return reference["producerTask"], reference.get(
                    "outputParameterKey", reference.get("outputArtifactKey")
                )
        return "constant", source["runtimeValue"]["constant"]

    def inputs(self, name):
        owner, task = self.tasks()[name]
        return {
            key: self.origin(owner, kind, source)
            for kind, given in task.get("inputs", {}).items()
            for key, source in given.items()
            if key not in OF_THE_TARGET
        }

    def conditions(self, name):
        """What has to hold for a task to run: each condition with the origin of its operand."""
        found = []
        owner, task = self.tasks()[name]
        while True:
            if condition := task.get("triggerPolicy", {}).get("condition"):
                operands = {
                    self.origin(owner, "parameters", source)
                    for source in task["inputs"]["parameters"].values()
                    if "taskOutputParameter" in source
                }
                found.append((condition.rpartition("]")[2], frozenset(operands & {VERDICT})))
            if owner == "root":
                return found
            ((owner, _, task),) = self.parents[owner]


VERDICT = ("gate", "Output")


@pytest.mark.slow
def test_the_core_is_the_same_everywhere(specs):
    dags = {name: Dag(spec) for name, (_, spec) in specs.items()}
    local = dags["local"]
    assert set(local.tasks()) == set(STEPS)
    for name, dag in dags.items():
        for step in STEPS:
            assert dag.inputs(step) == local.inputs(step), (name, step)
            assert dag.conditions(step) == local.conditions(step), (name, step)
    assert local.inputs("train")["example_statistics"] == ("statistics", "example_statistics")
    assert local.inputs("train")["epochs"] == ("parameter", "epochs")
    ((condition, operands),) = local.conditions("export")
    assert "== true" in condition
    assert operands == {VERDICT}


def test_the_parameters_are_the_same_everywhere(specs):
    parameters = [spec["root"]["inputDefinitions"] for _, spec in specs.values()]
    assert all(one == parameters[0] for one in parameters)


def test_extra_steps_are_the_declared_ones(specs):
    for name, (target, spec) in specs.items():
        assert set(target.extra_steps) <= set(EXTRA_STEPS)
        more = set(Dag(spec).tasks()) - set(STEPS)
        plain = {one.removesuffix("-2").replace("-", "_") for one in more - {NOTIFICATION}}
        assert plain == set(target.extra_steps), name
        assert (NOTIFICATION in more) == (name == "vertex everything")


def test_extra_steps_come_after_the_export(specs):
    dag = Dag(specs["vertex everything"][1])
    assert dag.inputs("register")["serving_model"] == ("export", "serving_model")
    for step in ("deploy", "batch-predict"):
        assert dag.inputs(step)["model"] == ("register", "Output")
    for step in ("register", "deploy", "batch-predict"):
        assert dag.conditions(step) == dag.conditions("export")
