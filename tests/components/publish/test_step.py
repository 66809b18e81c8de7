"""Results are copied whole, RESULTS.json last, to a folder or a bucket."""

import json
from pathlib import Path

import pytest

from components.publish import step
from components.publish.step import RESULTS, results_of, run_publish
from trainer.errors import InputError

VERDICT = {"blessed": True, "reason": "GAP@20 0.7 reaches 0.5"}


@pytest.fixture
def artifacts(tmp_path):
    model, evaluation = tmp_path / "model", tmp_path / "evaluation"
    (model / "deep").mkdir(parents=True)
    evaluation.mkdir()
    (model / "deep" / "weights").write_bytes(b"12345")
    (evaluation / "evaluation.json").write_text("{}")
    return {"trained_model": str(model), "evaluation": str(evaluation)}


EXPECTED = {
    "run": "7",
    **VERDICT,
    "artifacts": ["evaluation", "trained_model"],
    "files": {"trained_model/deep/weights": 5, "evaluation/evaluation.json": 2},
}


def test_to_a_folder(artifacts, tmp_path, capsys):
    place = Path(run_publish(str(tmp_path / "out"), "7", artifacts, VERDICT))
    assert place == tmp_path / "out" / "runs" / "7"
    assert json.loads((place / RESULTS).read_text()) == EXPECTED
    assert (place / "trained_model" / "deep" / "weights").read_bytes() == b"12345"
    assert "[publish] 2 files, 0.0 MB" in capsys.readouterr().out
    # A step that is tried again replaces what is there.
    (Path(artifacts["trained_model"]) / "deep" / "weights").write_bytes(b"1")
    run_publish(str(tmp_path / "out"), "7", artifacts, VERDICT)
    assert (place / "trained_model" / "deep" / "weights").read_bytes() == b"1"


def test_to_a_bucket(artifacts, bucket):
    place = run_publish(f"gs://{bucket.name}/p/", "7", artifacts, VERDICT)
    assert place == f"gs://{bucket.name}/p/runs/7"
    names = [blob.name for blob in bucket.list_blobs()]
    assert sorted(names) == [
        "p/runs/7/RESULTS.json", "p/runs/7/evaluation/evaluation.json",
        "p/runs/7/trained_model/deep/weights",
    ]  # fmt: skip
    assert json.loads(bucket.blob("p/runs/7/RESULTS.json").download_as_bytes()) == EXPECTED


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_second_try_that_is_killed_does_not_look_whole(
    where, artifacts, tmp_path, bucket, monkeypatch
):
    destination = str(tmp_path / "out") if where == "folder" else f"gs://{bucket.name}/p"
    run_publish(destination, "7", artifacts, VERDICT)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(step.shutil, "copytree", killed)
    monkeypatch.setattr(step.CloudStorage, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        run_publish(destination, "7", artifacts, VERDICT)
    assert not (tmp_path / "out" / "runs" / "7" / RESULTS).exists()
    assert bucket.get_blob("p/runs/7/RESULTS.json") is None


def test_nowhere(artifacts, capsys):
    assert run_publish("", "7", artifacts, VERDICT) == ""
    assert "no destination" in capsys.readouterr().out


def test_an_artifact_that_is_not_there(artifacts, tmp_path):
    artifacts["trained_model"] = "/nowhere"
    with pytest.raises(InputError, match="artifact trained_model: /nowhere is no folder"):
        run_publish(str(tmp_path / "out"), "7", artifacts, VERDICT)
    assert not (tmp_path / "out").exists()


def test_where_results_are():
    assert results_of("gs://b/p/", "7") == results_of("gs://b/p", "7") == "gs://b/p/runs/7"
