"""The sample is what it says: real in form, skewed, learnable, honest."""

import dataclasses
import hashlib

import numpy as np
import pytest

from components.download import sample
from tests.conftest import TINY_SAMPLE
from trainer import records
from trainer.config import SampleConfig
from trainer.metrics import evaluate
from trainer.vocabulary import read_vocabulary

SPEC = SampleConfig(**TINY_SAMPLE)


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_equal_seeds_give_equal_bytes(tmp_path):
    for name, seed in (("a", 8), ("b", 8), ("c", 9)):
        (tmp_path / name).mkdir()
        sample.write_sample(dataclasses.replace(SPEC, seed=seed), tmp_path / name)
    one, again, other = (digests(tmp_path / name) for name in "abc")
    assert one == again
    assert set(one) == set(other)
    assert not {one[name] for name in one if name.endswith("tfrecord")} & set(other.values())


def test_records_are_valid_and_counted(tiny_sample):
    ids = []
    for split, count in (("train", 48), ("validate", 20)):
        videos = [
            video
            for path in sorted((tiny_sample / split).glob("*.tfrecord"))
            for video in records.read_videos(path, "frame", 12)
        ]
        assert len(videos) == count
        assert all(6 <= video.num_frames <= 12 for video in videos)
        assert all(len(video.labels) for video in videos)
        ids += [video.video_id for video in videos]
    assert len(set(ids)) == 68
    vocabulary = read_vocabulary(tiny_sample / "vocabulary.csv")
    assert vocabulary.num_classes == 12


def latents(count=400, **changes):
    spec = dataclasses.replace(SampleConfig(), **changes)
    world = sample.make_world(spec)
    rng = np.random.default_rng(1)
    return world, [sample.draw_latents(world, spec, rng) for _ in range(count)], rng


def test_class_frequencies_are_the_real_vocabulary_s():
    world, _, _ = latents(0)
    # 788,288, 539,945 and 14,920 videos: ranks 1, 2 and 101 of the public vocabulary
    assert world.frequencies[0] / world.frequencies[1] == pytest.approx(788288 / 539945)
    wide = sample.make_world(SampleConfig(num_classes=3862))
    assert wide.frequencies[0] / wide.frequencies[100] == pytest.approx(788288 / 14920)
    assert wide.frequencies[-1] * 788288 / wide.frequencies[0] == pytest.approx(123)


def test_evidence_is_a_minority_of_the_frames_and_labels_are_several():
    _, drawn, _ = latents()
    evidence = np.mean([(one.frame_styles < 0).mean() for one in drawn])
    assert 0.2 < evidence < 0.4
    topics = [len(one.topics) for one in drawn]
    assert 2.3 < np.mean(topics) < 3.0
    for one in drawn:
        own = one.frame_styles < 0
        assert set(one.frame_topics[own]) == set(one.topics.tolist())
        assert not set(one.frame_topics[~own]) & set(one.topics.tolist())
        assert own.mean() < 0.5


@pytest.mark.parametrize(("num_classes", "min_frames", "max_frames"), [(2, 1, 1), (3, 2, 4)])
def test_the_smallest_samples_are_samples(num_classes, min_frames, max_frames, tmp_path):
    spec = dataclasses.replace(
        SPEC, num_classes=num_classes, min_frames=min_frames, max_frames=max_frames
    )
    sample.write_sample(spec, tmp_path)
    for path in tmp_path.glob("*/*.tfrecord"):
        for video in records.read_videos(path, "frame", num_classes):
            assert min_frames <= video.num_frames <= max_frames


def test_the_oracle_s_scores_are_the_labels_probabilities():
    """Draw the labels of one video many times: frequencies meet the scores."""
    world, (one,), rng = latents(1, num_classes=6)
    chances = sample.label_chances(world, one)
    draws = np.zeros(6)
    for _ in range(20000):
        draws[sample.draw_labels(chances, rng)] += 1
    np.testing.assert_allclose(draws / 20000, sample.oracle_scores(chances), atol=0.015)


def test_nobody_who_knows_the_topics_alone_beats_the_oracle():
    world, drawn, rng = latents(1500)
    chances = [sample.label_chances(world, one) for one in drawn]
    labels = np.zeros((1500, 100))
    for row, chance in enumerate(chances):
        labels[row, sample.draw_labels(chance, rng)] = 1
    oracle = evaluate([sample.oracle_scores(chance) for chance in chances], labels).gap
    topics = np.zeros((1500, 100))
    for row, one in enumerate(drawn):
        topics[row, one.topics] = 1
    assert oracle > evaluate(topics + rng.random(topics.shape) * 0.01, labels).gap + 0.01
    assert 0.8 < oracle < 0.97


def test_the_mean_does_not_tell_topics_from_filler():
    """Ranking classes by the matched filter on the mean frame is far below the same on evidence."""
    world, drawn, rng = latents(300)
    labels = np.zeros((300, 100))
    by_mean, by_evidence = np.zeros((300, 100)), np.zeros((300, 100))
    for row, one in enumerate(drawn):
        labels[row, one.topics] = 1
        features = records.dequantise(sample.draw_features(world, one, rng))
        by_mean[row] = world.signatures @ features.mean(axis=0)
        by_evidence[row] = world.signatures @ features[one.frame_styles < 0].mean(axis=0)
    assert evaluate(by_evidence, labels).gap > evaluate(by_mean, labels).gap + 0.2
