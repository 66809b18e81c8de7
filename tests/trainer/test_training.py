"""The loop: it learns, resumes to the same weights, and says what can not be."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest

from trainer import training, training_loop
from trainer.errors import InputError
from trainer.evaluation import score_shards
from trainer.feature_networks.feature_extractor import (
    FEATURE_EXTRACTOR,
    FeatureExtractor,
    NetworkId,
)
from trainer.feature_networks.frame_network import YOUTUBE8M_NETWORK
from trainer.feature_networks.projection import YOUTUBE8M, Projection
from trainer.files import read_json
from trainer.models import load_model
from trainer.records import read_records, write_records


def with_training(config, **changes):
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **changes))


def weights_of(folder, name="model.keras"):
    return [variable.numpy() for variable in load_model(folder / name).weights]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_it_learns_and_writes_what_it_promises(tiny_config, manifest, priors, tmp_path):
    config = with_training(tiny_config, epochs=12, baseline="mean_pooling")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, holdout_shards=1))
    result = training.train(config, manifest, priors, tmp_path / "ck", tmp_path / "out")
    losses = [row["loss"] for row in result["model"]["history"]]
    assert losses[-1] < losses[0] / 2
    assert all(0 <= row["holdout_gap"] <= 1 for row in result["model"]["history"])
    assert result["baseline"]["model"] == "mean_pooling"
    with (tmp_path / "out" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["examples"]) for row in rows[:2]] == [40 // 8 * 8, 2 * 40 // 8 * 8]
    assert json.loads((tmp_path / "out" / "training.json").read_text()) == result
    content = json.loads((tmp_path / "out" / "config.json").read_text())
    assert content["data_fingerprint"] == manifest.fingerprint
    assert list((tmp_path / "out" / "logs" / "model").glob("events.*"))
    # What was saved is what was trained: it knows its own training videos.
    model = load_model(tmp_path / "out" / "model.keras")
    scored = score_shards(model, manifest, manifest.split("train")[:-1], 12, 16)
    assert scored.metrics.result().gap > 0.8


@pytest.mark.slow
def test_two_runs_of_one_seed_are_one(tiny_config, manifest, priors, tmp_path):
    folders = []
    for number, seed in enumerate((0, 0, 1)):
        folders.append(tmp_path / f"out{number}")
        training.train(
            with_training(tiny_config, seed=seed), manifest, priors, tmp_path / f"ck{number}",
            folders[-1],
        )  # fmt: skip
    first, again, other = map(weights_of, folders)
    assert same(first, again)
    assert not same(first, other)


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", [3, 8])
def test_an_interrupted_training_ends_with_the_same_weights(
    dies_at, tiny_config, manifest, priors, tmp_path, monkeypatch
):
    """Killed in the first and in the second epoch, with a checkpoint after every step."""
    config = with_training(tiny_config, checkpoint_minutes=1e-9)
    training.train(config, manifest, priors, tmp_path / "ck", tmp_path / "whole")
    steps = 0
    advance = training_loop.Progress.advance

    def killing_advance(self, *args):
        nonlocal steps
        steps += 1
        if steps == dies_at:
            raise Killed
        advance(self, *args)

    monkeypatch.setattr(training_loop.Progress, "advance", killing_advance)
    with pytest.raises(Killed):
        training.train(config, manifest, priors, tmp_path / "ck2", tmp_path / "torn")
    assert not (tmp_path / "torn").exists()
    assert not list(tmp_path.glob(".torn*"))
    training.train(config, manifest, priors, tmp_path / "ck2", tmp_path / "resumed")
    assert steps < 2 * (48 // 8) + dies_at  # it did not start over
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "resumed"))
    whole, resumed = ((tmp_path / n / "history.csv").read_bytes() for n in ("whole", "resumed"))
    assert whole == resumed


@pytest.mark.slow
def test_a_checkpoint_that_can_not_be_read_is_passed_over(
    tiny_config, manifest, priors, tmp_path, capsys
):
    training.train(tiny_config, manifest, priors, tmp_path / "ck", tmp_path / "one")
    _, newest = sorted(tmp_path.glob("ck/*/model/checkpoint-*.npz"))
    newest.write_bytes(newest.read_bytes()[:1000])
    training.train(tiny_config, manifest, priors, tmp_path / "ck", tmp_path / "two")
    output = capsys.readouterr().out
    assert "checkpoint-0000000012.json can not be read, passed over" in output
    assert "goes on at epoch 2, step 0" in output
    assert same(weights_of(tmp_path / "one"), weights_of(tmp_path / "two"))
    for path in tmp_path.glob("ck/*/model/checkpoint-*.npz"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="none of its 2 checkpoints can be read"):
        training.train(tiny_config, manifest, priors, tmp_path / "ck", tmp_path / "three")


@pytest.mark.slow
def test_a_finished_training_is_not_done_again(
    tiny_config, manifest, priors, tmp_path, monkeypatch
):
    training.train(tiny_config, manifest, priors, tmp_path / "ck", tmp_path / "one")
    monkeypatch.setattr(
        training_loop.TrainingLoop,
        "_train_until_validation",
        lambda *_: pytest.fail("trained again"),
    )
    training.train(tiny_config, manifest, priors, tmp_path / "ck", tmp_path / "two")
    assert same(weights_of(tmp_path / "one"), weights_of(tmp_path / "two"))


def test_a_checkpoint_is_of_one_configuration_data_and_code(tiny_config, manifest, monkeypatch):
    digest = training.checkpoint_digest(tiny_config, manifest)
    assert training.checkpoint_digest(tiny_config, manifest) == digest
    others = [
        (with_training(tiny_config, learning_rate=0.5), manifest),
        (tiny_config, dataclasses.replace(manifest, shards=manifest.shards[1:])),
    ]
    digests = {training.checkpoint_digest(*pair) for pair in others}
    monkeypatch.setattr(training, "trainer_digest", lambda: "other code")
    digests.add(training.checkpoint_digest(tiny_config, manifest))
    assert len(digests | {digest}) == 4
    monkeypatch.undo()
    # What does not change the weights does not change the digest.
    for other in (
        with_training(tiny_config, checkpoint_minutes=3.0),
        tiny_config.updated({"evaluation": {"min_gap": 0.9}}),
    ):
        assert training.checkpoint_digest(other, manifest) == digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 49}, "training.batch_size is 49, expected at most the 48 records"),
        ({"learning_rate": 10.0}, "expected a smaller rate"),
        ({"baseline": "mean_poling"}, "did you mean mean_pooling?"),
        ({"mixup": 0.3}, "training.mixup is 0.3, expected 0 for frame-level records"),
    ],
)
def test_trainings_that_can_not_be(changes, words, tiny_config, manifest, priors, tmp_path):
    if "learning_rate" in changes:
        priors = np.full_like(priors, np.nan)  # stands for a training that diverged
    with pytest.raises(InputError, match=re.escape(words)):
        training.train(
            with_training(tiny_config, **changes), manifest, priors, tmp_path / "ck",
            tmp_path / "out",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_features_of_random_networks_are_trained_on_if_that_is_said_alone(
    tiny_config, manifest, priors, tmp_path
):
    marked = dataclasses.replace(manifest, features_mark="random weights (seed 3)")
    where = tmp_path / "ck", tmp_path / "out"
    with pytest.raises(InputError, match=r"random weights \(seed 3\); .*accept_random_features"):
        training.train(tiny_config, marked, priors, *where)
    accepted = tiny_config.updated({"data": {"accept_random_features": True}})
    training.train(accepted, marked, priors, *where)
    assert read_json(tmp_path / "out" / "config.json")["features_mark"] == "random weights (seed 3)"


def test_another_pca_s_whitening_is_not_reversed(tiny_config, manifest, priors, tmp_path):
    ids = NetworkId(YOUTUBE8M_NETWORK, "a" * 32), NetworkId("vggish", "b" * 32)
    config = tiny_config.updated({"model": {"normalization": "reverse_whitening"}})
    for source in ("fitted on 9 frames", YOUTUBE8M):
        one = Projection(np.zeros(2), np.eye(2), None, source)
        FeatureExtractor(*ids, one, one, 360, 300).write(tmp_path)
        own = dataclasses.replace(manifest, feature_extractor=str(tmp_path / FEATURE_EXTRACTOR))
        if source == YOUTUBE8M:
            training.train(config, own, priors, tmp_path / "ck", tmp_path / "out")
            kept = (tmp_path / "out" / FEATURE_EXTRACTOR).read_bytes()
            assert kept == (tmp_path / FEATURE_EXTRACTOR).read_bytes()
        else:
            with pytest.raises(InputError, match="of these records is fitted on 9 frames"):
                training.train(config, own, priors, tmp_path / "ck", tmp_path / "out")


def test_all_shards_can_not_be_held_out(tiny_config, manifest, priors, tmp_path):
    config = tiny_config.updated({"data": {"holdout_shards": 5}})
    with pytest.raises(InputError, match="holdout_shards is 5, expected fewer than the 5"):
        training.train(config, manifest, priors, tmp_path / "ck", tmp_path / "out")


def test_a_bad_record_stops_the_training_and_is_named(tiny_config, manifest, priors, tmp_path):
    path = manifest.split("train")[2].path
    payloads = [record.payload for record in read_records(path)]
    write_records(path, [*payloads[:4], b"garbage", *payloads[5:]])
    with pytest.raises(InputError, match=re.escape(f"{path}: record 4 (at byte ")):
        training.train(tiny_config, manifest, priors, tmp_path / "ck", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"weight_decay": 0.01}, {"schedule": "cosine"}],
)
def test_other_ways_to_train(changes, tiny_config, manifest, priors, tmp_path):
    config = with_training(tiny_config, epochs=1)
    training.train(config, manifest, priors, tmp_path / "ck", tmp_path / "plain")
    training.train(
        with_training(config, **changes), manifest, priors, tmp_path / "ck", tmp_path / "out"
    )
    assert not same(weights_of(tmp_path / "plain"), weights_of(tmp_path / "out"))
