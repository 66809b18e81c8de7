import dataclasses

import pytest

from tests.trainer.statistics.cases import collect, described, videos_of
from trainer import records
from trainer.errors import InputError
from trainer.statistics.schema import CHECKS, Check, default_schema, infer_schema, read_schema

FOUND = {"duplicate_ids": 3, "leaked_ids": 0, "classes_unseen": 2}


@pytest.mark.parametrize("level", [records.FRAME, records.VIDEO])
def test_an_inferred_schema_is_read_again(level, tmp_path):
    splits, _ = described(train=collect(videos_of(level, 9)), validate=collect(videos_of(level, 5)))
    schema = infer_schema(level, 9, splits, FOUND)
    (tmp_path / "schema.yaml").write_text(schema.to_yaml())
    assert read_schema(tmp_path / "schema.yaml") == schema
    assert schema.splits == ("train", "validate")
    assert schema.checks["duplicate_ids"].maximum == 3
    assert schema.checks["leaked_ids"].maximum == 0
    assert ("single_frame_share" in schema.checks) == (level == records.FRAME)


def test_shares_are_widened_and_rounded_up():
    splits, _ = described(train=collect(videos_of(records.VIDEO, 9)))
    splits["train"] |= {"records": 1000, "records_without_labels": 101, "silent_audio": 900}
    splits["test"] = splits["train"] | {"records_without_labels": 1000}
    checks = infer_schema(records.VIDEO, 9, splits, {}).checks
    assert checks["unlabelled_share"].maximum == pytest.approx(0.122)
    assert checks["silent_audio_share"].maximum == 1.0
    assert checks["value_maximum"] == CHECKS["value_maximum"][0]  # the data lies within it


def test_an_edited_schema(tmp_path):
    text = default_schema(records.FRAME, 9, ["train"]).to_yaml()
    edited = "\n".join(
        "  longest_video: {minimum: 2}" if "longest_video" in line else line
        for line in text.splitlines()
        if "most_labels" not in line
    )
    (tmp_path / "schema.yaml").write_text(edited)
    schema = read_schema(tmp_path / "schema.yaml")
    assert schema.checks["longest_video"] == Check(minimum=2, maximum=None, severity="warning")
    assert "most_labels" not in schema.checks
    assert all(f"# {words}" in text for _, words in CHECKS.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("version: 1", "version: 9"), "is a schema of version 9, expected version 1"),
        (("version: 1", ""), "is a schema of version None"),
        (("level: video", "level: audio"), "level is 'audio', expected frame or video"),
        (("num_classes: 9", "num_classes: many"), "num_classes is 'many', expected a whole number"),
        (("[train]", "[train, dev]"), "expected a list of train, validate, test"),
        (("most_labels", "most_label"), "unknown entry checks.most_label, .*did you mean most_la"),
        (("severity: error", "severity: fatal"), "severity is 'fatal', expected info, warning"),
        (("maximum: 40", "maximum: x"), "checks.most_labels.maximum is 'x', expected a number"),
        (("maximum: 40", "most: 40"), "unknown entry checks.most_labels.most"),
        (("{maximum: 40, severity: warning}", "40"), "checks.most_labels is 40, expected such as"),
        (("checks:", "limits:"), "unknown entry limits"),
        (("checks:", "checks: ["), "expected YAML"),
    ],
)
def test_what_can_not_be_is_named(change, words, tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_text(default_schema(records.VIDEO, 9, ["train"]).to_yaml().replace(*change))
    with pytest.raises(InputError, match=f"schema.yaml: .*{words}"):
        read_schema(path)


def test_no_schema(tmp_path):
    with pytest.raises(InputError, match=r"schema.yaml: no such schema"):
        read_schema(tmp_path / "schema.yaml")
    (tmp_path / "s.yaml").write_text("[]")
    with pytest.raises(InputError, match="is a schema of version None"):
        read_schema(tmp_path / "s.yaml")


def test_every_check_has_a_limit():
    for check, words in CHECKS.values():
        assert words
        assert any(value is not None for value in dataclasses.astuple(check)[:2])
