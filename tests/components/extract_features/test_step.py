"""Videos to records, whole: the same bytes whoever makes them, nothing lost when it ends early."""

import dataclasses
import errno
import json
import shutil

import numpy as np
import pytest

from components.extract_features import beam_pass, step
from components.extract_features.decoder_process import Limits
from components.extract_features.features import Pace
from components.extract_features.networks import NetworkSource
from components.extract_features.step import run_extract
from components.extract_features.work_folder import WorkFolder
from tests.components.extract_features.conftest import CLASSES, NETWORKS, request_of
from trainer.errors import InputError
from trainer.feature_networks.feature_extractor import read_feature_extractor
from trainer.manifest import read_manifest
from trainer.records import quantise, read_videos
from trainer.statistics.covariance import principal_components

pytestmark = pytest.mark.usefixtures("quick")


def files_of(folder, names=("*.tfrecord", "*.npz", "vocabulary.csv", "failed.jsonl")):
    found = sorted(path for name in names for path in folder.rglob(name))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_records_are_those_of_the_videos(listed, clips, tmp_path):
    place, summary = run_extract(request_of(listed), tmp_path / "out")
    assert summary["videos"] == 9
    assert summary["failed"] == 0
    assert summary["silent"] == 3
    assert summary["frames"] == 3 * (2 + 3 + 4)
    manifest = read_manifest(place)
    assert manifest.num_classes == 4
    assert manifest.read_vocabulary().names == ("blue", "green", "red", "thing")
    assert manifest.records("train") + manifest.records("validate") == 9
    assert manifest.features_mark == "random weights (seed 3)"
    seen = {}
    for shard in manifest.shards:
        for video in read_videos(shard.uri, "frame", 4):
            seen[video.video_id] = video, shard.split
    assert seen.keys() == {f"{name}{n}" for name in CLASSES for n in range(3)}
    video, _ = seen["green2"]
    assert video.labels.tolist() == [1, 3]
    assert video.silent
    assert video.mark == "random weights (seed 3)"
    assert video.extractor == summary["feature_extractor"] == read_feature_extractor(place).digest
    assert video.num_frames == 4
    assert not seen["green1"][0].silent
    facts = [json.loads(line) for line in (place / "videos.jsonl").read_text().splitlines()]
    assert {one["id"] for one in facts} == seen.keys()
    assert facts[0]["codec"] == "h264"
    assert not (tmp_path / ".out.work").exists()


def test_the_pca_is_of_the_videos_to_train_on(listed, tmp_path, monkeypatch):
    raw = {}
    monkeypatch.setattr(
        beam_pass, "write_features",
        lambda work, job, found, write=beam_pass.write_features: (
            raw.__setitem__(job.uri, found), write(work, job, found),
        ),
    )  # fmt: skip
    place, _ = run_extract(request_of(listed), tmp_path / "out")
    facts = [json.loads(line) for line in (place / "videos.jsonl").read_text().splitlines()]
    train = [one for one in facts if one["split"] == "train"]
    assert len(train) < len(facts)
    rows = np.concatenate([raw[one["video"]].rgb for one in train]).astype(np.float64)
    extractor = read_feature_extractor(place)
    np.testing.assert_allclose(extractor.rgb.mean, rows.mean(axis=0), atol=1e-12)
    pca = principal_components(rows.mean(axis=0), np.cov(rows.T, bias=True))
    rank = extractor.rgb.rank
    assert 0 < rank < len(rows)
    np.testing.assert_allclose(
        extractor.rgb.eigenvalues[:rank], pca.eigenvalues[:rank], rtol=1e-6, atol=1e-9
    )
    one = facts[0]
    (video,) = [
        video for video in read_videos(str(place / one["shard"]), "frame", 4)
        if video.video_id == one["id"]
    ]  # fmt: skip
    centred = raw[one["video"]].rgb.astype(np.float64) - extractor.rgb.mean
    np.testing.assert_array_equal(video.rgb, quantise(centred @ extractor.rgb.matrix.T))
    assert extractor.rgb.source.startswith(f"fitted on {len(rows):,} frames of {len(train)} videos")


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"pace": Pace(1, 1)}, {"pace": Pace(64, 3)}])
def test_the_pace_changes_no_byte(listed, tmp_path, change):
    first, _ = run_extract(request_of(listed), tmp_path / "a")
    second, _ = run_extract(dataclasses.replace(request_of(listed), **change), tmp_path / "b")
    assert files_of(first) == files_of(second)


