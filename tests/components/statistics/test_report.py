"""The page as text, and in a real browser."""

import dataclasses
import re

import pytest

from components.statistics.report import statistics_page
from components.statistics.step import run_statistics
from tests.browser import WIDTHS, look, needs_browser
from tests.conftest import mean_video
from trainer import records
from trainer.config import StatisticsConfig
from trainer.errors import InputError
from trainer.manifest import Manifest, Shard
from trainer.statistics import read_statistics


@pytest.fixture
def spoiled(manifest, tmp_path):
    """A page of data with everything the matter: a bad record, a leak, drift."""
    path = manifest.shards[1].path
    payloads = [record.payload for record in records.read_records(path)]
    records.write_records(path, [*payloads[:3], b"garbage<script>", *payloads[4:]])
    leaked = next(iter(records.read_records(manifest.split("train")[0].path))).payload
    path = manifest.split("validate")[0].path
    payloads = [record.payload for record in records.read_records(path)]
    records.write_records(path, [leaked, *payloads[1:]])
    manifest.write(tmp_path / "manifest.json")
    with pytest.raises(InputError, match="the data did not pass"):
        run_statistics(str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [])
    return tmp_path / "r.html"


def test_what_is_wrong_comes_first_with_its_place(spoiled, manifest):
    html = spoiled.read_text()
    titles = re.findall(r"<h2>([^<]+)</h2>", html)
    assert titles[:3] == ["Result", "Bad records", "Ids that occur twice"]
    assert "Did not pass: 2 errors" in html
    assert manifest.shards[1].uri in html
    assert "neither a SequenceExample nor an Example" in html
    assert "1 in train and validate" in html
    assert "<script>" not in html


def test_names_stand_for_classes(manifest, tmp_path):
    manifest.write(tmp_path / "manifest.json")
    run_statistics(str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [])
    html = (tmp_path / "r.html").read_text()
    assert manifest.read_vocabulary().names[0].replace("&", "&amp;") in html
    assert "Passed: 0 errors" in html
    assert "Drift: validate against train" in html
    assert "Bad records" not in html


@pytest.mark.slow
def test_drift_against_an_earlier_run_is_drawn(manifest, tmp_path):
    manifest.write(tmp_path / "manifest.json")
    run_statistics(str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [])
    config = StatisticsConfig(baseline=str(tmp_path / "s"))
    run_statistics(str(tmp_path), str(tmp_path / "t"), str(tmp_path / "r.html"), [], config)
    html = (tmp_path / "r.html").read_text()
    for split in ("train", "validate"):
        assert f"Drift: {split} against {tmp_path / 's'}" in html


def test_a_test_split_without_labels_has_only_its_features_compared(manifest, tmp_path):
    held = manifest.split("validate")
    shards = (*manifest.split("train"), *(dataclasses.replace(s, split="test") for s in held))
    for shard in held:
        videos = records.read_videos(shard.path, manifest.level, manifest.num_classes)
        payloads = [records.encode(dataclasses.replace(v, labels=v.labels[:0])) for v in videos]
        records.write_records(shard.path, payloads)
    dataclasses.replace(manifest, shards=shards).write(tmp_path / "manifest.json")
    run_statistics(str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [])
    html = (tmp_path / "r.html").read_text()
    section = html.partition("Drift: test against train")[2]
    assert "Dimensions that differ most" in section
    assert "change of share" not in section


def test_a_page_of_video_level_without_train(tmp_path, rng):
    path = tmp_path / "validate0.tfrecord"
    count = records.write_records(
        path, (records.encode(mean_video(rng, [i % 3], f"v{i}")) for i in range(9))
    )
    shard = Shard("validate", str(path), path.stat().st_size, "", count)
    manifest = Manifest("here", records.VIDEO, 5, (shard,))
    manifest.write(tmp_path / "manifest.json")
    run_statistics(str(tmp_path), str(tmp_path / "s"), str(tmp_path / "r.html"), [],
                   StatisticsConfig())  # fmt: skip
    statistics = read_statistics(tmp_path / "s")
    html = statistics_page(manifest, statistics)
    assert html == (tmp_path / "r.html").read_text()
    assert "over the validate split" in html
    assert "2 of 5 classes have no example in validate: " in html
    assert "Drift" not in html
    # No label at all: the curve of the classes is empty, and the page whole.
    arrays = {k: v * 0 if k.endswith("/labels") else v for k, v in statistics.arrays.items()}
    assert "5 of 5 classes" in statistics_page(
        manifest, dataclasses.replace(statistics, arrays=arrays)
    )


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_it_whole_and_loads_nothing(spoiled, width, dark, tmp_path):
    seen = look(spoiled, width, tmp_path, dark)
    assert seen.width <= seen.window
    assert seen.resources == 0
    assert seen.drawings == 7
    assert seen.dark == dark
    assert seen.ink == ("rgb(231, 233, 236)" if dark else "rgb(29, 33, 39)")
    assert not seen.complaints
