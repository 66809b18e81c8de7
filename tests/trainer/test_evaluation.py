import numpy as np
import pytest

from tests.conftest import TINY_MODEL
from trainer import records
from trainer.config import ModelConfig
from trainer.errors import InputError
from trainer.evaluation import score_predictions, score_shards, trained_config
from trainer.files import write_json
from trainer.models import build_model
from trainer.prediction import read_predictions, write_top_predictions


@pytest.fixture
def model():
    return build_model(ModelConfig(**TINY_MODEL), 12, "frame", 12)


def test_every_record_once_whatever_the_batch(model, manifest):
    shards = manifest.split("validate")
    results = [score_shards(model, manifest, shards, 12, size) for size in (3, 64)]
    ids = [
        records.parse(record).video_id
        for shard in shards
        for record in records.read_records(shard.path)
    ]
    for scored in results:
        assert scored.video_ids == ids
        assert scored.model_name == "nextvlad"
        assert scored.top()[0].shape == (20, 12)
        assert 0 < scored.metrics_seconds < scored.seconds
        assert scored.mistakes.videos == len(scored.lengths) == 20
    assert results[0].metrics.result().gap == pytest.approx(
        results[1].metrics.result().gap, abs=1e-6
    )


def test_predictions_of_a_model_score_as_the_model(model, manifest, tmp_path):
    shards = manifest.split("validate")
    scored = score_shards(model, manifest, shards, 12, 8)
    path = tmp_path / "predictions.csv"
    write_top_predictions(path, scored.video_ids, *scored.top())
    again = score_predictions(path, manifest, shards, 12)
    assert again.result().gap == pytest.approx(scored.metrics.result().gap, abs=1e-4)
    assert len(read_predictions(path, 12)) == 20
    path.write_text("VideoId,LabelConfidencePairs\nother,1 0.5\n")
    with pytest.raises(InputError, match="has no prediction of video 'v000000'"):
        score_predictions(path, manifest, shards, 12)


def test_a_shard_that_changed_since_is_noticed(model, manifest):
    shard = manifest.split("validate")[0]
    payloads = [record.payload for record in records.read_records(shard.path)]
    records.write_records(shard.path, payloads[:-1])
    with pytest.raises(InputError, match="has 9 records, the manifest has 10"):
        score_shards(model, manifest, manifest.split("validate"), 12, 8)


def test_a_model_of_other_data_is_refused(manifest, tmp_path):
    facts = {"level": "frame", "num_classes": 3862, "data": {"max_frames": 12}}
    write_json(tmp_path / "config.json", facts)
    with pytest.raises(InputError, match="the model's num_classes is 3862, the data's 12"):
        trained_config(tmp_path, manifest)


def test_dropout_is_off(model, manifest):
    shards = manifest.split("validate")
    one, two = (score_shards(model, manifest, shards, 12, 8) for _ in range(2))
    np.testing.assert_array_equal(one.top()[1], two.top()[1])
