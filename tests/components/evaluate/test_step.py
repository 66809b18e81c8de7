"""The step on tiny data: a champion beside the model, what is written, what is refused."""

import dataclasses
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from components.evaluate.step import run_evaluate
from components.gate.verdict import verdict
from tests.browser import WIDTHS, look, needs_browser
from tests.conftest import TINY_MODEL
from tests.trainer.shards import NUM_CLASSES, rated_shards
from trainer import records
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.export import export_model
from trainer.files import read_json, write_json
from trainer.manifest import Manifest, read_manifest
from trainer.models import build_model


@pytest.fixture
def evaluate(trained, tmp_path):
    def run(champion="", model=trained.model, examples=trained.examples):
        statistics = trained.statistics if examples == trained.examples else ""
        return run_evaluate(
            examples, str(model), trained.config, str(tmp_path / "e"), str(tmp_path / "e.html"),
            statistics, str(champion),
        )  # fmt: skip

    return run


def changed(trained, folder, change):
    """A copy of the trained model whose weights were changed."""
    shutil.copytree(trained.model, folder)
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    for weight in model.trainable_weights:
        weight.assign(change(weight.numpy()))
    model.save(folder / "model.keras")
    return folder


def test_the_model_against_itself_is_not_blessed(evaluate, trained):
    result = evaluate(champion=trained.model)
    assert result["metrics"]["champion"] == result["metrics"]["model"]
    assert result["differences"]["champion"] == {"value": 0, "low": 0, "high": 0}
    blessed, reason = verdict(result, 0.0, trained.config.evaluation)
    assert not blessed
    assert "is not better beyond chance" in reason


def test_a_weaker_and_a_stronger_champion(evaluate, trained, tmp_path):
    noise = np.random.default_rng(0)
    weak = changed(trained, tmp_path / "weak", lambda w: w + noise.normal(size=w.shape))
    result = evaluate(champion=weak)
    assert result["differences"]["champion"]["low"] > 0
    assert verdict(result, 0.0, trained.config.evaluation)[0]
    result = evaluate(champion=trained.model, model=weak)
    assert result["differences"]["champion"]["high"] < 0
    blessed, reason = verdict(result, 0.0, trained.config.evaluation)
    assert not blessed
    assert "is worse than the champion's" in reason


def test_what_is_found_hangs_together(evaluate, trained, tmp_path):
    result = evaluate()
    assert read_json(tmp_path / "e" / "evaluation.json") == result
    model = result["metrics"]["model"]
    interval = result["intervals"]["model"]
    assert interval["low"] <= interval["value"] <= interval["high"]
    assert interval["value"] == pytest.approx(model["gap"])
    groups = {}
    for one in result["slices"]:
        groups.setdefault(one["group"], []).append(one)
    assert set(groups) == {
        "length of the video", "labels of the video", "videos of the class in train", "vertical",
    }  # fmt: skip
    for group in ("length of the video", "labels of the video", "videos of the class in train"):
        assert sum(one["positives"] for one in groups[group]) == model["positives"]
    assert sum(one["videos"] for one in groups["labels of the video"]) == result["videos"]
    # Of as many predictions as labels: right ones on the diagonal and elsewhere misses.
    assert np.sum(result["vertical_matrix"]["matrix"]) == pytest.approx(model["positives"], abs=12)
    assert sum(result["reliability"]["model"]["counts"]) == 12 * result["videos"]
    assert result["roc"]["true_positive_rate"][-1] == 1
    assert result["roc"]["false_positive_rate"] == sorted(result["roc"]["false_positive_rate"])
    assert 0 < result["metrics_share_of_scoring"] < 1
    ids = {
        line.partition(",")[0]
        for line in (tmp_path / "e" / "predictions.csv").read_text().splitlines()[1:]
    }
    for one in result["worst_classes"]:
        assert set(one["missed_in"]) | set(one["wrong_in"]) <= ids


@pytest.mark.slow
def test_a_champion_that_sees_other_frames(evaluate, trained, tmp_path):
    """Each with its own number of frames; the parts of the data are those of the records."""
    short = Path(shutil.copytree(trained.model, tmp_path / "short"))
    facts = read_json(short / "config.json")
    write_json(short / "config.json", facts | {"data": facts["data"] | {"max_frames": 5}})
    config = ModelConfig(**TINY_MODEL)
    build_model(config, 12, "frame", 5).save(short / "model.keras")
    (short / "baseline.keras").unlink()
    exported = tmp_path / "exported"
    vocabulary = read_manifest(trained.examples).read_vocabulary()
    export_model(build_model(config, 12, "frame", 5), "frame", 5, vocabulary, 12, exported)
    for model, champion in ((trained.model, short), (short, trained.model), (short, exported)):
        result = evaluate(model=model, champion=champion)
        for one in result["slices"]:
            assert {"model", "champion"} <= set(one["gap"])
        lengths = [s for s in result["slices"] if s["group"] == "length of the video"]
        assert sum(one["videos"] for one in lengths) == result["videos"]


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_in_a_browser(evaluate, trained, tmp_path, dark, width):
    evaluate(champion=trained.model)
    seen = look(tmp_path / "e.html", width, tmp_path, dark)
    assert not seen.complaints
    assert seen.resources == 0
    assert seen.width <= seen.window
    assert seen.drawings == 5
    assert seen.dark is dark


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.keras").write_bytes(b"no model"), "no model that can be"),
        (lambda folder: (folder / "model.keras").unlink(), "is no champion: expected model"),
        (lambda folder: (folder / "config.json").unlink(), "config.json: no such file"),
    ],
)
def test_a_champion_that_is_none_is_named(evaluate, trained, tmp_path, spoil, words):
    folder = Path(shutil.copytree(trained.model, tmp_path / "champion"))
    spoil(folder)
    with pytest.raises(InputError, match=f"champion {folder}: .*{words}"):
        evaluate(champion=folder)
    assert not (tmp_path / "e").exists()
    assert not (tmp_path / "e.html").exists()


