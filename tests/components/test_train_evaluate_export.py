"""Train, evaluate and export hand over to each other, on tiny data."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest

from components.evaluate.step import run_evaluate
from components.export import step as export_step
from components.statistics.step import run_statistics
from components.train.step import run_train
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.manifest import Manifest, Shard
from trainer.metrics import evaluate
from trainer.models import build_model, load_model
from trainer.prediction import read_predictions
from trainer.records import read_videos


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory):
    """Folders of a trained model: examples, statistics, model."""
    from components.download.step import run_download

    folder = tmp_path_factory.mktemp("trained")
    uri, _ = run_download("sample", str(folder / "state"), tiny_config, "", "")
    run_statistics(uri, str(folder / "statistics"), str(folder / "r.html"), [])
    config = dataclasses.replace(
        tiny_config, training=dataclasses.replace(tiny_config.training, baseline="logistic")
    )
    run_train(uri, str(folder / "statistics"), config, "", str(folder / "model"))
    return uri, folder / "model"


@pytest.fixture
def evaluated(trained, tiny_config, tmp_path):
    examples, model = trained
    result = run_evaluate(
        examples, str(model), tiny_config, str(tmp_path / "e"), str(tmp_path / "e.html")
    )
    return result, tmp_path


def test_the_evaluation_is_that_of_the_predictions(evaluated, shared_sample):
    result, folder = evaluated
    assert set(result["metrics"]) == {"model", "baseline", "ceiling"}
    assert json.loads((folder / "e" / "evaluation.json").read_text()) == result
    predicted = read_predictions(folder / "e" / "predictions.csv", 12)
    videos = [
        video
        for path in sorted((shared_sample / "validate").iterdir())
        for video in read_videos(path, "frame", 12)
    ]
    labels = np.zeros((len(videos), 12))
    for row, video in enumerate(videos):
        labels[row, video.labels] = 1
    scores = evaluate([predicted[video.video_id] for video in videos], labels)
    assert result["metrics"]["model"]["gap"] == pytest.approx(scores.gap, abs=1e-4)
    oracle = read_predictions(shared_sample / "oracle.csv", 12)
    ceiling = evaluate([oracle[video.video_id] for video in videos], labels)
    assert result["metrics"]["ceiling"]["gap"] == pytest.approx(ceiling.gap)
    with (folder / "e" / "classes.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert [int(row["positives"]) for row in classes] == labels.sum(axis=0).tolist()
    assert "Evaluation" in (folder / "e.html").read_text()


def test_the_export_reloads_without_the_project(trained, tiny_config, tmp_path):
    examples, model = trained
    result = export_step.run_export(examples, str(model), tiny_config, str(tmp_path / "x"))
    assert result["reloaded_records"] == 20
    assert result["largest_difference"] < 1e-5
    assert (tmp_path / "x" / "saved_model" / "saved_model.pb").is_file()
    assert json.loads((tmp_path / "x" / "export.json").read_text()) == result


def test_a_model_of_segments_is_exported_for_whole_videos_and_windows(
    trained, tiny_config, tmp_path
):
    examples, model = trained
    folder = tmp_path / "segments"
    folder.mkdir()
    facts = json.loads((model / "config.json").read_text())
    build_model(ModelConfig(**facts["model"]), 12, "frame", 5).save(folder / "model.keras")
    (folder / "config.json").write_text(
        json.dumps(facts | {"data": {"max_frames": 12, "segments": True}})
    )
    result = export_step.run_export(examples, str(folder), tiny_config, str(tmp_path / "x"))
    assert result["reloaded_records"] == 20
    assert result["largest_difference"] < 1e-5


def test_an_export_that_answers_otherwise_is_not_handed_over(
    trained, tiny_config, tmp_path, monkeypatch
):
    """The check compares: shift what is expected and the export fails."""
    examples, model = trained
    predict = export_step.top_predictions

    def shifted(*args):
        classes, scores = predict(*args)
        return classes, scores + 2e-5

    monkeypatch.setattr(export_step, "top_predictions", shifted)
    with pytest.raises(RuntimeError, match="differ from the model's by 2"):
        export_step.run_export(examples, str(model), tiny_config, str(tmp_path / "x"))
    assert not list(tmp_path.iterdir())


def test_statistics_of_other_data_are_refused(trained, tiny_config, manifest, tmp_path):
    _, model = trained
    other = dataclasses.replace(manifest, shards=manifest.shards[1:])
    other.write(tmp_path / "manifest.json")
    statistics = str(model.parent / "statistics")
    with pytest.raises(InputError, match="are statistics of the data"):
        run_train(str(tmp_path), statistics, tiny_config, "", str(tmp_path / "model"))


def test_the_real_frame_level_record_is_predicted_on(real_data, trained, tiny_config, tmp_path):
    """170 frames, label 11, which is the last of the tiny model's 12 classes."""
    _, model = trained
    path = real_data / "frame" / "SjJ3.tfrecord"
    shard = Shard("validate", str(path), path.stat().st_size, "", 1)
    Manifest("real", "frame", 12, (shard,)).write(tmp_path / "manifest.json")
    result = run_evaluate(
        str(tmp_path), str(model), tiny_config, str(tmp_path / "e"), str(tmp_path / "e.html")
    )
    assert result["metrics"]["model"]["positives"] == 1
    (scores,) = read_predictions(tmp_path / "e" / "predictions.csv", 12).values()
    rank = 1 + int((scores > scores[11]).sum())
    assert result["metrics"]["model"]["gap"] == pytest.approx(1 / rank)


def test_a_trained_model_has_the_configuration_it_was_trained_with(trained):
    _, folder = trained
    config = json.loads((folder / "config.json").read_text())
    assert config["model"]["cluster_size"] == 4
    assert load_model(folder / "model.keras").get_layer("video_vlad").cluster_size == 4


def test_a_model_folder_without_a_model_is_refused(trained, tiny_config, tmp_path):
    examples, model = trained
    (tmp_path / "config.json").write_text((model / "config.json").read_text())
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'model.keras'}: no such model")):
        run_evaluate(examples, str(tmp_path), tiny_config, str(tmp_path / "e"), "r.html")
