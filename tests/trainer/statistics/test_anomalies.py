"""Each anomaly from the smallest data that has it."""

import dataclasses

import numpy as np
import pytest

from tests.conftest import frame_video, mean_video
from tests.trainer.statistics.cases import CLASSES, collect, described, manifest_of
from trainer import records
from trainer.config import StatisticsConfig
from trainer.manifest import Manifest, Shard
from trainer.statistics.anomalies import Earlier, dimension_name, find_anomalies, totals
from trainer.statistics.findings import BadRecord, BadRecords, Duplicates, Findings
from trainer.statistics.schema import Check, default_schema


def means(labels=(1, 3), count=3, seed=0, **changes):
    rng = np.random.default_rng(seed)
    videos = [mean_video(rng, labels, f"{seed}{i}") for i in range(count)]
    return collect([dataclasses.replace(video, **changes) for video in videos])


def judged(by_split, bad=None, duplicates=None, schema=None, earlier=None, stated=None, **config):
    first = next(iter(by_split.values()))
    stated = stated or {split: one.records for split, one in by_split.items()}
    manifest = manifest_of(first.level, CLASSES, **stated)
    bad = bad or BadRecords()
    counted = {f"/{split}": one.records for split, one in by_split.items()}
    findings = Findings(by_split, counted, bad, duplicates or Duplicates())
    schema = schema or default_schema(first.level, CLASSES, stated)
    found = find_anomalies(
        manifest, findings, *described(**by_split), schema, StatisticsConfig(**config), earlier
    )
    return [(a.severity, a.check, a.description) for a in found]


def only(found, severity, check, *words):
    ((its_severity, its_check, description),) = found
    assert (its_severity, its_check) == (severity, check)
    assert all(word in description for word in words), description


def test_nothing_wrong():
    assert judged({"train": means(), "validate": means(seed=1)}) == []


@pytest.mark.parametrize("lost", [0, 2])
def test_a_count_that_differs_by_one(lost):
    bad = BadRecords.of(BadRecord("train", "/train", i, 0, "x") for i in range(lost))
    found = judged({"train": means()}, bad, stated={"train": 4 + lost}, corrupt_share=1.0)
    assert found[0][:2] == ("error", "manifest")
    assert "train: 3 records read" in found[0][2]
    bad = " and 2 bad" * bool(lost)
    says = f"the manifest has {4 + lost}; 1 shard differs (/train: 3{bad} of {4 + lost}): they"
    assert says in found[0][2]


def test_one_record_too_few_in_a_shard_and_one_too_many_in_another():
    shards = tuple(Shard("train", f"/{n}", 1, "", 2 if n else 3) for n in range(5))
    manifest = Manifest("here", records.VIDEO, CLASSES, shards)
    by_split = {"train": means(count=11)}
    counted = {"/0": 2, "/1": 3, "/2": 2, "/3": 2, "/4": 2}
    schema = default_schema(records.VIDEO, CLASSES, ["train"])
    (found,) = find_anomalies(
        manifest, Findings(by_split, counted), *described(**by_split), schema, StatisticsConfig()
    )
    assert (found.severity, found.check) == ("error", "manifest")
    assert "has 11; 2 shards differ (/0: 2 of 3; /1: 3 of 2): they" in found.description


def test_statistics_that_hold_fewer_records_than_were_read():
    shards = (Shard("train", "/train", 1, "", 4),)
    by_split = {"train": means()}
    schema = default_schema(records.VIDEO, CLASSES, ["train"])
    manifest = Manifest("here", records.VIDEO, CLASSES, shards)
    (found,) = find_anomalies(
        manifest, Findings(by_split, {"/train": 4}), *described(**by_split), schema,
        StatisticsConfig(),
    )  # fmt: skip
    assert (found.severity, found.check) == ("error", "manifest")
    assert "train: the statistics hold 3 records of 4 that were read" in found.description


def test_a_test_split_that_had_labels_once():
    """Against an earlier run only what both have is compared."""
    unlabelled = {"train": means(), "test": means(labels=(), seed=1)}
    labelled = {"train": means(), "test": means(seed=1)}
    for one, other in ((unlabelled, labelled), (labelled, unlabelled)):
        earlier = Earlier("/earlier", *described(**other))
        assert judged(one, earlier=earlier) == []


def test_a_split_without_records():
    found = judged({"train": means()}, stated={"train": 3, "validate": 2})
    assert found[0][:2] == ("error", "manifest")
    assert "validate: 0 records read, the manifest has 2" in found[0][2]
    schema = default_schema(records.VIDEO, CLASSES, ["train", "validate"])
    only(judged({"train": means()}, schema=schema), "error", "splits", "validate: has no records")
    bad = BadRecords.of([BadRecord("validate", "/validate", 0, 0, "damaged", 2)])
    found = judged({"train": means()}, bad, stated={"train": 3, "validate": 2}, corrupt_share=1.0)
    assert ("error", "splits", "validate: has no records that can be read") in found


def test_bad_records_up_to_the_share_that_is_allowed():
    bad = BadRecords.of([BadRecord("train", "/train", 2, 7, "damaged")])
    only(
        judged({"train": means()}, bad, stated={"train": 4}, corrupt_share=0.2),
        "error", "statistics.corrupt_share", "1 of 4 records are bad (25.00%)", "allows 20.00%",
        "/train: record 2 (at byte 7): damaged",
    )  # fmt: skip
    only(
        judged({"train": means()}, bad, stated={"train": 4}, corrupt_share=0.25),
        "warning", "statistics.corrupt_share", "1 of 4",
    )  # fmt: skip


