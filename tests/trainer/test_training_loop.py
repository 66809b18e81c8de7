"""What a training does beside stepping: validate, end, deliver, start warm, report."""

import csv
import dataclasses
import json
import re
import signal

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import TINY_MODEL, frame_video
from tests.trainer.test_training import same, weights_of, with_training
from trainer import records, training, training_loop
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.evaluation import score_shards
from trainer.manifest import Manifest, Shard
from trainer.models import build_model, load_model


def with_data(config, **changes):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def rows_of(folder, name="history.csv"):
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def shape_of(model, name):
    return next(one.shape for one in model.inputs if one.name == name)


@pytest.fixture
def run(manifest, priors, tmp_path):
    def start(config, name="out", checkpoints="ck", given=None):
        training.train(config, given or manifest, priors, tmp_path / checkpoints, tmp_path / name)
        return tmp_path / name

    return start


@pytest.mark.slow
def test_validations_within_an_epoch_and_the_best_is_delivered(tiny_config, manifest, run):
    config = with_data(
        with_training(tiny_config, epochs=3, validations=2, deliver="best", learning_rate=2.0),
        holdout_shards=1,
    )
    folder = run(config)
    rows = rows_of(folder)
    assert [int(row["step"]) for row in rows] == [2, 5, 7, 10, 12, 15]
    assert [int(row["epoch"]) for row in rows] == [1, 1, 2, 2, 3, 3]
    assert [int(row["examples"]) for row in rows] == [16, 40, 56, 80, 96, 120]
    gaps = [float(row["holdout_gap"]) for row in rows]
    model = load_model(folder / "model.keras")
    scored = score_shards(model, manifest, manifest.split("train")[-1:], 12, 64)
    assert scored.metrics.result().gap == pytest.approx(max(gaps), abs=1e-9)
    assert max(gaps) > gaps[-1]
    assert list(rows_of(folder, "timings.csv")[0]) == list(training.TIMING_COLUMNS)


def test_training_ends_early_without_a_better_gap(tiny_config, run, capsys):
    config = with_training(tiny_config, epochs=40, early_stopping=2, learning_rate=0.5)
    folder = run(with_data(config, holdout_shards=1))
    rows = rows_of(folder)
    gaps = [float(row["holdout_gap"]) for row in rows]
    assert len(rows) < 40
    assert len(rows) - 1 - int(np.argmax(gaps)) == 2
    assert "(training.early_stopping)" in capsys.readouterr().out
    run(with_data(config, holdout_shards=1), "again")
    assert (folder / "history.csv").read_bytes() == (
        folder.with_name("again") / "history.csv"
    ).read_bytes()


@pytest.mark.slow
def test_the_average_of_the_weights_is_validated_and_delivered(tiny_config, manifest, run):
    config = with_data(with_training(tiny_config, epochs=3, ema_decay=0.9), holdout_shards=1)
    averaged = run(config)
    plain = run(with_training(config, ema_decay=0.0), "plain")
    assert not same(weights_of(averaged), weights_of(plain))
    model = load_model(averaged / "model.keras")
    scored = score_shards(model, manifest, manifest.split("train")[-1:], 12, 64)
    expected = float(rows_of(averaged)[-1]["holdout_gap"])
    assert scored.metrics.result().gap == pytest.approx(expected, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"accumulation_steps": 2},
        {"optimizer": "lion", "learning_rate": 1e-3},
        {"jit": "on"},
    ],
)
def test_each_way_to_train_learns_and_delivers_float32(changes, tiny_config, run):
    folder = run(with_training(tiny_config, epochs=6, **changes))
    losses = [float(row["loss"]) for row in rows_of(folder)]
    assert losses[-1] < 0.8 * losses[0]
    model = load_model(folder / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} <= {"float32", "uint8", "int32", "bool"}
    assert all(weight.dtype == "float32" for weight in model.weights)


