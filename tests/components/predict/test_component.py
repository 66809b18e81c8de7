"""The component compiles, and runs in a pipeline of one's own with KFP's local runner."""

import json
import os
import subprocess
import sys

import yaml
from kfp import compiler

from components.predict.component import predict
from tests.conftest import ROOT
from trainer.manifest import Manifest, Shard

PIPELINE = """
import sys
from kfp import dsl, local
from components.predict.component import predict

@dsl.pipeline(name="own")
def own(examples_uri: str, model_uri: str):
    examples = dsl.importer(artifact_uri=examples_uri, artifact_class=dsl.Dataset)
    model = dsl.importer(artifact_uri=model_uri, artifact_class=dsl.Model)
    task = predict(
        examples=examples.output, serving_model=model.output, data_fingerprint="f", split="train"
    )
    task.set_container_image("python")

local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1])
own(examples_uri=sys.argv[2], model_uri=sys.argv[3])
"""


def test_it_compiles(tmp_path):
    compiler.Compiler().compile(predict, str(tmp_path / "predict.yaml"))
    spec = yaml.safe_load((tmp_path / "predict.yaml").read_text())
    inputs = spec["root"]["inputDefinitions"]
    assert set(inputs["artifacts"]) == {"examples", "serving_model"}
    outputs = spec["root"]["outputDefinitions"]["artifacts"]
    assert outputs["predictions"]["artifactType"]["schemaTitle"] == "system.Dataset"
    assert inputs["parameters"]["split"]["defaultValue"] == "validate"


def test_it_runs_in_a_pipeline(frame_folder, shards, tmp_path):
    path = shards / "b.tfrecord"
    shard = Shard("train", str(path), path.stat().st_size, "", 5)
    (tmp_path / "examples").mkdir()
    Manifest("here", "frame", 12, (shard,)).write(tmp_path / "examples" / "manifest.json")
    (tmp_path / "own.py").write_text(PIPELINE)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "own.py"), str(tmp_path / "root"),
         str(tmp_path / "examples"), str(frame_folder)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (summary,) = (tmp_path / "root").rglob("summary.json")
    assert json.loads(summary.read_text())["videos"] == 5
    assert (summary.parent / "predictions.csv").is_file()