def test_labels():
    found = judged({"train": means(labels=())})
    assert ("error", "unlabelled_share", "train: none of its 3 records has a label") in found
    assert judged({"train": means(), "test": means(labels=(), seed=1)}) == []
    some = means().merge(means(labels=(), count=1, seed=1))
    only(judged({"train": some}), "warning", "unlabelled_share", "25.00% (1 records)")
    unseen = {"train": means(), "validate": means(labels=(1, 3, 4), seed=1)}
    only(judged(unseen), "warning", "classes_unseen", "1 (of 3), the schema expects at most 0")


def test_ids():
    duplicates = Duplicates({0: 2}, {(0, 1): 1})
    found = judged({"train": means(), "validate": means(seed=1)}, duplicates=duplicates)
    assert [one[:2] for one in found] == [("error", "leaked_ids"), ("warning", "duplicate_ids")]
    assert "train and validate: ids that another split has too: 1" in found[0][2]
    assert "train: records whose id an earlier one of the split has: 2" in found[1][2]


def test_values_out_of_range_and_constant_dimensions():
    rgb = np.zeros(1024, np.float32)
    rgb[0] = 130.0
    found = judged({"train": means(rgb=rgb)})
    assert [one[:2] for one in found] == [
        ("error", "value_maximum"), ("warning", "constant_dimensions"),
    ]  # fmt: skip
    assert "130, the schema expects at most 2.0078125" in found[0][2]
    assert "1,024, the schema expects at most 0" in found[1][2]


def test_frames():
    rng = np.random.default_rng(0)
    long, short = frame_video(rng, 301), frame_video(rng, 1)
    uneven = dataclasses.replace(frame_video(rng, 4), audio=frame_video(rng, 3).audio)
    found = judged({"train": collect([long, short, uneven])})
    assert {one[1] for one in found} == {
        "longest_video", "single_frame_share", "unequal_lengths_share",
    }  # fmt: skip


def test_a_schema_decides():
    schema = default_schema(records.VIDEO, CLASSES, ["train"])
    strict = dataclasses.replace(schema, checks={"most_labels": Check(minimum=3, severity="error")})
    only(judged({"train": means()}, schema=strict), "error", "most_labels", "2, the schema expects")
    other = dataclasses.replace(schema, num_classes=4716)
    only(
        judged({"train": means()}, schema=other), "error", "schema",
        "the data is of video level with 9 classes, the schema expects video level with 4,716",
    )  # fmt: skip


def drifting():
    """Train spread from −2 to 2, the other half of it, with other labels."""
    rng = np.random.default_rng(0)
    train = means(count=200)
    videos = [mean_video(rng, [1], f"v{i}") for i in range(200)]
    moved = [dataclasses.replace(video, rgb=np.abs(video.rgb)) for video in videos]
    return train, collect(moved)


def test_drift_between_splits():
    train, validate = drifting()
    found = judged({"train": train, "validate": validate})
    assert [one[:2] for one in found] == [
        ("error", "statistics.split_label_drift_error"),
        ("warning", "statistics.split_drift_warning"),
    ]
    assert "shares of 1 classes differ (most: class 3 -1.000)" in found[0][2]
    assert "1,024 feature dimensions are distributed otherwise (most: rgb[" in found[1][2]
    limits = {"split_drift_warning": 0.9, "split_label_drift_error": 1.0,
              "split_label_drift_warning": 1.0}  # fmt: skip
    assert judged({"train": train, "validate": validate}, **limits) == []
    # The test split has no labels to compare, but features.
    unlabelled = collect([mean_video(np.random.default_rng(n), [], f"t{n}") for n in range(200)])
    assert judged({"train": train, "test": unlabelled}, split_drift_warning=0.5) == []
    rng = np.random.default_rng(1)
    videos = [mean_video(rng, [], f"t{n}") for n in range(200)]
    moved = collect([dataclasses.replace(video, rgb=np.abs(video.rgb)) for video in videos])
    only(judged({"train": train, "test": moved}), "warning", "statistics.split_drift_warning",
         "test against train: 1,024 feature dimensions")  # fmt: skip


def test_drift_against_an_earlier_run():
    train, other = drifting()
    splits, arrays = described(train=train)
    earlier = Earlier("runs/earlier", splits, arrays)
    assert judged({"train": train}, earlier=earlier) == []
    found = judged({"train": other}, earlier=earlier)
    assert [one[1] for one in found] == [
        "statistics.run_drift_error", "statistics.run_label_drift_error",
    ]  # fmt: skip
    assert all("train against runs/earlier" in one[2] for one in found)


def test_totals_and_names():
    by_split = {"train": means(), "validate": means(labels=(4, 5), seed=1)}
    findings = Findings(by_split, {}, duplicates=Duplicates({0: 2, 1: 3}, {(0, 1): 7}))
    assert totals(findings, described(**by_split)[1]) == {
        "duplicate_ids": 5, "leaked_ids": 7, "classes_unseen": 2,
    }  # fmt: skip
    assert (dimension_name(0), dimension_name(1023), dimension_name(1024)) == (
        "rgb[0]", "rgb[1023]", "audio[0]",
    )  # fmt: skip
