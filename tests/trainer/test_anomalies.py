import numpy as np

from tests.conftest import mean_video
from trainer import records
from trainer.anomalies import find_anomalies
from trainer.manifest import Manifest, Shard
from trainer.statistics import FeatureStatistics, collect


def manifest_of(**counts):
    shards = tuple(Shard(split, f"/{split}", 1, "", n) for split, n in counts.items())
    return Manifest("here", "video", 9, shards)


def test_anomalies():
    def of(labels, count=3):
        rng = np.random.default_rng(0)
        videos = [mean_video(rng, labels) for _ in range(count)]
        return collect(videos, FeatureStatistics(records.VIDEO, 9))

    def descriptions(manifest, **by_split):
        return [(a.severity, a.description) for a in find_anomalies(manifest, by_split)]

    both = manifest_of(train=3, validate=3)
    assert descriptions(both, train=of([1]), validate=of([1])) == []
    assert descriptions(both, train=of([1], 2), validate=of([1])) == [
        ("error", "train: 2 records read, the manifest has 3")
    ]
    assert descriptions(both, train=of([1])) == [
        ("error", "validate: 0 records read, the manifest has 3")
    ]
    assert descriptions(both, train=of([]), validate=of([1]))[0] == (
        "error",
        "train: none of its 3 records has a label",
    )
    assert descriptions(both, train=of([1]), validate=of([1, 4])) == [
        ("warning", "validate: 1 of its classes have no example in train")
    ]