@pytest.mark.slow
def test_it_goes_on_with_what_was_done(listed, tmp_path, monkeypatch, capsys):
    expected = files_of(run_extract(request_of(listed), tmp_path / "a")[0])
    asked = []

    real = beam_pass.features_of

    def dying(paths, *rest):
        for place, one in enumerate(real(paths, *rest)):
            if place == 5:
                raise RuntimeError("killed")
            yield one

    monkeypatch.setattr(beam_pass, "features_of", dying)
    with pytest.raises(RuntimeError, match="killed"):
        run_extract(request_of(listed), tmp_path / "b")
    assert not (tmp_path / "b").exists()

    def counting(paths, *rest):
        asked.extend(paths)
        return real(paths, *rest)

    monkeypatch.setattr(beam_pass, "features_of", counting)
    capsys.readouterr()
    place, _ = run_extract(request_of(listed), tmp_path / "b")
    assert "5 of 9 videos were done before" in capsys.readouterr().out
    assert len(asked) == 4
    assert files_of(place) == expected


@pytest.mark.slow
def test_a_changed_video_is_done_again(listed, clips, tmp_path, capsys):
    work = str(tmp_path / "work")
    run_extract(request_of(listed, work=work), tmp_path / "a")
    capsys.readouterr()
    run_extract(request_of(listed, work=work), tmp_path / "b")
    assert "9 of 9 videos were done before" in capsys.readouterr().out
    other = shutil.copytree(clips, tmp_path / "videos")
    rows = listed.read_text().replace(str(clips), str(other))
    listed.write_text(rows)
    run_extract(request_of(listed, work=work), tmp_path / "c")
    assert "done before" not in capsys.readouterr().out


