"""Compiled files: whole against golden copies, and checked for what a backend would stumble on.

`python -m tests.pipeline.test_compile` writes the golden copies anew; read the difference.
"""

import copy
import re
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.check_spec import check_spec
from pipeline.compile import main
from pipeline.compiled_file import compile_target
from pipeline.image_names import code_digest
from pipeline.targets.kubernetes import KubernetesTarget
from pipeline.targets.vertex import vertex_target
from pipeline.targets.vertex_settings import Home, vertex_settings
from pipeline.training_pipeline import STEPS
from pipeline.vertex.check_file import check_vertex_file
from trainer.errors import InputError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
IMAGE = "registry.example/nextvlad-{kind}:fixed"


EVERYTHING = (
    "workers=2 spot=true machine=g2-standard-24 accelerator=NVIDIA_L4 accelerators=2 "
    "evaluate_accelerators=1 tensorboard=projects/1/locations/us-central1/tensorboards/7 "
    "labels=team:video,cost:7 email=a@example.com,b@example.com aliases=prod endpoint=videos "
    "traffic=20 batch_source=gs://data/test*.tfrecord batch_destination=gs://data/predictions"
)
HOME = Home(
    "my-project-1", "us-central1", "data", "sa@my-project-1.iam.gserviceaccount.com",
    "projects/1/global/networks/net",
    "projects/my-project-1/locations/us-central1/keyRings/r/cryptoKeys/k",
)  # fmt: skip


def targets():
    """By the golden file's name: as the console gets it, all that Vertex AI can have, a cluster."""
    cpu = IMAGE.replace("{kind}", "cpu")
    return {
        "vertex": vertex_target(IMAGE),
        "vertex_everything": vertex_target(IMAGE, vertex_settings(EVERYTHING.split()), HOME),
        "kubernetes": KubernetesTarget("kubernetes", cpu, cpu),
    }


@pytest.mark.parametrize("name", list(targets()))
def test_the_compiled_file_is_the_golden_one(name, tmp_path):
    compile_target(targets()[name], tmp_path / "pipeline.yaml")
    found = (tmp_path / "pipeline.yaml").read_text()
    assert found == (GOLDEN / f"{name}.yaml").read_text()
    assert list(tmp_path.iterdir()) == [tmp_path / "pipeline.yaml"]


@pytest.fixture
def spec():
    return next(iter(yaml.safe_load_all((GOLDEN / "vertex.yaml").read_text())))


def executors(spec):
    return spec["deploymentSpec"]["executors"]


def test_every_executor_has_its_own_image_and_machine(spec):
    images = {name: e["container"]["image"] for name, e in executors(spec).items()}
    assert images.pop("exec-train").startswith("gcr.io/ml-pipeline/google-cloud-pipeline-comp")
    for image in images.values():
        assert image == "registry.example/nextvlad-cpu:fixed"
    pools = spec["components"]["comp-train"]["inputDefinitions"]["parameters"]["worker_pool_specs"]
    (pool,) = pools["defaultValue"]
    assert pool["container_spec"]["image_uri"] == "registry.example/nextvlad-gpu:fixed"
    assert pool["machine_spec"] == {
        "machine_type": "n1-standard-8", "accelerator_type": "NVIDIA_TESLA_T4",
        "accelerator_count": 1,
    }  # fmt: skip


def test_kubernetes_has_its_settings_in_a_second_document():
    _, platform = yaml.safe_load_all((GOLDEN / "kubernetes.yaml").read_text())
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert len(settings) == len(STEPS) + 2  # publish, of a blessed and of a refused model
    for one in settings.values():
        assert one["imagePullPolicy"] == "IfNotPresent"
        assert one["emptyDirMounts"][0]["mountPath"] == "/dev/shm"


@pytest.mark.parametrize("name", ["vertex", "vertex_everything"])
def test_vertex_can_read_its_file(name):
    check_vertex_file(GOLDEN / f"{name}.yaml")


def test_the_download_step_is_never_cached_and_the_others_are(spec):
    tasks = spec["root"]["dag"]["tasks"]
    cached = {n: bool(t["cachingOptions"].get("enableCache")) for n, t in tasks.items()
              if "cachingOptions" in t}  # fmt: skip
    assert cached.pop("download") is False
    assert all(cached.values())


def drop(path):
    def spoil(spec):
        *parents, last = path
        for key in parents:
            spec = spec[key]
        del spec[last]

    return spoil


def put(path, value):
    def spoil(spec):
        *parents, last = path
        for key in parents:
            spec = spec[key]
        spec[last] = value

    return spoil


