"""The Beam pass, on Beam's own engine, against the same counts without Beam."""

import dataclasses

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.io.localfilesystem import LocalFileSystem

from components.statistics.beam_pass import (
    MergeStatistics,
    blocks_of,
    run_pass,
)
from components.statistics.engines import engine_options
from tests.conftest import frame_video, mean_video
from tests.trainer.statistics.cases import collect
from tests.trainer.statistics.test_feature_statistics import assert_equal
from trainer import records, tfrecord
from trainer.manifest import Manifest, Shard
from trainer.statistics.findings import BadRecord, Place


def shard_of(path, payloads, split="train"):
    count = records.write_records(path, payloads)
    return Shard(split, str(path), path.stat().st_size, "", count)


def passed(manifest, tmp_path, *arguments, covariance=False):
    bad = tmp_path / "bad.jsonl"
    findings = run_pass(manifest, engine_options(arguments), covariance, str(bad))
    assert [BadRecord.of_json(line) for line in bad.read_text().splitlines()][:100] == list(
        findings.bad.first
    )
    return findings


def without_beam(manifest, split, covariance=False):
    videos = [
        video
        for shard in manifest.split(split)
        for video in records.read_videos(shard.path, manifest.level, manifest.num_classes)
    ]
    return collect(videos, covariance, num_classes=manifest.num_classes)


def assert_right(findings, manifest, covariance=False):
    assert list(findings.by_split) == ["train", "validate"]
    for split, statistics in findings.by_split.items():
        assert_equal(statistics, without_beam(manifest, split, covariance))
        assert statistics.bytes == sum(shard.bytes for shard in manifest.split(split))
    assert findings.counted == {shard.uri: shard.records for shard in manifest.shards}


def test_it_counts_what_a_loop_counts(manifest, tmp_path):
    findings = passed(manifest, tmp_path)
    assert_right(findings, manifest)
    assert findings.bad.total == 0
    assert findings.duplicates.within == findings.duplicates.across == {}


def video_level(tmp_path, rng):
    shards = [
        shard_of(
            tmp_path / f"{split}{n}.tfrecord",
            [
                records.encode(mean_video(rng, rng.integers(0, 12, 3), f"{split}{n}{i}"))
                for i in range(30)
            ],
            split,
        )
        for split in ("train", "validate")
        for n in range(2)
    ]
    return Manifest("here", records.VIDEO, 12, tuple(shards))


def test_video_level(tmp_path, rng):
    manifest = video_level(tmp_path, rng)
    assert_right(passed(manifest, tmp_path, covariance=True), manifest, covariance=True)


def test_two_processes_count_the_same(manifest, tmp_path):
    arguments = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
    assert_right(passed(manifest, tmp_path, *arguments), manifest)


@pytest.mark.parametrize("size", [1, 3000, 20_000, 1 << 40])
def test_blocks_cover_a_shard_once(size, manifest):
    shard = manifest.shards[0]
    index = tfrecord.index_file(shard.path)
    blocks = list(blocks_of(4, shard, size))
    assert len(blocks) == {1: 10, 1 << 40: 1}.get(size, len(blocks))
    assert sum(block.count for block in blocks) == shard.records
    first = 0
    for block in blocks:
        assert (block.shard, block.first, block.offset) == (4, first, index.offsets[first])
        first += block.count
        assert block.end == (None if block is blocks[-1] else index.offsets[first])


def test_blocks_of_a_shard_are_alike(manifest):
    """A little above the size of one: two halves, not a whole one and a rest."""
    shard = manifest.shards[0]
    blocks = list(blocks_of(0, shard, shard.bytes - 1))
    assert [block.count for block in blocks] == [5, 5]


def test_blocks_of_what_is_damaged_or_remote(manifest):
    shard = manifest.shards[0]
    data = bytearray(shard.path.read_bytes())
    data[tfrecord.index_file(shard.path).offsets[4]] ^= 1  # the length of record 4
    shard.path.write_bytes(data)
    blocks = list(blocks_of(0, shard, 1))
    assert [block.first for block in blocks] == [0, 1, 2, 3, 4][: len(blocks)]
    assert sum(block.count for block in blocks) == shard.records
    assert blocks[-1].end is None
    for uri in ("gs://bucket/shard.tfrecord", "/absent/shard.tfrecord"):
        (block,) = blocks_of(0, dataclasses.replace(shard, uri=uri, bytes=1 << 40))
        assert (block.first, block.count, block.end) == (0, shard.records, None)


def test_the_combiner_merges_and_spares_its_inputs(rng):
    combine = MergeStatistics(records.VIDEO, 9)
    parts = [collect([mean_video(rng) for _ in range(n)]) for n in (2, 3, 4)]
    one = combine.add_input(combine.create_accumulator(), parts[0])
    two = combine.add_input(combine.add_input(combine.create_accumulator(), parts[1]), parts[2])
    merged = combine.extract_output(combine.merge_accumulators([one, two]))
    assert merged.records == 9
    assert [part.records for part in parts] == [2, 3, 4]


