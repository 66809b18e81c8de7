"""Beam's answers are those of the direct way: the same bytes, in the same order."""

import gc
import pickle

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import RunInference
from apache_beam.testing.util import assert_that

from components.predict import beam_inference
from components.predict.beam_inference import ExportedModelHandler
from components.predict.scoring import Settings
from components.predict.step import Request, run_predict
from tests.components.predict.conftest import spoil
from trainer import records
from trainer.errors import InputError
from trainer.prediction import read_predictions

FILES = ("predictions.csv", "predictions.jsonl")


def both(model, data, tmp_path, files=FILES, beam_options=None, **more):
    asked = {"model": str(model), "data": str(data), "batch_size": 2, **more}
    one = run_predict(Request(**asked), tmp_path / "direct")
    other = run_predict(Request(**asked, engine="beam", **(beam_options or {})), tmp_path / "beam")
    for name in files:
        assert (tmp_path / "beam" / name).read_bytes() == (
            tmp_path / "direct" / name
        ).read_bytes(), name
    for key in ("videos", "refused", "shards", "gap_at_20", "model", "first_refused"):
        assert one[key] == other[key], key
    assert (one["engine"], other["engine"]) == ("direct", "beam")
    scores = [read_predictions(tmp_path / way / FILES[0], 12) for way in ("direct", "beam")]
    assert list(scores[0]) == list(scores[1])
    np.testing.assert_allclose(list(scores[0].values()), list(scores[1].values()), atol=1e-6)
    return other


def test_the_same_files_with_what_is_damaged_passed_over(frame_folder, shards, tmp_path):
    spoil(shards / "a.tfrecord", 3)
    (shards / "c.tfrecord").write_bytes(b"no shard at all")
    files = (*FILES, "segments.csv", "segments.jsonl", "refused.jsonl")
    found = both(frame_folder, shards, tmp_path, files, segments=True, skip_damaged=True)
    assert (found["videos"], found["refused"], found["shards"]) == (15, 2, 3)


@pytest.mark.slow
def test_two_processes(frame_folder, shards, tmp_path):
    found = both(frame_folder, shards, tmp_path, beam_options={"workers": 2})
    assert found["videos"] == 16


def test_a_damaged_record_is_the_same_line(frame_folder, shards, tmp_path):
    spoil(shards / "b.tfrecord", 1)
    lines = []
    for engine in ("direct", "beam"):
        with pytest.raises(InputError) as ended:
            run_predict(
                Request(model=str(frame_folder), data=str(shards), engine=engine), tmp_path / "o"
            )
        lines.append(str(ended.value))
    assert lines[0] == lines[1]
    assert "b.tfrecord: record 1 (at byte " in lines[0]
    assert not (tmp_path / "o").exists()


def test_workers_that_write_elsewhere_are_noticed(frame_folder, shards, tmp_path, monkeypatch):
    monkeypatch.setattr("components.predict.beam_pass.WriteShard.process", lambda *_: None)
    with pytest.raises(InputError, match=r"did not leave .*; give --temp_location"):
        run_predict(
            Request(model=str(frame_folder), data=str(shards), engine="beam"), tmp_path / "o"
        )


def test_a_model_in_a_bucket_is_copied_by_who_loads_it(bucket, frame_folder, frame_model, shards):
    for path in sorted(frame_folder.rglob("*")):
        if path.is_file():
            name = f"best/{path.relative_to(frame_folder)}"
            bucket.blob(name).upload_from_string(path.read_bytes())
    # As a worker has it: handed over, and gone when the model is loaded.
    model = pickle.loads(pickle.dumps(ExportedModelHandler("gs://data/best"))).load_model()
    gc.collect()
    assert model.folder != frame_folder
    assert (model.folder / "export.json").is_file()
    record = next(iter(records.read_records(shards / "a.tfrecord")))
    found, expected = (one.answer([one.parse(record)]).rows() for one in (model, frame_model))
    assert found == expected
    with pytest.raises(InputError, match="model gs://data/none: nothing is there"):
        ExportedModelHandler("gs://data/none").load_model()


def test_where_the_handler_s_workers_look(tmp_path, monkeypatch):
    """A mounted bucket is one also to machines that have it not mounted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(beam_inference, "BUCKETS", tmp_path / "gcs")
    asked = {
        "model": str(tmp_path / "model"),
        tmp_path / "model": str(tmp_path / "model"),
        "gs://data/best": "gs://data/best",
        tmp_path / "gcs" / "data" / "best": "gs://data/best",
    }
    assert {one: ExportedModelHandler(one)._uri for one in asked} == asked


def test_the_handler_in_a_pipeline_of_one_s_own(frame_folder, frame_model, shards):
    """Batches of Beam's making; an outcome for each record."""
    every = [record for path in sorted(shards.iterdir()) for record in records.read_records(path)]
    every[2].payload = b"garbage"
    handler = ExportedModelHandler(frame_folder, Settings(batch_size=2))
    assert handler.batch_elements_kwargs() == {"min_batch_size": 1, "max_batch_size": 8}
    assert not handler.share_model_across_processes()
    assert ExportedModelHandler(frame_folder, share_model=True).share_model_across_processes()
    expected = {}
    for record in every:
        if record.payload != b"garbage":
            (row,) = frame_model.answer([frame_model.parse(record)]).rows()
            expected[record.path, record.index] = {one["class"]: one["score"] for one in row}

    def check(found):
        refused = [one for one in found if hasattr(one, "reason")]
        assert [(one.uri, one.record) for one in refused] == [(every[2].path, 2)]
        answers = [one for one in found if not hasattr(one, "reason")]
        assert {(one.uri, one.record) for one in answers} == expected.keys()
        for one in answers:
            scores = {row["class"]: row["score"] for row in one.classes}
            assert scores == pytest.approx(expected[one.uri, one.record], abs=1e-6)

    with beam.Pipeline("apache_beam.runners.portability.fn_api_runner.FnApiRunner") as pipeline:
        found = pipeline | beam.Create(every, reshuffle=False) | RunInference(handler)
        assert_that(found, check)