@pytest.mark.slow
def test_frames_are_sampled_in_training_alone(tiny_config, run):
    folder = run(with_data(tiny_config, train_frames=4))
    model = load_model(folder / "model.keras")
    assert shape_of(model, "rgb") == (None, 12, 1024)
    assert not same(weights_of(folder), weights_of(run(tiny_config, "plain")))


def nan_from(step_number, monkeypatch):
    """The loss and the gradient of one step are NaN, as if the training diverged there."""
    call = training_loop.TrainStep.__call__
    steps = iter(range(1, 1000))

    def poisoned(self, *arguments):
        result = call(self, *arguments)
        return result * np.nan if next(steps) == step_number else result

    monkeypatch.setattr(training_loop.TrainStep, "__call__", poisoned)


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_at_once(tiny_config, manifest, run, tmp_path, monkeypatch):
    config = with_training(tiny_config, epochs=3)
    nan_from(9, monkeypatch)
    with pytest.raises(InputError) as caught:
        run(config)
    message = str(caught.value)
    assert "the loss of epoch 2, step 3 is nan" in message
    (marker,) = tmp_path.glob("ck/*/model/checkpoint-*.json")
    assert marker.name == "checkpoint-0000000006.json"
    assert f"The last good checkpoint is {marker}" in message
    read = re.search(r"read from (.+)\. The last", message)[1].split(", ")
    assert set(read) <= {str(shard.path) for shard in manifest.split("train")}
    assert len(read) > 1
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    run(config)
    assert same(weights_of(tmp_path / "out"), weights_of(run(config, "whole", "other")))


def test_sigterm_is_heeded_between_two_steps(tiny_config, run, tmp_path, monkeypatch, capsys):
    advance = training_loop.Progress.advance
    calls = iter(range(1, 1000))

    def terminated(self, *arguments):
        advance(self, *arguments)
        if next(calls) == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(training_loop.Progress, "advance", terminated)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        run(tiny_config)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    assert "SIGTERM: saved after" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    run(tiny_config)
    assert "goes on at epoch 1" in capsys.readouterr().out
    assert same(weights_of(tmp_path / "out"), weights_of(run(tiny_config, "whole", "other")))


@pytest.mark.slow
def test_sigterm_in_a_validation_repeats_it_later(tiny_config, run, monkeypatch, capsys):
    config = with_data(tiny_config, holdout_shards=1)
    batches = training_loop.Validator.batches
    calls = iter(range(1, 1000))

    def terminated(self):
        for batch in batches(self):
            if next(calls) == 1:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(training_loop.Validator, "batches", terminated)
    with pytest.raises(SystemExit):
        run(config)
    monkeypatch.undo()
    assert "SIGTERM: saved after 5 steps" in capsys.readouterr().out
    resumed = run(config)
    whole = run(config, "whole", "other")
    assert (resumed / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    assert same(weights_of(resumed), weights_of(whole))


@pytest.mark.slow
def test_a_warm_start_takes_over_every_weight(tiny_config, manifest, run, tmp_path):
    trained = run(with_training(tiny_config, epochs=1))
    frozen = with_training(
        tiny_config, epochs=1, learning_rate=1e-12, warm_start=str(trained), optimizer="sgd"
    )
    frozen = dataclasses.replace(
        frozen, model=dataclasses.replace(frozen.model, batch_norm_momentum=1.0)
    )
    model = load_model(trained / "model.keras")
    started = load_model(run(frozen, "warm") / "model.keras")
    assert same([w.numpy() for w in started.weights], [w.numpy() for w in model.weights])


def test_a_warm_start_from_video_level_records(tiny_config, manifest, run, tmp_path):
    """The same head on mean features and on the mean of a segment's frames."""
    config = ModelConfig(**TINY_MODEL | {"name": "moe"})
    video = build_model(config, manifest.num_classes, records.VIDEO)
    video.save(tmp_path / "video.keras")
    one = with_training(
        tiny_config, epochs=1, learning_rate=1e-12, optimizer="sgd",
        warm_start=str(tmp_path / "video.keras"),
    )  # fmt: skip
    folder = run(dataclasses.replace(one, model=config))
    for one, weight in zip(weights_of(folder), video.weights, strict=True):
        np.testing.assert_allclose(one, weight.numpy(), atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cluster_size": 6}, "has shape (1024, 8) there, shape (1024, 12) here"),
        ({"name": "mean_pooling"}, "is a nextvlad model that does not fit the new mean_pooling"),
    ],
)
def test_a_warm_start_that_does_not_fit(changes, words, tiny_config, run):
    trained = run(with_training(tiny_config, epochs=1))
    other = with_training(tiny_config, warm_start=str(trained))
    other = dataclasses.replace(other, model=dataclasses.replace(other.model, **changes))
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        run(other, "other")
    assert str(trained / "model.keras") in str(caught.value)