def test_bad_records_are_passed_over_and_named(manifest, tmp_path, rng):
    """One of each kind in a shard of ten; the nine others count."""
    shards = list(manifest.shards)
    good = [record.payload for record in records.read_records(shards[0].path)]
    wrong = {
        2: (b"garbage", "neither a SequenceExample nor an Example"),
        4: (records.encode(frame_video(rng, labels=[12])), "label 12 is out of range"),
        5: (records.encode(mean_video(rng)), "is video-level, expected frame-level"),
        9: (b"", "has no feature list rgb"),
    }
    payloads = [wrong[i][0] if i in wrong else payload for i, payload in enumerate(good)]
    records.write_records(shards[0].path, payloads)
    offsets = tfrecord.index_file(shards[0].path).offsets
    data = bytearray(shards[0].path.read_bytes())
    data[int(offsets[7]) + 20] ^= 4
    shards[0].path.write_bytes(data)
    wrong[7] = (b"", "the checksum of its")
    findings = passed(manifest, tmp_path)
    assert findings.bad.lost == {shards[0].split: 5}
    assert findings.bad.by_shard == {shards[0].uri: 5}
    assert findings.counted[shards[0].uri] == shards[0].records - 5
    for found, (number, (_, reason)) in zip(findings.bad.first, sorted(wrong.items()), strict=True):
        assert (found.uri, found.record) == (shards[0].uri, number)
        assert found.offset == offsets[number]
        assert reason in found.reason
        assert found.lost == 1
    counted = findings.by_split[shards[0].split].records
    assert counted == manifest.records(shards[0].split) - 5


def test_lost_shards_count_by_the_manifest(manifest, tmp_path):
    """Cut off, absent, empty, no shard at all: what can not be found is lost, no more, no less."""
    cut, absent, empty, page, *_ = (shard for shard in manifest.shards if shard.records == 10)
    os_size = int(tfrecord.index_file(cut.path).offsets[6]) + 5
    cut.path.write_bytes(cut.path.read_bytes()[:os_size])
    absent.path.unlink()
    empty.path.write_bytes(b"")
    page.path.write_text("<html>a page, not a shard</html>")
    findings = passed(manifest, tmp_path)
    by_uri = {one.uri: (one.record, one.lost, one.reason) for one in findings.bad.first}
    assert by_uri[cut.uri][:2] == (6, 4)
    assert by_uri[absent.uri] == (0, 10, "no such file")
    assert by_uri[empty.uri][:2] == (0, 10)
    assert by_uri[page.uri][2].startswith("is no TFRecord file")
    assert findings.bad.total == 34
    counted = sum(one.records for one in findings.by_split.values())
    assert counted + 34 == sum(shard.records for shard in manifest.shards)


def test_values_that_are_no_numbers(tmp_path, rng):
    payloads = [records.encode(mean_video(rng, video_id=f"v{i}")) for i in range(4)]
    video = mean_video(rng)
    rgb = video.rgb.copy()
    rgb[[3, 7]] = np.nan
    payloads.append(records.encode(dataclasses.replace(video, rgb=rgb)))
    manifest = Manifest("h", records.VIDEO, 9, (shard_of(tmp_path / "t.tfrecord", payloads),))
    findings = passed(manifest, tmp_path)
    statistics = findings.by_split["train"]
    assert np.flatnonzero(statistics.non_finite).tolist() == [3, 7]
    assert statistics.records == 4
    assert "not finite" in findings.bad.first[0].reason


def test_ids_that_meet_again(manifest, tmp_path, monkeypatch):
    """Within and across splits, whatever the number of partitions."""
    monkeypatch.setattr("components.statistics.beam_pass.IDS_A_PARTITION", 7)
    train, validate = manifest.split("train"), manifest.split("validate")
    first = [record.payload for record in records.read_records(train[0].path)]
    other = [record.payload for record in records.read_records(train[1].path)]
    records.write_records(train[1].path, [first[4], *other[1:]])
    held = [record.payload for record in records.read_records(validate[0].path)]
    records.write_records(validate[0].path, [*held[:5], first[4], other[3], *held[7:]])
    duplicates = passed(manifest, tmp_path).duplicates
    assert duplicates.within == {0: 1}
    assert duplicates.across == {(0, 1): 2}
    numbers = [manifest.shards.index(shard) for shard in (train[0], train[1], validate[0])]
    places = [places for _, places in duplicates.first]
    assert (Place(0, numbers[0], 4), Place(0, numbers[1], 0), Place(1, numbers[2], 5)) in places
    assert (Place(0, numbers[1], 3), Place(1, numbers[2], 6)) in places


def test_the_real_frame_level_record(real_data, tmp_path):
    """170 frames, label 11."""
    path = real_data / "frame" / "SjJ3.tfrecord"
    shard = Shard("train", str(path), path.stat().st_size, "", 1)
    findings = passed(Manifest("real", "frame", 3862, (shard,)), tmp_path)
    statistics = findings.by_split["train"]
    assert np.flatnonzero(statistics.frames).tolist() == [170]
    assert np.flatnonzero(statistics.labels.classes).tolist() == [11]
    assert statistics.features.histogram.sum() == 170 * 1152


