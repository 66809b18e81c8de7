"""The component compiles, and its work goes where a pipeline's records outlive it."""

import json
import shutil

import pytest
import yaml
from kfp import compiler

from components.extract_features.component import extract_features
from components.extract_features.for_pipelines import run_step
from trainer.errors import InputError
from trainer.feature_networks.feature_extractor import read_feature_extractor
from trainer.manifest import read_manifest


def test_it_compiles(tmp_path):
    compiler.Compiler().compile(extract_features, str(tmp_path / "c.yaml"))
    spec = yaml.safe_load((tmp_path / "c.yaml").read_text())
    outputs = spec["root"]["outputDefinitions"]
    assert outputs["artifacts"]["examples"]["artifactType"]["schemaTitle"] == "system.Dataset"
    assert set(outputs["parameters"]) == {"data_fingerprint", "videos", "failed"}


def step(videos, artifact, **changes):
    given = {
        "videos": str(videos), "destination": "", "features": "random", "weights": "absent",
        "model": "", "extractor": "", "vocabulary": "", "validate_share": 0.2, "max_failed": 0.1,
        "accept_damaged": False, "seed": 3, "beam_arguments": [], "artifact": str(artifact),
        "artifact_uri": str(artifact),
    }  # fmt: skip
    return run_step(**given | changes)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_records_go_to_the_destination_once(listed, tmp_path, capsys):
    folder, summary = step(listed, tmp_path / "artifact", destination=str(tmp_path / "kept"))
    assert folder == f"{tmp_path}/kept/extracted/{folder.rpartition('/')[2]}"
    manifest = read_manifest(folder)
    assert manifest.fingerprint == summary["data_fingerprint"]
    assert all(shard.path.is_file() for shard in manifest.shards)
    assert not (tmp_path / "artifact").exists()
    capsys.readouterr()
    assert step(listed, tmp_path / "a", destination=str(tmp_path / "kept"))[0] == folder
    said = capsys.readouterr().out
    assert "9 of 9 videos were done before" in said
    assert "nothing changed" in said
    inside, _ = step(listed, tmp_path / "artifact")
    assert inside == str(tmp_path / "artifact")
    assert read_manifest(inside).fingerprint == manifest.fingerprint


@pytest.mark.usefixtures("quick")
def test_a_models_networks_make_the_records(listed, clips, tmp_path):
    folder, _ = step(listed, tmp_path / "first")
    model = tmp_path / "model"
    model.mkdir()
    made = read_feature_extractor(folder)
    made.write(model)
    about = {
        "feature_extractor": made.digest, "num_classes": 4, "vocabulary_digest": "abcd",
        "level": "frame", "top_k": 4, "max_frames": 300, "data_fingerprint": "f",
    }  # fmt: skip
    (model / "export.json").write_text(json.dumps(about))
    shutil.copy(f"{folder}/vocabulary.csv", model)
    one = sorted(clips.glob("*.mp4"))[0]
    again, summary = step(one, tmp_path / "second", model=str(model), features="youtube8m")
    assert summary["feature_extractor"] == made.digest
    assert read_feature_extractor(again).digest == made.digest
    assert read_manifest(again).read_vocabulary().names == ("blue", "green", "red", "thing")
    with pytest.raises(InputError, match="extractor: the model has its own"):
        step(one, tmp_path / "third", model=str(model), extractor="x")
    (model / "export.json").write_text(json.dumps(about | {"level": "video"}))
    with pytest.raises(InputError, match="takes video-level records, expected a model of frame-"):
        step(one, tmp_path / "third", model=str(model))


@pytest.mark.usefixtures("quick")
def test_a_cluster_carries_the_artifact_itself(listed, tmp_path):
    kept = str(tmp_path / "kept")
    uri, summary = step(
        listed, tmp_path / "artifact", destination=kept, artifact_uri="minio://mlpipeline/v2/a"
    )
    assert uri == "minio://mlpipeline/v2/a"
    manifest = read_manifest(tmp_path / "artifact")
    assert manifest.fingerprint == summary["data_fingerprint"]
    assert all(shard.uri.startswith(kept) for shard in manifest.shards)
