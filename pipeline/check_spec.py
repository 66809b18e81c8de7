"""Is a compiled pipeline one that a backend can run? Vertex and KFP find out late, or never."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from trainer.errors import InputError


def check_pipeline_file(path: str | os.PathLike[str]) -> None:
    """Check the first document of a compiled file.

    Raises:
        InputError: it is no PipelineSpec, or it names something that does not exist.
    """
    spec = next(iter(yaml.safe_load_all(Path(path).read_text(encoding="utf-8"))))
    check_spec(spec, os.fspath(path))


def check_spec(spec: dict[str, Any], name: str) -> None:
    """Check that every component, executor, task, parameter and artifact that is named exists.

    Raises:
        InputError: the first that does not, or an executor without image or command.
    """
    try:
        json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    except json_format.ParseError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: is no PipelineSpec ({reason})") from None
    components = spec.get("components", {})
    executors = spec["deploymentSpec"]["executors"]
    used = set()
    for label, component in {"root": spec["root"], **components}.items():
        where = f"{name}: {label}"
        if "dag" in component:
            _check_dag(where, component, components)
        elif (executor := component.get("executorLabel")) not in executors:
            raise InputError(f"{where}: executor {executor!r} does not exist")
        else:
            used.add(executor)
    for label, executor in executors.items():
        if "importer" in executor:
            continue
        container = executor.get("container", {})
        if not container.get("image") or not container.get("command"):
            raise InputError(f"{name}: executor {label} has no image or no command")
        if label not in used:
            raise InputError(f"{name}: executor {label} is of no component")


def _check_dag(where: str, dag_component: dict[str, Any], components: dict[str, Any]) -> None:
    tasks = dag_component["dag"]["tasks"]
    for task_name, task in tasks.items():
        if (component_name := task["componentRef"]["name"]) not in components:
            raise InputError(
                f"{where}: task {task_name}: component {component_name!r} does not exist"
            )
    for task_name, task in tasks.items():
        at = f"{where}: task {task_name}"
        component_name = task["componentRef"]["name"]
        component = components[component_name]
        condition = task.get("triggerPolicy", {}).get("condition", "")
        for name in re.findall(r"inputs\.parameter_values\['([^']+)'\]", condition):
            if name not in task.get("inputs", {}).get("parameters", {}):
                raise InputError(
                    f"{at}: its condition asks for {name!r}, which is none of its inputs"
                )
        for other in task.get("dependentTasks", ()):
            if other not in tasks:
                raise InputError(f"{at}: depends on {other!r}, which does not exist")
        for kind, producer in (
            ("parameters", "taskOutputParameter"),
            ("artifacts", "taskOutputArtifact"),
        ):
            declared = component.get("inputDefinitions", {}).get(kind, {})
            given = task.get("inputs", {}).get(kind, {})
            for name, source in given.items():
                if name not in declared:
                    raise InputError(f"{at}: {component_name} has no input {name!r}")
                _check_source(at, name, kind, producer, source, dag_component, tasks, components)
            for name, definition in declared.items():
                optional = definition.get("isOptional") or "defaultValue" in definition
                if name not in given and not optional:
                    raise InputError(f"{at}: input {name!r} of {component_name} is not given")


def _check_source(
    at: str,
    name: str,
    kind: str,
    producer: str,
    source: dict[str, Any],
    dag_component: dict[str, Any],
    tasks: dict[str, Any],
    components: dict[str, Any],
) -> None:
    """Where an input comes from must exist: a task's output or an input of the DAG."""
    if producer in source:
        reference = source[producer]
        task = reference["producerTask"]
        key = reference["outputParameterKey" if kind == "parameters" else "outputArtifactKey"]
        if task not in tasks:
            raise InputError(f"{at}: input {name!r} comes from task {task!r}, which does not exist")
        outputs = components[tasks[task]["componentRef"]["name"]].get("outputDefinitions", {})
        if key not in outputs.get(kind, {}):
            raise InputError(f"{at}: input {name!r} is output {key!r} of {task}, which has none")
    for component_input in ("componentInputParameter", "componentInputArtifact"):
        key = source.get(component_input)
        if key is not None and key not in dag_component.get("inputDefinitions", {}).get(kind, {}):
            raise InputError(f"{at}: input {name!r} is {key!r} of the DAG, which has no such input")
