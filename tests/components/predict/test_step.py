"""From shards to files: all of them or none."""

import dataclasses
import json
import re

import numpy as np
import pytest

from components.predict.step import Request, run_predict
from tests.components.predict.conftest import (
    CLASSES,
    spoil,
    video_payloads,
)
from trainer import records
from trainer.errors import InputError
from trainer.metrics import evaluate
from trainer.prediction import read_predictions


def request(model, data, **more):
    return Request(model=str(model), data=str(data), batch_size=2, **more)


def videos_of(shards):
    return [
        records.parse(record)
        for path in sorted(shards.glob("*.tfrecord"))
        for record in records.read_records(path)
    ]


def test_every_video_once_in_order_with_the_model_s_scores(
    frame_folder, frame_model, shards, tmp_path, capsys
):
    summary = run_predict(request(frame_folder, shards), tmp_path / "out")
    videos = videos_of(shards)
    answer = frame_model.answer(videos)
    scores = np.zeros((16, CLASSES), np.float32)
    np.put_along_axis(scores, answer.classes, answer.scores, axis=1)
    labels = np.zeros(scores.shape, bool)
    for row, video in enumerate(videos):
        labels[row, video.labels] = True
    found = read_predictions(tmp_path / "out" / "predictions.csv", CLASSES)
    assert list(found) == [video.video_id for video in videos]
    np.testing.assert_allclose(list(found.values()), scores, rtol=1e-5, atol=1e-6)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert (summary["videos"], summary["shards"], summary["refused"]) == (16, 2, 0)
    assert summary["gap_at_20"] == pytest.approx(evaluate(scores, labels).gap, abs=1e-6)
    assert len(summary["model"]["digest"]) == 32
    output = capsys.readouterr().out
    table = output.partition("\n\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in table] == ["video", "a0", "a1", "a2", "a3", "a4"]
    assert max(map(len, table)) <= 100
    assert f"GAP@20 {summary['gap_at_20']:.4f}" in output.splitlines()[-1]


def test_video_level(video_folder, tmp_path):
    records.write_records(tmp_path / "v.tfrecord", video_payloads(5, labels=()))
    summary = run_predict(request(video_folder, tmp_path / "v.tfrecord"), tmp_path / "out")
    assert summary["videos"] == 5
    assert "gap_at_20" not in summary


def test_timelines_and_fewer_classes(frame_folder, shards, tmp_path):
    asked = request(frame_folder, shards, segments=True, top_k=2)
    run_predict(asked, tmp_path / "out")
    lines = [*map(json.loads, (tmp_path / "out" / "segments.jsonl").read_text().splitlines())]
    assert [line["id"] for line in lines] == [video.video_id for video in videos_of(shards)]
    assert {len(one["classes"]) for line in lines for one in line["segments"]} == {2}
    text = (tmp_path / "out" / "segments.csv").read_text().splitlines()
    listed = sum(len(line.split(",")[1].split()) for line in text[1:])
    assert listed == 2 * sum(len(line["segments"]) for line in lines)
    rows = (tmp_path / "out" / "predictions.csv").read_text().splitlines()[1:]
    assert {len(row.split(",")[1].split()) for row in rows} == {4}


def test_the_newest_run_and_its_examples(frame_folder, shards, tmp_path, manifest, capsys):
    run = tmp_path / "runs" / "20260101-000000"
    (run / "examples").mkdir(parents=True)
    (run / "serving_model").symlink_to(frame_folder)
    dataclasses.replace(manifest, vocabulary="").write(run / "examples" / "manifest.json")
    summary = run_predict(Request(runs=str(tmp_path / "runs")), tmp_path / "out")
    assert summary["videos"] == manifest.records("validate")
    model = run / "serving_model"
    assert f"[predict] model {model}, of the newest run that has one" in capsys.readouterr().out


def test_damaged_records_stop_it_or_are_passed_over(frame_folder, shards, tmp_path, capsys):
    offset = spoil(shards / "a.tfrecord", 3)
    words = rf"a\.tfrecord: record 3 \(at byte {offset:,}\): the checksum of its .* damaged"
    with pytest.raises(InputError, match=words):
        run_predict(request(frame_folder, shards), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]
    summary = run_predict(request(frame_folder, shards, skip_damaged=True), tmp_path / "out")
    assert (summary["videos"], summary["refused"]) == (15, 1)
    (listed,) = summary["first_refused"]
    assert (listed["record"], listed["offset"]) == (3, offset)
    assert "passed over 1 records, the first: " in capsys.readouterr().out


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (cut_off, r"a\.tfrecord: record 10 \(at byte [\d,]+\): the file ends 10 bytes before"),
        (lambda path: path.write_bytes(b""), r"a\.tfrecord: record 0 .*: is empty"),
        (lambda path: path.write_text("<html>no shard</html>"), r"a\.tfrecord: .*no TFRecord file"),
        (
            lambda path: records.write_records(path, video_payloads(2)),
            r"a\.tfrecord: record 0 .*: is a video-level record, the model takes frame-level ones",
        ),
    ],
)
def test_bad_shards_are_one_line_and_nothing_is_written(
    change, words, frame_folder, shards, tmp_path
):
    change(shards / "a.tfrecord")
    with pytest.raises(InputError, match=words):
        run_predict(request(frame_folder, shards), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model": "absent"}, "absent: is no exported model"),
        ({"top_k": 13}, "top_k is 13, expected 1 to 12"),
        ({"top_k": 0}, "top_k is 0, expected 1 to 12"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"engine": "spark"}, "engine is 'spark', expected direct or beam"),
        ({"workers": 2}, "workers and Beam's options are of --engine beam"),
        ({"beam_arguments": ["--x"]}, "workers and Beam's options are of --engine beam"),
        ({"engine": "beam", "beam_arguments": ["--x=1"]}, "Beam has no option --x"),
        ({"engine": "beam", "workers": 2, "beam_arguments": ["--runner=Flink"]}, "beside Beam's"),
    ],
)
def test_requests_that_can_not_be_met(more, words, frame_folder, shards, tmp_path):
    asked = dataclasses.replace(request(frame_folder, shards), **more)
    with pytest.raises(InputError, match=re.escape(words)):
        run_predict(asked, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_timeline_of_video_level(video_folder, tmp_path):
    records.write_records(tmp_path / "v.tfrecord", video_payloads(1))
    with pytest.raises(InputError, match="gives no timeline: it takes video-level records"):
        run_predict(request(video_folder, tmp_path / "v.tfrecord", segments=True), tmp_path / "o")


def test_an_export_of_an_earlier_version(frame_folder, shards, tmp_path):
    model = make_model_without_digest(frame_folder, tmp_path)
    with pytest.raises(InputError, match=r"vocabulary_digest is None.*: another version exported"):
        run_predict(request(model, shards), tmp_path / "out")


def make_model_without_digest(folder, tmp_path):
    model = tmp_path / "old"
    model.mkdir()
    (model / "saved_model").symlink_to(folder / "saved_model")
    about = json.loads((folder / "export.json").read_text())
    del about["vocabulary_digest"]
    (model / "export.json").write_text(json.dumps(about))
    return model


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_output_s_place_is_never_replaced(frame_folder, shards, tmp_path, overwrite):
    out = tmp_path / "out"
    out.write_text("years of work")
    with pytest.raises(InputError, match=r"out: is a file, expected a folder or nothing there$"):
        run_predict(request(frame_folder, shards, overwrite=overwrite), out)
    assert out.read_text() == "years of work"


def test_what_is_there_is_replaced_only_if_it_is_a_prediction(frame_folder, shards, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"out: exists; give another --output, or --overwrite"):
        run_predict(request(frame_folder, shards), out)
    asked = request(frame_folder, shards, overwrite=True)
    with pytest.raises(InputError, match=r"out: has no summary\.json, .* it is not replaced"):
        run_predict(asked, out)
    assert (out / "thesis.tex").read_text() == "years of work"
    (out / "summary.json").write_text("{}")
    run_predict(asked, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "predictions.csv", "predictions.jsonl", "summary.json",
    ]  # fmt: skip


@pytest.mark.slow
def test_shards_in_a_bucket(bucket, frame_folder, shards, tmp_path):
    for path in shards.iterdir():
        bucket.blob(f"yt/{path.name}").upload_from_filename(path)
    run_predict(request(frame_folder, shards), tmp_path / "here")
    run_predict(request(frame_folder, "gs://data/yt"), tmp_path / "there")
    for name in ("predictions.csv", "predictions.jsonl"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
