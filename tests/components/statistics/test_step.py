"""The Beam pass, on Beam's own engine, against the same counts without Beam."""

import dataclasses
import json
import re

import numpy as np
import pytest

from components.statistics.step import MergeStatistics, compute_statistics, run_statistics
from tests.conftest import frame_video, mean_video
from trainer import records
from trainer.errors import InputError
from trainer.manifest import Manifest, Shard
from trainer.statistics import FeatureStatistics, collect


def without_beam(manifest, split):
    videos = (
        video
        for shard in manifest.split(split)
        for video in records.read_videos(shard.path, manifest.level, manifest.num_classes)
    )
    return collect(videos, FeatureStatistics(manifest.level, manifest.num_classes))


def test_beam_counts_what_a_loop_counts(manifest):
    by_split, errors = compute_statistics(manifest, [])
    assert errors == []
    assert list(by_split) == ["train", "validate"]
    for split, statistics in by_split.items():
        expected = without_beam(manifest, split)
        assert statistics.records == expected.records == manifest.records(split)
        for name in ("codes", "frames", "labels", "labels_a_video"):
            np.testing.assert_array_equal(getattr(statistics, name), getattr(expected, name))


def test_the_combiner_merges_and_spares_its_inputs(rng):
    combine = MergeStatistics(records.VIDEO, 9)
    parts = [
        collect([mean_video(rng) for _ in range(n)], FeatureStatistics(records.VIDEO, 9))
        for n in (2, 3, 4)
    ]
    one = combine.add_input(combine.create_accumulator(), parts[0])
    two = combine.add_input(combine.add_input(combine.create_accumulator(), parts[1]), parts[2])
    merged = combine.extract_output(combine.merge_accumulators([one, two]))
    assert merged.records == 9
    assert [part.records for part in parts] == [2, 3, 4]


def test_artifacts_and_report(manifest, tmp_path, capsys):
    manifest.write(tmp_path / "manifest.json")
    summary = run_statistics(str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [])
    assert summary == json.loads((tmp_path / "s" / "statistics.json").read_text())
    assert summary["splits"]["train"]["records"] == 48
    html = (tmp_path / "r.html").read_text()
    assert manifest.read_vocabulary().names[0].replace("&", "&amp;") in html
    assert "counts agree with the manifest" in capsys.readouterr().out


def spoiled(manifest, payload):
    path = manifest.shards[1].path
    payloads = [record.payload for record in records.read_records(path)]
    records.write_records(path, [*payloads[:3], payload, *payloads[4:]])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda rng: b"garbage", "neither a SequenceExample nor an Example"),
        (lambda rng: records.encode(frame_video(rng, labels=[12])), "label 12 is out of range"),
        (lambda rng: records.encode(mean_video(rng)), "is video-level, expected frame-level"),
    ],
)
def test_a_bad_record_fails_the_step_and_leaves_nothing(make, words, manifest, tmp_path, rng):
    manifest.write(tmp_path / "manifest.json")
    spoiled(manifest, make(rng))
    place = f"{manifest.shards[1].uri}: record 3 (at byte "
    with pytest.raises(InputError, match=rf"{re.escape(place)}.*{words}"):
        run_statistics(str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [])
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / "r.html").exists()


def test_a_manifest_that_lies_fails_the_step(manifest, tmp_path):
    shards = (dataclasses.replace(manifest.shards[0], records=11), *manifest.shards[1:])
    dataclasses.replace(manifest, shards=shards).write(tmp_path / "manifest.json")
    with pytest.raises(InputError, match="train: 48 records read, the manifest has 49"):
        run_statistics(str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [])
    assert not (tmp_path / "s").exists()


def test_the_real_frame_level_record(real_data):
    """170 frames, label 11."""
    path = real_data / "frame" / "SjJ3.tfrecord"
    shard = Shard("train", str(path), path.stat().st_size, "", 1)
    by_split, errors = compute_statistics(Manifest("real", "frame", 3862, (shard,)), [])
    assert errors == []
    statistics = by_split["train"]
    assert np.flatnonzero(statistics.frames).tolist() == [170]
    assert np.flatnonzero(statistics.labels).tolist() == [11]
    assert statistics.codes.sum() == 170 * 1152