def test_scores_that_are_no_numbers(evaluate, trained, tmp_path):
    broken = changed(trained, tmp_path / "broken", lambda w: np.full_like(w, np.nan))
    with pytest.raises(InputError, match="some of its scores are NaN, expected numbers"):
        evaluate(model=broken)
    with pytest.raises(InputError, match=r"champion .*broken: .*some of its scores are NaN"):
        evaluate(champion=broken)


def test_data_without_validate(evaluate, trained, tmp_path):
    whole = read_manifest(trained.examples)
    path = tmp_path / "manifest.json"
    dataclasses.replace(whole, shards=whole.split("train")).write(path)
    with pytest.raises(InputError, match="no shards of split validate"):
        evaluate(examples=str(path))


def test_records_without_labels(evaluate, trained, tmp_path):
    whole = read_manifest(trained.examples)
    (shard,) = whole.split("validate")[:1]
    videos = [records.parse(record) for record in records.read_records(shard.path)]
    payloads = [
        records.encode(dataclasses.replace(video, labels=video.labels[:0])) for video in videos
    ]
    path = tmp_path / "unlabelled.tfrecord"
    count = records.write_records(path, payloads)
    bare = dataclasses.replace(shard, uri=str(path), bytes=path.stat().st_size, records=count)
    dataclasses.replace(whole, shards=(bare,)).write(tmp_path / "manifest.json")
    with pytest.raises(InputError, match="none of 10 records has a label"):
        evaluate(examples=str(tmp_path / "manifest.json"))


# Rated segments


@pytest.fixture
def rated(tmp_path, rng):
    """Folders of a manifest of rated segments, and of two models that were trained on such."""
    shards = [dataclasses.replace(s, split="validate") for s in rated_shards(tmp_path, rng)]
    manifest = Manifest("rated", records.FRAME, NUM_CLASSES, tuple(shards))
    examples = tmp_path / "manifest.json"
    manifest.write(examples)
    folders = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        folder = tmp_path / f"model{seed}"
        folder.mkdir()
        model = build_model(
            ModelConfig(cluster_size=4, groups=2, expansion=2, hidden_size=8),
            NUM_CLASSES, records.FRAME, 5,
        )  # fmt: skip
        model.save(folder / "model.keras")
        facts = {"level": "frame", "num_classes": NUM_CLASSES}
        write_json(folder / "config.json", facts | {"data": {"max_frames": 300, "segments": True}})
        folders.append(folder)
    return str(examples), *folders


def test_segments_are_scored_as_segments(evaluate, trained, rated, tmp_path):
    examples, model, champion = rated
    result = evaluate(champion=champion, model=model, examples=examples)
    found = result["metrics"]["model"]
    assert set(found) == {"gap", "map", "ap", "classes", "pairs", "positives"}
    assert found["gap"] == found["ap"]
    assert not result["champion_vocabulary_known"]  # neither has names
    assert result["differences"]["champion"]["value"] == pytest.approx(
        found["ap"] - result["metrics"]["champion"]["ap"]
    )
    lines = (tmp_path / "e" / "predictions.csv").read_text().splitlines()
    assert lines[0] == "Class,Segments"
    assert sum(len(line.split(",")[1].split()) for line in lines[1:]) == found["pairs"]
    assert "MAP@100,000" in (tmp_path / "e.html").read_text()
    _, reason = verdict(result, 0.0, trained.config.evaluation)
    assert "average precision of the rated segments" in reason


def test_a_champion_of_whole_videos_is_not_compared_on_segments(evaluate, rated, tmp_path):
    examples, model, champion = rated
    facts = read_json(champion / "config.json")
    write_json(champion / "config.json", facts | {"data": {"max_frames": 300}})
    with pytest.raises(InputError, match="was trained on whole videos"):
        evaluate(champion=champion, model=model, examples=examples)
    (champion / "model.keras").unlink()
    with pytest.raises(InputError, match="of segments only a trained model is compared"):
        evaluate(champion=champion, model=model, examples=examples)


@needs_browser
def test_the_page_of_segments_in_a_browser(evaluate, rated, tmp_path):
    examples, model, champion = rated
    evaluate(champion=champion, model=model, examples=examples)
    seen = look(tmp_path / "e.html", WIDTHS[0], tmp_path)
    assert not seen.complaints
    assert seen.width <= seen.window
    assert seen.drawings == 3


def test_classes_without_names(evaluate, trained, tmp_path, capsys):
    manifest = dataclasses.replace(read_manifest(trained.examples), vocabulary="")
    manifest.write(tmp_path / "manifest.json")
    result = evaluate(champion=trained.model, examples=str(tmp_path / "manifest.json"))
    assert "is not known, as one has no names" in capsys.readouterr().out
    assert "is not known" in verdict(result, 0.0, trained.config.evaluation)[1]
    assert result["worst_classes"][0]["name"].startswith("class ")
    assert "vertical" not in {one["group"] for one in result["slices"]}
