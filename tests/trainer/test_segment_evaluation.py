"""Rated segments, scored one by one as the slow way does it."""

import dataclasses

import numpy as np
import pytest

from tests.conftest import TINY_MODEL
from tests.trainer.shards import NUM_CLASSES, rated_shards, videos_of
from trainer import records
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.manifest import Manifest
from trainer.metrics.bootstrap import PairedBootstrap
from trainer.models import build_model, probabilities
from trainer.segment_evaluation import score_segments


@pytest.fixture
def shards(tmp_path, rng):
    return rated_shards(tmp_path, rng)


@pytest.fixture
def manifest(shards):
    return Manifest("rated", records.FRAME, NUM_CLASSES, tuple(shards))


@pytest.fixture(scope="module")
def model():
    return build_model(ModelConfig(**TINY_MODEL), NUM_CLASSES, records.FRAME, 5)


def one_by_one(model, shards):
    """(id, start, class) → score and rating, of every rated pair whose segment has frames."""
    found = {}
    for video in videos_of(shards):
        if video.segments is None:
            continue
        rated = zip(
            video.segments.starts, video.segments.labels, video.segments.scores, strict=True
        )
        for start, label, score in rated:
            count = min(5, video.num_frames - start)
            if count <= 0:
                continue
            features = {
                "rgb": np.zeros((1, 5, 1024), np.uint8),
                "audio": np.zeros((1, 5, 128), np.uint8),
                "num_frames": np.array([count], np.int32),
            }
            features["rgb"][0, :count] = video.rgb[start : start + count]
            features["audio"][0, :count] = video.audio[start : start + count]
            scores = np.asarray(probabilities(model(features, training=False)))[0]
            # Of a pair that was rated twice the last one counts, as in training.
            found[video.video_id, int(start), int(label)] = scores[label], score > 0
    return found


@pytest.mark.parametrize("batch_size", [16, 64, 320])
def test_every_rated_pair_once(model, manifest, shards, batch_size):
    expected = one_by_one(model, shards)
    found = score_segments(model, manifest, shards, batch_size)
    arrays = found.metrics.arrays()
    places = [
        (found.video_ids[video], int(start), int(label))
        for video, start, label in zip(
            found.pair_videos, found.pair_starts, arrays["classes"], strict=True
        )
    ]
    assert sorted(places) == sorted(expected)
    scores, hits = zip(*(expected[place] for place in places), strict=True)
    np.testing.assert_allclose(arrays["scores"], scores, atol=1e-5)
    np.testing.assert_array_equal(arrays["hits"], hits)
    assert found.video_ids == [video.video_id for video in videos_of(shards)]
    predictions = found.predictions()
    assert predictions.positives.sum() == sum(hits)
    bootstrap = PairedBootstrap([predictions], 20)
    assert bootstrap.values[0] == pytest.approx(found.metrics.result().ap)


def test_segments_of_which_none_is_right(model, manifest, shards, tmp_path):
    videos = []
    for video in videos_of(shards):
        if (rated := video.segments) is not None:
            rated = dataclasses.replace(rated, scores=np.zeros_like(rated.scores))
        videos.append(records.encode(dataclasses.replace(video, segments=rated)))
    path = tmp_path / "wrong.tfrecord"
    count = records.write_records(path, videos)
    shard = dataclasses.replace(shards[0], uri=str(path), bytes=path.stat().st_size, records=count)
    with pytest.raises(InputError, match="none of 10 videos has a segment that was rated as right"):
        score_segments(model, manifest, [shard], 64)
