"""The whole step: files, page, what is said, and what fails it."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest

from components.statistics.step import run_statistics
from tests.conftest import frame_video, mean_video
from trainer import records
from trainer.config import StatisticsConfig
from trainer.errors import InputError
from trainer.statistics import read_statistics

pytestmark = pytest.mark.usefixtures("no_drawing")


def run(manifest, tmp_path, **config):
    manifest.write(tmp_path / "manifest.json")
    return run_statistics(
        str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [], StatisticsConfig(**config)
    )


def test_artifacts_and_report(manifest, tmp_path, capsys):
    facts = run(manifest, tmp_path)
    assert facts == json.loads((tmp_path / "s" / "statistics.json").read_text())
    assert facts["passed"]
    assert facts["splits"]["train"]["records"] == 48
    assert facts["splits"]["all"]["records"] == 68
    assert {path.name for path in (tmp_path / "s").iterdir()} == {
        "statistics.json", "statistics.npz", "anomalies.json", "bad_records.jsonl", "schema.yaml",
        "schema.pbtxt", "stats.tfrecord", "classes.csv",
    }  # fmt: skip
    assert json.loads((tmp_path / "s" / "anomalies.json").read_text()) == {
        "passed": True, "anomalies": facts["anomalies"],
    }  # fmt: skip
    assert "counts agree with the manifest, 0 errors" in capsys.readouterr().out
    arrays = read_statistics(tmp_path / "s", manifest.fingerprint).arrays
    assert arrays["all/labels"].sum() == facts["splits"]["all"]["labels"]
    for name in ("mean", "histogram", "frames", "labels"):
        assert f"train/{name}" in arrays
    with (tmp_path / "s" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(manifest.read_vocabulary().names)
    for split in ("train", "validate", "all"):
        assert [int(row[split]) for row in rows] == arrays[f"{split}/labels"].tolist()


@pytest.mark.slow
def test_its_own_schema_holds_and_equal_data_does_not_drift(manifest, tmp_path):
    run(manifest, tmp_path)
    (tmp_path / "s").rename(tmp_path / "earlier")
    facts = run(
        manifest,
        tmp_path,
        schema=str(tmp_path / "earlier" / "schema.yaml"),
        baseline=str(tmp_path / "earlier"),
    )
    assert facts["anomalies"] == []


def test_covariance_and_components(manifest, tmp_path):
    run(manifest, tmp_path, covariance=True)
    codes = np.concatenate(
        [
            np.concatenate([video.rgb, video.audio], axis=1)
            for shard in manifest.split("train")
            for video in records.read_videos(shard.path, manifest.level, manifest.num_classes)
        ]
    )
    values = records.dequantise(codes).astype(np.float64)
    with np.load(tmp_path / "s" / "pca.npz") as found:
        assert str(found["split"]) == "train"
        for name, part in (("rgb", values[:, :1024]), ("audio", values[:, 1024:])):
            expected = np.cov(part.T, bias=True)
            np.testing.assert_allclose(found[f"{name}/covariance"], expected, atol=1e-6)
            np.testing.assert_allclose(found[f"{name}/mean"], part.mean(axis=0), atol=1e-6)
            vectors, eigenvalues = found[f"{name}/eigenvectors"], found[f"{name}/eigenvalues"]
            back = vectors.T @ np.diag(eigenvalues) @ vectors
            np.testing.assert_allclose(back, expected, atol=1e-6)


def spoiled(manifest, payload):
    path = manifest.shards[1].path
    payloads = [record.payload for record in records.read_records(path)]
    records.write_records(path, [*payloads[:3], payload, *payloads[4:]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rng: b"garbage", "neither a SequenceExample nor an Example"),
        (lambda rng: records.encode(frame_video(rng, labels=[12])), "label 12 is out of range"),
        (lambda rng: records.encode(mean_video(rng)), "is video-level, expected frame-level"),
    ],
)
def test_a_bad_record_fails_the_step_and_is_named(make, words, manifest, tmp_path, rng, capsys):
    spoiled(manifest, make(rng))
    place = f"{manifest.shards[1].uri}: record 3 (at byte "
    with pytest.raises(InputError, match=rf"{re.escape(place)}.*{words}"):
        run(manifest, tmp_path)
    assert f"bad record 1 (1 are lost): {place}" in capsys.readouterr().out
    (line,) = (tmp_path / "s" / "bad_records.jsonl").read_text().splitlines()
    assert json.loads(line)["record"] == 3
    # What was written is whole and says that the data did not pass: nobody trains on it.
    assert "Did not pass" in (tmp_path / "r.html").read_text()
    with pytest.raises(InputError, match="the data did not pass"):
        read_statistics(tmp_path / "s", manifest.fingerprint)


@pytest.mark.slow
def test_bad_records_up_to_the_share_that_is_allowed(manifest, tmp_path):
    spoiled(manifest, b"garbage")
    facts = run(manifest, tmp_path, corrupt_share=1 / 68)
    assert facts["passed"]
    assert facts["bad_records"]["by_split"] == {"train": 1}
    assert facts["splits"]["train"]["records"] == 47
    with pytest.raises(InputError, match=r"1 of 68 records are bad \(1.47%\).* allows 1.40%"):
        run(manifest, tmp_path, corrupt_share=0.014)


def test_many_bad_records_are_named_and_counted(manifest, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("trainer.statistics.findings.MOST_NAMED", 5)
    for shard in manifest.shards[:2]:
        records.write_records(shard.path, [b"garbage"] * shard.records)
    with pytest.raises(InputError, match="20 of 68 records are bad"):
        run(manifest, tmp_path)
    assert "bad record 5 (20 are lost): " in (output := capsys.readouterr().out)
    assert "bad record 6" not in output
    assert len((tmp_path / "s" / "bad_records.jsonl").read_text().splitlines()) == 20


def test_nothing_that_can_be_read(manifest, tmp_path):
    for shard in manifest.shards:
        records.write_records(shard.path, [b"garbage"] * shard.records)
    with pytest.raises(InputError, match="no record can be read: 68 of 68 are bad"):
        run(manifest, tmp_path)
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(("records_stated", "words"), [(11, "49"), (9, "47")])
def test_a_manifest_that_lies_fails_the_step(records_stated, words, manifest, tmp_path):
    shards = (dataclasses.replace(manifest.shards[0], records=records_stated), *manifest.shards[1:])
    lying = dataclasses.replace(manifest, shards=shards)
    with pytest.raises(InputError, match=f"train: 48 records read, the manifest has {words}"):
        run(lying, tmp_path)
    assert "counts differ" not in (tmp_path / "r.html").read_text()


def test_an_earlier_run_of_other_data(manifest, tmp_path):
    run(manifest, tmp_path)
    other = dataclasses.replace(manifest, num_classes=99)
    with pytest.raises(InputError, match=r"statistics.baseline .* level with 12 classes, exp"):
        run(other, tmp_path, baseline=str(tmp_path / "s"))
    with pytest.raises(InputError, match="no such file"):
        run(manifest, tmp_path, baseline=str(tmp_path / "absent"))
    with pytest.raises(InputError, match="no such schema"):
        run(manifest, tmp_path, schema=str(tmp_path / "absent.yaml"))