TASKS = ("root", "dag", "tasks")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (put(("root", "nonsense"), 1), "is no PipelineSpec"),
        (drop(("components", "comp-gate")), "component 'comp-gate' does not exist"),
        (drop(("deploymentSpec", "executors", "exec-train")), "'exec-train' does not exist"),
        (drop(("deploymentSpec", "executors", "exec-train", "container", "image")), "no image"),
        (drop(("deploymentSpec", "executors", "exec-gate", "container", "command")), "no command"),
        (put((*TASKS, "gate", "dependentTasks"), ["evil"]), "depends on 'evil'"),
        (
            drop((*TASKS, "gate", "inputs", "parameters", "min_gap")),
            "input 'min_gap' of comp-gate is not",
        ),
        (
            put((*TASKS, "evaluate", "inputs", "parameters", "champion", "taskOutputParameter",
                 "outputParameterKey"), "champ"),
            "is output 'champ' of download, which has none",
        ),
        (
            put((*TASKS, "train", "inputs", "artifacts", "examples", "taskOutputArtifact",
                 "producerTask"), "upload"),
            "comes from task 'upload', which does not exist",
        ),
        (
            put((*TASKS, "train", "inputs", "parameters", "epochs"),
                {"componentInputParameter": "epoch"}),
            "is 'epoch' of the DAG, which has no such input",
        ),
        (
            put((*TASKS, "condition-1", "triggerPolicy", "condition"),
                "inputs.parameter_values['pipelinechannel--nope'] == true"),
            "its condition asks for 'pipelinechannel--nope', which is none of its inputs",
        ),
        (
            put((*TASKS, "gate", "inputs", "parameters", "more"),
                {"componentInputParameter": "epochs"}),
            "comp-gate has no input 'more'",
        ),
    ],
)  # fmt: skip
def test_what_a_backend_would_stumble_on_is_found(spec, spoil, words):
    check_spec(copy.deepcopy(spec), "golden")
    spoil(spec)
    with pytest.raises(InputError, match=re.escape(words)):
        check_spec(spec, "golden")


def test_the_command_writes_all_files(tmp_path, capsys):
    main(["--output", str(tmp_path), "--image", IMAGE])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        f"nextvlad-{one}-{place}.yaml"
        for one in ("training", "videos")
        for place in ("kubernetes", "vertex")
    ]
    main(["--output", str(tmp_path)])
    assert code_digest() in capsys.readouterr().out


def test_a_configuration_gives_the_defaults(tmp_path):
    config = GOLDEN.parents[1] / "pipeline" / "configs" / "sample.yaml"
    main(["--output", str(tmp_path), "--config", str(config), "--set", "epochs=7"])
    for path in tmp_path.glob("nextvlad-training-*.yaml"):
        spec = next(iter(yaml.safe_load_all(path.read_text())))
        defaults = spec["root"]["inputDefinitions"]["parameters"]
        assert defaults["epochs"]["defaultValue"] == 7
        assert defaults["batch_size"]["defaultValue"] == 32
        assert '"cluster_size": 16' in defaults["overrides"]["defaultValue"]


@pytest.mark.parametrize(
    "image", ["x-{knd}:1", "x:1", "x-{kind}", "host:80/x-{kind}", "x-{kind}:latest"]
)
def test_images_that_a_cache_would_mistake(image, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path), "--image", image])
    assert "expected a name with {kind}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


DATAFLOW = ["project=my-project", "region=us-central1", "temp_location=gs://my-bucket/beam"]


@pytest.mark.slow
def test_the_statistics_step_on_dataflow(tmp_path):
    more = ["max_workers=9", "public_ips=true", "labels=team:video,cost:7"]
    main(["--output", str(tmp_path), "--image", IMAGE, "--dataflow", *DATAFLOW, *more])
    spec = next(iter(yaml.safe_load_all((tmp_path / "nextvlad-training-vertex.yaml").read_text())))
    inputs = spec["root"]["dag"]["tasks"]["statistics"]["inputs"]["parameters"]
    arguments = inputs["beam_pipeline_args"]["runtimeValue"]["constant"]
    assert "--runner=DataflowRunner" in arguments
    assert "--sdk_container_image=registry.example/nextvlad-dataflow:fixed" in arguments
    assert "--max_num_workers=9" in arguments
    assert "--use_public_ips" in arguments
    assert "--labels=cost=7" in arguments
    assert "sdk_container_image" not in (tmp_path / "nextvlad-training-kubernetes.yaml").read_text()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (DATAFLOW[:2], "dataflow: temp_location is missing"),
        ([*DATAFLOW, "subnet=x"], "dataflow setting 'subnet=x': expected name=value of project"),
        ([*DATAFLOW, "max_workers=many"], "setting max_workers is 'many' (str), expected a whole"),
        ([*DATAFLOW[:2], "temp_location=/tmp"], "Invalid GCS path (/tmp/temp)"),
        (["project=My Project", *DATAFLOW[1:]], "Invalid Project ID (My Project)"),
    ],
)
def test_dataflow_settings_that_can_not_be(settings, words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path), "--image", IMAGE, "--dataflow", *settings])
    assert words in capsys.readouterr().err


if __name__ == "__main__":
    for target_name, target in targets().items():
        compile_target(target, GOLDEN / f"{target_name}.yaml")
    sys.exit()
