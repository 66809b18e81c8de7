"""Is a compiled pipeline one that Vertex AI takes? Asked here, not after an hour in its queue.

Limits: https://cloud.google.com/vertex-ai/docs/quotas#vertex-pipelines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from google.cloud import aiplatform_v1
from google.protobuf import json_format

from pipeline.check_spec import check_spec
from pipeline.targets.vertex_machines import check_machine, machine_table
from trainer.errors import InputError
from trainer.parameter import nearest

_MOST_TASKS = 10_000
_MOST_ARTIFACTS = 100
_MOST_CPUS, _MOST_GB = 96.0, 624.0
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,127}")
_PLAIN = ("STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE", "BOOLEAN")
"""Types that the console's form has a field for; numbers in a STRUCT arrive as floats."""
_UNITS = {
    "": 1.0, "m": 1e-3, "k": 1e-6, "Ki": 1.024e-6, "M": 1e-3, "Mi": 1.049e-3, "G": 1.0, "Gi": 1.074,
    "T": 1e3, "Ti": 1.1e3, "P": 1e6, "Pi": 1.126e6,
}  # fmt: skip
"""In vCPUs or GB."""
_POOLS = "worker_pool_specs"


def check_vertex_file(path: str | os.PathLike[str]) -> None:
    """Check a compiled file.

    Raises:
        InputError: the first thing in it that Vertex AI would refuse, or take for another.
    """
    name = os.fspath(path)
    try:
        documents = list(yaml.safe_load_all(Path(path).read_text(encoding="utf-8")))
        _check_documents(documents, name)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name}: is no compiled pipeline ({reason})") from None


def _check_documents(documents: list[Any], name: str) -> None:
    if len(documents) != 1:
        raise InputError(
            f"{name}: has {len(documents)} documents, expected one: settings of Kubernetes are in "
            "it, which Vertex AI does not know"
        )
    spec = documents[0]
    check_spec(spec, name)
    _check_root(spec, name)
    tasks = 0
    for where, component in spec["components"].items():
        for kind in ("inputDefinitions", "outputDefinitions"):
            count = len(component.get(kind, {}).get("artifacts", {}))
            if count > _MOST_ARTIFACTS:
                raise InputError(
                    f"{name}: {where} has {count} artifacts, expected at most {_MOST_ARTIFACTS}"
                )
        tasks += len(component.get("dag", {}).get("tasks", {}))
        _check_pools(component, f"{name}: {where}")
    if tasks + len(spec["root"]["dag"]["tasks"]) > _MOST_TASKS:
        raise InputError(f"{name}: has more than {_MOST_TASKS:,} tasks")
    for where, executor in spec["deploymentSpec"]["executors"].items():
        if "importer" in executor:
            continue
        container = executor.get("container", {})
        _check_image(container.get("image", ""), f"{name}: executor {where}")
        _check_resources(container.get("resources", {}), f"{name}: executor {where}")


def _check_root(spec: dict[str, Any], name: str) -> None:
    """The pipeline's name, and that its form can be filled in by a person."""
    if not _NAME.fullmatch(pipeline := spec["pipelineInfo"]["name"]):
        raise InputError(f"{name}: pipeline name {pipeline!r}: expected up to 128 of a-z, 0-9, -")
    for key, one in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items():
        where = f"{name}: parameter {key}"
        if one["parameterType"] not in _PLAIN:
            raise InputError(
                f"{where}: is a {one['parameterType']}, expected one of {', '.join(_PLAIN)}: "
                "numbers in the others change their type on the way"
            )
        if "defaultValue" not in one:
            raise InputError(f"{where}: has no default value")
        if not one.get("description"):
            raise InputError(f"{where}: has no description for the console's form")


def _check_image(image: str, where: str) -> None:
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    if image == "set-by-target" or not image:
        raise InputError(f"{where}: has no image")
    if "@sha256:" not in image and tag in ("", "latest"):
        raise InputError(f"{where}: image {image}: expected the tag of one build, not latest")


def _check_resources(resources: dict[str, Any], where: str) -> None:
    """https://cloud.google.com/vertex-ai/docs/pipelines/machine-types."""
    for kind, most in (("Cpu", _MOST_CPUS), ("Memory", _MOST_GB)):
        for field in (f"{kind.lower()}Limit", f"resource{kind}Limit"):
            value = _number(resources.get(field, 0))
            if value > most:
                raise InputError(f"{where}: {field} is {value:g}, expected at most {most:g}")
        if resources.get(f"resource{kind}Request") or resources.get(f"{kind.lower()}Request"):
            raise InputError(f"{where}: asks for {kind.lower()} by a request, expected a limit")
    accelerator = resources.get("accelerator")
    if not accelerator:
        return
    known = machine_table()["accelerators"]
    kind = accelerator.get("resourceType") or accelerator.get("type", "")
    count = int(accelerator.get("resourceCount") or accelerator.get("count", 0))
    if kind not in known:
        raise InputError(
            f"{where}: accelerator {kind!r}: expected one of {', '.join(known)}"
            f"{nearest(kind, known)}"
        )
    counts = {number for numbers in known[kind]["machines"].values() for number in numbers}
    if count not in counts:
        raise InputError(
            f"{where}: {count} of {kind}, expected {', '.join(map(str, sorted(counts)))}"
        )


def _number(value: Any) -> float:
    """Of `8`, `30G` or the like."""
    text = str(value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-zA-Z]*)", text)
    if not match:
        raise InputError(f"resource limit {text!r}: expected a number with a unit")
    if match[2] not in _UNITS:
        raise InputError(f"resource limit {text!r}: expected a unit of {', '.join(_UNITS)}")
    return float(match[1]) * _UNITS[match[2]]


def _check_pools(component: dict[str, Any], where: str) -> None:
    """The worker pools of a custom job."""
    parameters = component.get("inputDefinitions", {}).get("parameters", {})
    for place, pool in _pools(parameters):
        at = f"{where}: {_POOLS}[{place}]"
        try:
            parsed = json_format.ParseDict(pool, aiplatform_v1.WorkerPoolSpec()._pb)
        except json_format.ParseError as error:
            raise InputError(f"{at}: is no WorkerPoolSpec ({error})") from None
        machine = parsed.machine_spec
        kind = aiplatform_v1.AcceleratorType(machine.accelerator_type)
        accelerator = kind.name if kind else ""
        check_machine(
            f"{at}: machine", machine.machine_type, accelerator, machine.accelerator_count
        )
        _check_image(parsed.container_spec.image_uri, at)
        if parsed.replica_count < 1:
            raise InputError(f"{at}: has no replica")


def _pools(parameters: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    if _POOLS in parameters:
        yield from enumerate(parameters[_POOLS].get("defaultValue", []))