def test_a_warm_start_at_nothing(tiny_config, run, tmp_path):
    config = with_training(tiny_config, warm_start=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"training.warm_start is .*nowhere'.*expected a .keras"):
        run(config)


@pytest.mark.slow
def test_a_warm_start_counts_by_its_weights(tiny_config, manifest, run, tmp_path):
    trained = run(with_training(tiny_config, epochs=1))
    copy = tmp_path / "copy.keras"
    copy.write_bytes((trained / "model.keras").read_bytes())
    digests = [
        training.checkpoint_digest(with_training(tiny_config, warm_start=str(path)), manifest)
        for path in (trained, copy)
    ]
    assert digests[0] == digests[1]
    assert digests[0] != training.checkpoint_digest(tiny_config, manifest)


@pytest.fixture
def segment_manifest(tmp_path, rng):
    """Release 3 in small: class 1 is in a segment if its frames are loud, class 0 if they are not.

    Each video has a loud and a quiet half; the unrated class 2 is a label of every video.
    """
    shards = []
    for name in range(4):
        payloads = []
        for number in range(12):
            video = frame_video(rng, 20, [2], f"{name}{number:03}")
            rgb = np.array(video.rgb)
            rgb[:10] //= 4
            pairs = [(0, 0, 1), (0, 1, 0), (5, 0, 1), (10, 1, 1), (10, 0, 0), (15, 1, 1)]
            starts, labels, scores = (np.array(values) for values in zip(*pairs, strict=True))
            rated = records.Segments(starts, labels, scores.astype(np.float32))
            payloads.append(records.encode(dataclasses.replace(video, rgb=rgb, segments=rated)))
        path = tmp_path / f"segments{name}.tfrecord"
        count = records.write_records(path, payloads)
        shards.append(Shard("train", str(path), path.stat().st_size, "", count))
    return Manifest("segments", records.FRAME, 12, tuple(shards))


@pytest.mark.slow
def test_segments_learn_what_was_rated_and_nothing_else(tiny_config, segment_manifest, run, capsys):
    config = with_data(
        with_training(tiny_config, epochs=12, learning_rate=0.02), segments=True,
        segments_per_video=3, holdout_shards=1, max_frames=300,
    )  # fmt: skip
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, normalization="none", classifier_l2=0.0),
    )
    folder = run(config, given=segment_manifest)
    rows = rows_of(folder)
    assert float(rows[-1]["loss"]) < 0.3 * float(rows[0]["loss"])
    assert float(rows[-1]["holdout_gap"]) > 0.95
    # Classes that nobody rated have learned nothing: their bias is where it started.
    model = load_model(folder / "model.keras")
    bias = model.get_layer("classifier").bias.numpy()
    assert np.ptp(bias[2:]) == pytest.approx(0, abs=1e-6)
    assert abs(bias[0] - bias[2]) > 1e-3
    assert shape_of(model, "rgb") == (None, 5, 1024)


