"""Train, evaluate and export hand over to each other, on tiny data."""

import csv
import dataclasses
import importlib.util
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from components.evaluate.step import run_evaluate
from components.export import step as export_step
from components.statistics.step import run_statistics
from components.train.step import run_train
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.manifest import Manifest, Shard, read_manifest
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


@pytest.fixture(scope="module")
def evaluated(trained, tiny_config, tmp_path_factory):
    examples, model = trained
    folder = tmp_path_factory.mktemp("evaluated")
    result = run_evaluate(
        examples, str(model), tiny_config, str(folder / "e"), str(folder / "e.html")
    )
    return result, folder


class Exporter:
    """Exports the trained model into a folder of its own, with other settings or as another."""

    def __init__(self, trained, evaluated, config):
        self.examples, self.model = trained
        self.evaluation = evaluated[1] / "e"
        self.config = config

    def __call__(self, folder, model=None, **settings):
        config = self.config.updated({"export": settings})
        return export_step.run_export(
            self.examples, str(model or self.model), str(self.evaluation), config,
            str(folder / "x"), str(folder / "card.html"),
        )  # fmt: skip


@pytest.fixture(scope="module")
def export(trained, evaluated, tiny_config):
    return Exporter(trained, evaluated, tiny_config)


@pytest.fixture(scope="module")
def exported(export, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return export(folder), folder / "x"


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


def test_the_export_reloads_without_the_project(exported):
    result, folder = exported
    assert result["reloaded_records"] == 20
    assert result["largest_difference"] < 1e-5
    assert (folder / "saved_model" / "saved_model.pb").is_file()
    assert json.loads((folder / "export.json").read_text()) == result
    assert set(result["signatures"]) == {"serving_default", "features", "segments"}


def test_its_card_is_beside_it_and_is_the_step_s_page(exported, evaluated):
    result, folder = exported
    html = (folder / "model_card.html").read_text()
    assert (folder.parent / "card.html").read_text() == html
    markdown = (folder / "model_card.md").read_text()
    for text in (html, markdown):
        assert f"{evaluated[0]['metrics']['model']['gap']:.4f}" in text
        assert f"{result['bytes']:,} bytes" in text
        assert result["data_fingerprint"] in text
    assert "2 epochs, 12 steps, 96 examples" in markdown


def test_the_card_s_lines_load_the_export(exported, trained, shared_sample, monkeypatch, capsys):
    _, folder = exported
    markdown = (folder / "model_card.md").read_text()
    lines = re.search(r"```python\n(.*?)```", markdown, re.S)[1]
    shard = sorted((shared_sample / "validate").iterdir())[0]
    monkeypatch.chdir(folder)
    exec(lines.replace("/path/to/shard.tfrecord", str(shard)), {})
    names = read_manifest(trained[0]).read_vocabulary().names
    printed = re.findall(r"\(b'(.+?)', (?:np\.float32\()?(0\.\d+)", capsys.readouterr().out)
    assert len(printed) == 3
    assert {name for name, _ in printed} <= set(names)
    scores = [float(score) for _, score in printed]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow
def test_saved_model_cli_shows_every_signature(exported):
    result, folder = exported
    done = subprocess.run(
        [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show", "--dir",
         str(folder / "saved_model"), "--all"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    _, *blocks = re.split(r"^signature_def\['(\w+)'\]:$", done.stdout, flags=re.M)
    shown = dict(zip(blocks[::2], blocks[1::2], strict=True))
    del shown["__saved_model_init_op"]
    answer = {"classes", "names", "scores", "verticals"}
    expected = {
        "serving_default": ({"examples"}, answer),
        "features": ({"rgb", "audio", "num_frames"}, answer),
        "segments": ({"examples"}, answer | {"starts", "windows"}),
    }
    found = {
        name: tuple(set(re.findall(rf"^ +{kind}\['(\w+)'\] tensor_info", block, re.M))
                    for kind in ("inputs", "outputs"))
        for name, block in shown.items()
    }  # fmt: skip
    assert found == expected
    assert {
        name: (set(one["inputs"]), set(one["outputs"]))
        for name, one in result["signatures"].items()
    } == expected


@pytest.mark.slow
def test_weights_in_float16(export, exported, evaluated, tmp_path, capsys):
    plain, folder = exported
    result = export(tmp_path, weights="float16")
    assert result["reloaded_records"] == 20
    assert result["largest_difference"] < 1e-5

    def weights(folder):
        (file,) = (folder / "saved_model" / "variables").glob("variables.data*")
        return file.stat().st_size

    assert weights(tmp_path / "x") < 0.51 * weights(folder)
    assert result["bytes"] < plain["bytes"]
    half = result["float16"]
    assert half["videos"] == 20
    assert half["gap_float32"] == pytest.approx(evaluated[0]["metrics"]["model"]["gap"], abs=1e-4)
    assert half["gap_loss"] == half["gap_float32"] - half["gap_float16"]
    assert 0 < half["largest_change"] < 0.01
    assert half["largest_difference_before_rounding"] < 1e-5
    assert "its rounded weights" in result["compared_with"]
    assert "of the trained model" in result["compared_with"]
    said = f"GAP@20 {half['gap_float16']:.5f}, float32 {half['gap_float32']:.5f} on 20 videos"
    assert said in capsys.readouterr().out
    assert f"{half['gap_float16']:.5f}" in (tmp_path / "x" / "model_card.md").read_text()


def test_a_weight_that_float16_has_no_number_for(export, trained, tmp_path):
    folder = tmp_path / "large"
    shutil.copytree(trained[1], folder)
    model = load_model(folder / "model.keras")
    layer = model.get_layer("classifier")
    layer.set_weights([layer.get_weights()[0] + 1e5, layer.get_weights()[1]])
    model.save(folder / "model.keras")
    with pytest.raises(InputError, match=r"classifier/kernel has a weight of .* ±65,504"):
        export(tmp_path, folder, weights="float16")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_onnx_answers_as_the_saved_model(export, trained, tmp_path, capsys):
    import onnx

    result = export(tmp_path, onnx=True)
    assert result["onnx"]["records"] == 20
    assert result["onnx"]["largest_difference"] < 1e-5
    assert "onnxruntime scored 20 records" in capsys.readouterr().out
    content = onnx.load(tmp_path / "x" / "model.onnx")
    names = next(one.value for one in content.metadata_props if one.key == "names")
    assert json.loads(names) == list(read_manifest(trained[0]).read_vocabulary().names)


def test_onnx_that_is_not_installed_is_said_before_anything(export, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else find(name)
    )
    with pytest.raises(InputError, match=r"export\.onnx is true, but .*tf2onnx.* pip install"):
        export(tmp_path, "no such folder", onnx=True)


def test_an_evaluation_of_other_data_is_refused(export, evaluated, tmp_path, monkeypatch):
    content = evaluated[0] | {"data_fingerprint": "0123"}
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    monkeypatch.setattr(export, "evaluation", tmp_path)
    with pytest.raises(InputError, match=r"evaluation\.json: is of the data 0123"):
        export(tmp_path)


@pytest.mark.slow
def test_a_model_of_segments_is_exported_for_whole_videos_and_windows(export, trained, tmp_path):
    _, model = trained
    folder = tmp_path / "segments"
    folder.mkdir()
    shutil.copy(model / "training.json", folder)
    facts = json.loads((model / "config.json").read_text())
    build_model(ModelConfig(**facts["model"]), 12, "frame", 5).save(folder / "model.keras")
    (folder / "config.json").write_text(
        json.dumps(facts | {"data": {"max_frames": 12, "segments": True}})
    )
    result = export(tmp_path, folder)
    assert result["reloaded_records"] == 20
    assert result["largest_difference"] < 1e-5


@pytest.mark.slow
def test_an_export_that_answers_otherwise_is_not_handed_over(export, tmp_path, monkeypatch):
    """The check compares: shift what is expected and the export fails."""
    predict = export_step.top_predictions

    def shifted(*args):
        classes, scores = predict(*args)
        return classes, scores + 2e-5

    monkeypatch.setattr(export_step, "top_predictions", shifted)
    with pytest.raises(RuntimeError, match="differ from the model's by 2"):
        export(tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_network_than_the_trained_one_is_not_rounded(export, tmp_path, monkeypatch):
    """The rounded weights' own answers would agree with the export's, whatever they are of."""
    fold = export_step.inference_model

    def another(model, max_frames):
        folded = fold(model, max_frames)
        layer = folded.get_layer("classifier")
        layer.set_weights([layer.get_weights()[0] * 1.5, layer.get_weights()[1]])
        return folded

    monkeypatch.setattr(export_step, "inference_model", another)
    with pytest.raises(RuntimeError, match="the network to be rounded has scores that differ"):
        export(tmp_path, weights="float16")
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