def test_segments_are_counted(tmp_path, rng):
    segments = records.Segments(np.array([0, 5]), np.array([1, 2]), np.array([1, 0], np.float32))
    video = dataclasses.replace(frame_video(rng, 12), segments=segments)
    manifest = Manifest(
        "h", records.FRAME, 9, (shard_of(tmp_path / "t.tfrecord", [records.encode(video)] * 3),)
    )
    findings = passed(manifest, tmp_path)
    ratings = findings.by_split["train"].ratings
    assert ratings[1].tolist() == [0, 3]
    assert ratings[2].tolist() == [3, 0]
    assert ratings.sum() == 6
    assert findings.duplicates.within == {0: 2}


def test_the_transform_is_one_to_pipe(manifest):
    """In a pipeline of one's own."""
    from apache_beam.testing.util import assert_that, equal_to

    from components.statistics.beam_pass import ComputeStatistics

    with beam.Pipeline(options=engine_options([])) as pipeline:
        found = (
            pipeline
            | beam.Create(range(len(manifest.shards)))
            | ComputeStatistics(manifest, covariance=False)
        )
        counts = found["statistics"] | beam.MapTuple(lambda split, one: (split, one.records))
        assert_that(counts, equal_to([("train", 48), ("validate", 20)]))


def test_results_by_a_place_that_workers_share(manifest, tmp_path):
    """As on other machines; nothing stays there."""
    shared = tmp_path / "shared"
    shared.mkdir()
    assert_right(passed(manifest, tmp_path, f"--temp_location={shared}"), manifest)
    assert list(shared.iterdir()) == []


def test_workers_that_write_elsewhere_are_noticed(manifest, tmp_path, monkeypatch):
    from trainer.errors import InputError

    monkeypatch.setattr("components.statistics.results._written_files", lambda *_: iter(()))
    with pytest.raises(InputError, match=r"workers left nothing in .*; give --temp_location"):
        passed(manifest, tmp_path)


def test_a_shard_that_can_not_be_read(manifest, tmp_path):
    shard = manifest.shards[0]
    shard.path.unlink()
    shard.path.mkdir()
    findings = passed(manifest, tmp_path)
    assert findings.bad.first[0].reason == "can not be opened: Is a directory"
    assert findings.bad.total == shard.records


def test_ids_of_a_block_are_one_element_a_partition(manifest):
    from components.statistics.beam_pass import IDS, CollectBlocks

    collect = CollectBlocks(manifest, covariance=False)
    collect.setup()
    collect.start_bundle()
    (block,) = blocks_of(0, manifest.shards[0])
    found = [one for one in collect.process(block) if getattr(one, "tag", "") == IDS]
    assert len(found) == 1
    assert len(found[0].value[1].ids) == manifest.shards[0].records


class Elsewhere(LocalFileSystem):
    """This machine's files by a scheme of their own, as a bucket's are."""

    @classmethod
    def scheme(cls):
        return "elsewhere"

    def open(self, path, *arguments, **options):
        return super().open(path.removeprefix("elsewhere:/"), *arguments, **options)

    def exists(self, path):
        return super().exists(path.removeprefix("elsewhere:/"))

    def size(self, path):
        return super().size(path.removeprefix("elsewhere:/"))


def test_shards_by_beams_file_systems(manifest, tmp_path):
    """Whatever stands in a name: it is one, and no pattern."""
    shards = list(manifest.shards)
    odd = tmp_path / "a[1]*.tfrecord"
    shards[0].path.rename(odd)
    shards[0] = dataclasses.replace(shards[0], uri=str(odd))
    there = dataclasses.replace(manifest, shards=tuple(shards))
    remote = dataclasses.replace(
        there, shards=tuple(dataclasses.replace(s, uri=f"elsewhere:/{s.uri}") for s in shards)
    )
    findings = passed(remote, tmp_path)
    assert findings.bad.total == 0
    for split, statistics in findings.by_split.items():
        assert_equal(statistics, without_beam(there, split))
    shards[1].path.unlink()
    (bad,) = passed(remote, tmp_path).bad.first
    assert (bad.uri, bad.reason) == (remote.shards[1].uri, "no such file")


def test_any_number_of_bad_records_is_put_in_order(manifest, tmp_path, monkeypatch):
    """More than are kept in memory at once."""
    monkeypatch.setattr("components.statistics.results._IN_MEMORY", 4)
    for shard in manifest.shards:
        records.write_records(shard.path, [b"garbage"] * shard.records)
    passed(manifest, tmp_path)
    lines = (tmp_path / "bad.jsonl").read_text().splitlines()
    found = [BadRecord.of_json(line) for line in lines]
    assert found == sorted(found)
    assert len(found) == len(set(found)) == sum(shard.records for shard in manifest.shards)