def test_what_fails_is_a_dead_letter(listed, clips, tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"")
    listed.write_text(f"{listed.read_text()}bad.mp4,red\nabsent.mp4,blue\n")
    place, summary = run_extract(request_of(listed), tmp_path / "out")
    assert summary["failed"] == 2
    assert summary["videos"] == 9
    failed = [json.loads(line) for line in (place / "failed.jsonl").read_text().splitlines()]
    assert failed == [
        {"video": str(tmp_path / "bad.mp4"), "reason": "is empty"},
        {"video": str(tmp_path / "absent.mp4"), "reason": "no such file"},
    ]
    assert f"[extract] failed: {tmp_path / 'bad.mp4'}: is empty" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"2 of the 11 videos .* max_failed, 0\.1"):
        run_extract(request_of(listed, max_failed=0.1), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    letters = (tmp_path / "other.failed.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in letters] == failed


def test_a_full_disk_is_one_line(listed, tmp_path, monkeypatch, caplog):
    def full(self, name, *rest):
        path = str(self.path / name)
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(WorkFolder, "write", full)
    with pytest.raises(InputError, match=r"^/.*\.npz: No space left on device$"):
        run_extract(request_of(listed), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not caplog.records


def test_nothing_is_written_where_no_video_has_features(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 1 videos .*bad\.mp4: is empty"):
        run_extract(request_of(tmp_path / "bad.mp4"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_later_videos_get_the_earlier_pca(listed, clips, tmp_path):
    first, _ = run_extract(request_of(listed), tmp_path / "a")
    one = sorted(clips.glob("*.mp4"))[0]
    again, _ = run_extract(request_of(one, extractor=str(first)), tmp_path / "b")
    assert files_of(first, ["*.npz"]) == files_of(again, ["*.npz"])
    (shard,) = read_manifest(again).shards
    assert read_manifest(again).num_classes == 4
    (video,) = read_videos(shard.uri, "frame", 4)
    (before,) = [
        same for shard in read_manifest(first).shards
        for same in read_videos(shard.uri, "frame", 4) if same.video_id == one.stem
    ]  # fmt: skip
    np.testing.assert_array_equal(video.rgb, before.rgb)
    np.testing.assert_array_equal(video.audio, before.audio)


def test_an_extractor_brings_its_networks(listed, clips, tmp_path):
    first, _ = run_extract(request_of(listed), tmp_path / "a")
    one = sorted(clips.glob("*.mp4"))[0]
    plain = dataclasses.replace(request_of(one, extractor=str(first)), source=None)
    assert run_extract(plain, tmp_path / "b")[1]["features_mark"] == "random weights (seed 3)"
    other = dataclasses.replace(plain, source=NetworkSource("random", "absent", 4))
    with pytest.raises(InputError, match=r"features is random \(seed 4\), those of .* \(seed 3\)"):
        run_extract(other, tmp_path / "c")


def test_other_weights_than_the_extractors_are_refused(listed, tmp_path, monkeypatch):
    first, _ = run_extract(request_of(listed), tmp_path / "a")
    rgb = type("Other", (type(NETWORKS.rgb),), {"digest": "e" * 32})()
    other = dataclasses.replace(NETWORKS, rgb=rgb)
    monkeypatch.setattr(step, "load_networks", lambda source: other)
    with pytest.raises(InputError, match=r"its features of frames .* found inception-v3-random"):
        run_extract(request_of(listed, extractor=str(first)), tmp_path / "b")


@pytest.mark.slow
def test_by_content_nothing_is_written_twice(listed, tmp_path, capsys):
    request = request_of(listed, by_content=True, work=str(tmp_path / "work"))
    first, summary = run_extract(request, tmp_path / "all")
    times = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    capsys.readouterr()
    assert run_extract(request, tmp_path / "all") == (first, summary)
    assert "nothing changed" in capsys.readouterr().out
    again = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert {path for path in times if again[path] != times[path]} == {first / "summary.json"}
    listed.write_text(listed.read_text().replace("red", "pink", 1))
    second, _ = run_extract(request, tmp_path / "all")
    assert second != first
    assert first.is_dir()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limits": Limits(frames=361)}, "frames is 361, expected at most 360"),
        ({"workers": 0}, "workers is 0, expected at least 1"),
        ({"pace": Pace(0, 1)}, "batch_size is 0"),
        ({"max_failed": 2.0}, "max_failed is 2.0, expected 0 to 1"),
        ({"workers": 2, "beam_arguments": ["--x"]}, "workers is of Beam's own engine"),
        ({"extractor": "absent"}, "absent: no such file"),
        ({"validate_share": 1.0}, "validate_share is 1.0"),
    ],
)
def test_what_can_not_be(change, words, listed, tmp_path):
    with pytest.raises(InputError) as raised:
        run_extract(dataclasses.replace(request_of(listed), **change), tmp_path / "out")
    assert words in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_is_there_is_not_replaced(listed, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").touch()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="mine: "):
            run_extract(request_of(listed, overwrite=overwrite), tmp_path / "mine")
    place, _ = run_extract(request_of(listed), tmp_path / "out")
    with pytest.raises(InputError, match="out: exists"):
        run_extract(request_of(listed), place)
    run_extract(request_of(listed, overwrite=True), place)


def test_videos_of_a_bucket(clips, tmp_path, bucket):
    for path in sorted(clips.glob("red*.mp4")):
        bucket.blob(f"videos/{path.name}").upload_from_filename(str(path))
    bucket.blob("videos/empty.mp4").upload_from_string(b"")
    here, _ = run_extract(request_of(clips / "red0.mp4"), tmp_path / "one")
    place, summary = run_extract(
        request_of("gs://data/videos", extractor=str(here), work="gs://data/work"), tmp_path / "out"
    )
    assert (summary["videos"], summary["failed"]) == (3, 1)
    (failed,) = (place / "failed.jsonl").read_text().splitlines()
    assert json.loads(failed) == {"video": "gs://data/videos/empty.mp4", "reason": "is empty"}