@pytest.mark.slow
def test_segment_training_starts_warm_at_a_model_of_whole_videos(
    tiny_config, segment_manifest, run
):
    whole = run(tiny_config)
    config = with_data(with_training(tiny_config, warm_start=str(whole)), segments=True)
    folder = run(config, "segments", given=segment_manifest)
    assert not same(weights_of(whole), weights_of(folder))


@pytest.mark.parametrize(
    ("section", "changes", "words"),
    [
        ("training", {"profile_steps": "9"}, "training.profile_steps is '9', expected the first"),
        ("training", {"early_stopping": 3}, "expected data.holdout_shards of at least 1"),
        ("training", {"deliver": "best"}, "training.deliver is 'best'"),
        ("training", {"accumulation_steps": 3}, "batch_size is 8, expected a multiple of 3"),
        ("training", {"optimizer_arguments": '{"beta": 1}'}, "beta"),
        ("data", {"segments": True, "train_frames": 3}, "data.train_frames is 3, expected 0"),
    ],
)
def test_what_does_not_go_together(section, changes, words, tiny_config, run):
    with pytest.raises(InputError, match=re.escape(words)):
        run(tiny_config.updated({section: changes}))


def events(folder):
    found = EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0})
    found.Reload()
    return found


@pytest.mark.slow
def test_tensorboard_has_scalars_histograms_and_a_profile(tiny_config, run):
    config = with_training(tiny_config, profile_steps="2-3")
    folder = run(with_data(config, holdout_shards=1)) / "logs" / "model"
    found = events(folder)
    tensors = set(found.Tags()["tensors"])
    scalars = {"loss", "gradient_norm", "learning_rate", "input_wait", "epoch_loss", "holdout_gap"}
    assert scalars <= tensors
    for layer in ("video_vlad", "audio_vlad"):
        assert {f"{layer}/attention", f"{layer}/cluster_usage"} <= tensors
    assert [event.step for event in found.Tensors("holdout_gap")] == [5, 10]
    assert list(folder.glob("plugins/profile/*/*.xplane.pb"))


@pytest.mark.slow
def test_a_custom_job_shows_its_curves(tiny_config, run, tmp_path, monkeypatch):
    monkeypatch.setenv("AIP_TENSORBOARD_LOG_DIR", str(tmp_path / "shown"))
    folder = run(tiny_config) / "logs" / "model"
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for name in names:
        assert (tmp_path / "shown" / "model" / name).read_bytes() == (folder / name).read_bytes()
    assert names


@pytest.mark.slow
def test_curves_that_can_not_be_shown_end_no_training(tiny_config, run, monkeypatch, capsys):
    monkeypatch.setenv("AIP_TENSORBOARD_LOG_DIR", "gs://nowhere/logs")
    assert (run(tiny_config) / "model.keras").is_file()
    out = capsys.readouterr().out
    assert out.count("no more is logged, it can not be: gs://nowhere/logs: that bucket") == 1


@pytest.mark.slow
def test_a_tuning_trial_gets_its_metrics(tiny_config, run, tmp_path, monkeypatch):
    file = tmp_path / "hypertune" / "output.metrics"
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "7")
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(file))
    folder = run(with_data(tiny_config, holdout_shards=1))
    found = [json.loads(line) for line in file.read_text().splitlines()]
    gaps = [entry for entry in found if "holdout_gap" in entry]
    assert [entry["global_step"] for entry in gaps] == ["5", "10"]
    assert [float(entry["holdout_gap"]) for entry in gaps] == [
        float(row["holdout_gap"]) for row in rows_of(folder)
    ]
    assert {entry["trial"] for entry in found} == {"7"}
    assert all(entry["timestamp"] > 1e9 for entry in found)


@pytest.mark.slow
def test_why_a_training_starts_anew_is_said(tiny_config, run, capsys):
    run(tiny_config)
    run(with_training(tiny_config, learning_rate=0.02), "other")
    assert re.search(
        r"starts anew: the checkpoints in \S+ are of another training, whose "
        r"training.learning_rate is 0.01 there, 0.02 here",
        capsys.readouterr().out,
    )
