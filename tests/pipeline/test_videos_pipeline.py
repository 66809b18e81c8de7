"""The DAG for own videos: one on every target, with the parameters that the command takes."""

import dataclasses

import pytest
import yaml
from kfp import compiler

from pipeline.check_spec import check_pipeline_file
from pipeline.clusters.running import pod_settings
from pipeline.compiled_file import compile_target
from pipeline.run_videos import VideosParameters
from pipeline.targets.local import local_target
from pipeline.targets.vertex import vertex_target
from pipeline.targets.vertex_settings import vertex_settings
from pipeline.vertex.check_file import check_vertex_file
from pipeline.videos_pipeline import STEPS, build_videos
from tests.pipeline.test_compile import IMAGE

TARGETS = {
    "local": local_target,
    "kfp": lambda: pod_settings(["gpus=1"]).target("kfp", IMAGE),
    "vertex": lambda: vertex_target(IMAGE),
}


@pytest.fixture(params=TARGETS)
def compiled(request, tmp_path):
    path = tmp_path / "videos.yaml"
    compiler.Compiler().compile(build_videos(TARGETS[request.param]()), str(path))
    check_pipeline_file(path)
    if request.param == "vertex":
        check_vertex_file(path)
    return next(iter(yaml.safe_load_all(path.read_text())))


def tasks_of(spec):
    found = {}
    for component in (spec["root"], *spec["components"].values()):
        found |= component.get("dag", {}).get("tasks", {})
    return found


def test_the_steps_and_what_they_hand_over(compiled):
    tasks = tasks_of(compiled)
    assert set(STEPS) <= set(tasks)
    assert set(tasks) - set(STEPS) == {"condition-1", "importer"}
    taken = tasks["statistics"]["inputs"]["artifacts"]["examples"]["taskOutputArtifact"]
    assert taken == {"outputArtifactKey": "examples", "producerTask": "extract-features"}
    condition = tasks["condition-1"]
    assert "!= ''" in condition["triggerPolicy"]["condition"]
    assert set(condition["dependentTasks"]) == {"extract-features", "statistics"}
    assert not tasks["extract-features"].get("cachingOptions", {}).get("enableCache")
    assert tasks["statistics"]["cachingOptions"]["enableCache"]


def test_features_are_made_on_an_accelerator_if_that_is_wanted(tmp_path):
    target = vertex_target(IMAGE, vertex_settings(["extract_accelerator=true"]))
    compile_target(target, tmp_path / "videos.yaml", make=build_videos)
    check_vertex_file(tmp_path / "videos.yaml")
    (spec,) = yaml.safe_load_all((tmp_path / "videos.yaml").read_text())
    containers = {
        name.removeprefix("exec-"): one["container"]
        for name, one in spec["deploymentSpec"]["executors"].items()
        if "container" in one
    }
    extraction = containers["extract-features"]
    assert extraction["image"] == IMAGE.replace("{kind}", "gpu")
    assert extraction["resources"]["accelerator"] == {
        "count": "1", "type": "NVIDIA_TESLA_T4",
        "resourceCount": "1", "resourceType": "NVIDIA_TESLA_T4",
    }  # fmt: skip
    for step in ("statistics", "predict"):
        assert containers[step]["image"] == IMAGE.replace("{kind}", "cpu")
        assert "accelerator" not in containers[step]["resources"]


def test_the_commands_parameters_are_the_dags(compiled):
    inputs = compiled["root"]["inputDefinitions"]["parameters"]
    defaults = dataclasses.asdict(VideosParameters())
    assert {name: one["defaultValue"] for name, one in inputs.items()} == defaults
    assert all(one["description"] for one in inputs.values())
