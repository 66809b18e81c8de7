"""What a step is fed with: mixup by its place, the same rows on one replica and on two."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.feed_replicas import PLACE, TRAININGS, batch, lists_of
from trainer.batches import Batch
from trainer.config import TrainingConfig
from trainer.feed import Feed

ROOT = Path(__file__).resolve().parents[2]
ROWS = 9


def feed_of(worker=0, **training):
    """On one device; of a strategy nothing is looked at then."""
    distribution = SimpleNamespace(strategy=None, local_replicas=1, worker=worker)
    return Feed(TrainingConfig(**training), distribution)


@pytest.fixture
def given(rng):
    """A video-level batch in which each row has a class of its own."""
    features = {
        "mean_rgb": rng.standard_normal((ROWS, 1024)).astype(np.float32),
        "mean_audio": rng.standard_normal((ROWS, 128)).astype(np.float32),
    }
    labels = np.eye(ROWS, dtype=np.float32)
    return Batch(features, labels, None, [""] * ROWS, np.zeros((ROWS, 2), np.int64))


def bytes_of(arguments):
    features, labels, _ = arguments
    return [value.numpy().tobytes() for value in (*features.values(), labels)]


def test_without_mixup_a_batch_is_as_it_was(rng):
    features = {
        "rgb": rng.integers(0, 256, (2, 3, 1024), dtype=np.uint8),
        "audio": rng.integers(0, 256, (2, 3, 128), dtype=np.uint8),
        "num_frames": np.array([3, 1], np.int32),
    }
    labels, weights = np.eye(2, dtype=np.float32), np.ones((2, 2), np.float32)
    whole = Batch(features, labels, weights, [""] * 2, np.zeros((2, 2), np.int64))
    found = feed_of().arguments(whole, 0, 0)
    tf.nest.map_structure(
        lambda tensor, array: np.testing.assert_array_equal(tensor, array, strict=True),
        tf.nest.map_structure(lambda tensor: tensor.numpy(), found),
        (features, labels, weights),
    )


def test_mixup_by_a_slow_reference(given):
    """Row by row in float64, of the numbers that the place seeds."""
    features, labels, weights = feed_of(worker=2, seed=11, mixup=0.4).arguments(given, 3, 7)
    assert weights is None
    draws = np.random.default_rng([11, 3, 7, 2])
    shares = [draws.beta(0.4, 0.4) for _ in range(ROWS)]
    others = draws.permutation(ROWS)
    for row in range(ROWS):
        share, other = max(shares[row], 1 - shares[row]), others[row]
        for name, array in given.features.items():
            one, two = (array[number].astype(np.float64) for number in (row, other))
            expected = share * one + (1 - share) * two
            np.testing.assert_allclose(features[name][row], expected, atol=1e-6)
        expected = np.zeros(ROWS)
        expected[row] += share
        expected[other] += 1 - share
        np.testing.assert_allclose(labels[row], expected, atol=1e-6)
    assert {tensor.dtype for tensor in (*features.values(), labels)} == {tf.float32}


def test_labels_tell_what_features_are_mixed_of(given):
    """Whatever the random numbers: mostly itself, and no row the rest of two others."""
    untouched = [array.copy() for array in (*given.features.values(), given.labels)]
    features, labels, _ = feed_of(mixup=1.0).arguments(given, 0, 0)
    mixture = labels.numpy().astype(np.float64)
    assert (np.diag(mixture) >= 0.5).all()
    np.testing.assert_allclose(mixture.sum(axis=1), 1, atol=1e-6)
    rest = (mixture > 0) & ~np.eye(ROWS, dtype=bool)
    # A row that the new order leaves in its place is mixed with itself.
    assert rest.any()
    assert rest.sum(axis=0).max() == 1
    np.testing.assert_array_equal(rest.sum(axis=0), rest.sum(axis=1))
    for name, array in given.features.items():
        np.testing.assert_allclose(features[name], mixture @ array, atol=1e-5)
    for array, before in zip((*given.features.values(), given.labels), untouched, strict=True):
        np.testing.assert_array_equal(array, before)


def test_mixup_is_a_function_of_its_place(given):
    """Not of what was fed before, so a training that goes on mixes as one that never stopped."""
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    feed = feed_of(mixup=0.4)
    first = {place: bytes_of(feed.arguments(given, *place)) for place in places}
    for place in reversed(places):
        assert bytes_of(feed_of(mixup=0.4).arguments(given, *place)) == first[place]
        assert bytes_of(feed.arguments(given, *place)) == first[place]
    others = [
        bytes_of(feed_of(mixup=0.4, seed=1).arguments(given, 0, 0)),
        bytes_of(feed_of(mixup=0.4, worker=1).arguments(given, 0, 0)),
    ]
    assert len({str(found) for found in [*first.values(), *others]}) == len(places) + 2


def test_two_replicas_have_the_rows_of_one():
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.feed_replicas"],
        cwd=ROOT, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found.keys() == TRAININGS.keys()
    for name, training in TRAININGS.items():
        distribution = SimpleNamespace(strategy=None, local_replicas=1, worker=0)
        alone = lists_of(Feed(training, distribution).arguments(batch(), *PLACE))
        first, second = found[name]
        assert {len(rows) for rows in (*first.values(), *second.values())} == {
            len(alone["labels"]) / 2
        }
        assert {key: first[key] + second[key] for key in first} == alone
    plain, mixed = (found[name][0] for name in TRAININGS)
    # Which pairs count is not mixed.
    assert {key for key in plain if plain[key] != mixed[key]} == plain.keys() - {"weights"}
