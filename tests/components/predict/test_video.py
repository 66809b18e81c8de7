"""From a video file to labels, a timeline, a page and a record: all of them or none."""

import json
import shutil

import numpy as np
import pytest

from components.predict.__main__ import main
from components.predict.step import Request, run_predict
from components.predict.video import VideoRequest, run_video, video_level
from tests.components.predict.own_video import (
    SEED,
    change,
    fake_extractor,
    loaded,
    model_of_own_videos,
    record_in,
)
from trainer.errors import InputError

FILES = ["prediction.json", "timeline.html", "video.tfrecord"]


def test_labels_timeline_and_record_are_the_model_s(own_folder, clip, cheap, tmp_path, capsys):
    request = VideoRequest(str(clip), str(own_folder), top_k=4)
    found = run_video(request, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert json.loads((tmp_path / "out" / "prediction.json").read_text()) == found
    # The extractor's own networks were asked, and its projections made the codes.
    assert [(one.features, one.seed) for one in cheap] == [("random", SEED)]
    record = record_in(tmp_path / "out")
    assert (record.video_id, record.num_frames, record.silent) == ("clip", 11, False)
    assert record.mark == f"random weights (seed {SEED})"
    assert len(np.unique(record.rgb)) > 20
    model = loaded(str(own_folder))
    (labels,) = model.answer([record]).cut(4).rows()
    assert [one["class"] for one in found["labels"]] == [one["class"] for one in labels]
    np.testing.assert_allclose(
        [one["score"] for one in found["labels"]], [one["score"] for one in labels], rtol=1e-5
    )
    starts, answer = model.timeline(record)
    # The model's windows: five seconds, every three.
    assert [(one["start"], one["end"]) for one in found["timeline"]] == [
        (0, 5), (3, 8), (6, 11), (9, 11),
    ]  # fmt: skip
    assert starts.tolist() == [0, 3, 6, 9]
    for one, row in zip(found["timeline"], answer.cut(4).rows(), strict=True):
        assert [c["name"] for c in one["classes"]] == [c["name"] for c in row]
    facts = found["facts"]
    assert (facts["width"], facts["height"], facts["frames"]) == (64, 48, 11)
    assert (facts["codec"], facts["audio_codec"], facts["bytes"]) == (
        "h264", "aac", clip.stat().st_size,
    )  # fmt: skip
    assert len(found["model"]["digest"]) == 32
    output = capsys.readouterr().out
    assert "THESE LABELS MEAN NOTHING" in output
    assert "\n0:03 – 0:08  näme " in output
    assert max(map(len, output.partition("\n\n")[2].splitlines()[:-4])) <= 100
    assert "11/11 frames" in output


def test_a_video_level_model_gives_labels_alone(
    video_folder, own_folder, clip, cheap, tmp_path, capsys
):
    folder = model_of_own_videos(video_folder, tmp_path / "model", fake_extractor())
    found = run_video(VideoRequest(str(clip), str(folder)), tmp_path / "out")
    assert found["timeline"] is None
    means = record_in(tmp_path / "out")
    run_video(VideoRequest(str(clip), str(own_folder)), tmp_path / "frames")
    frames = record_in(tmp_path / "frames")
    for name in ("rgb", "audio"):
        codes = getattr(frames, name)
        slow = [sum(float(q) * 4 / 255 + 4 / 512 - 2 for q in column) / 11 for column in codes.T]
        np.testing.assert_allclose(getattr(means, name), slow, rtol=1e-5, atol=1e-6)
    page = (tmp_path / "out" / "timeline.html").read_text()
    assert "There is no timeline: this model takes video-level records" in page
    assert page.count('src="data:image/jpeg;base64,') == 3
    with pytest.raises(InputError, match="gives no timeline"):
        run_video(VideoRequest(str(clip), str(folder), segments=True), tmp_path / "no")
    assert video_level(frames).level == "video"


@pytest.mark.slow
def test_random_networks_for_real(frame_folder, silent, tmp_path, capsys):
    shutil.copytree(frame_folder, tmp_path / "model")
    change(tmp_path / "model", data_source="sample")
    main(["--video", str(silent), "--model", str(tmp_path / "model"), "--random-weights",
          "--output", str(tmp_path / "o")])  # fmt: skip
    found = json.loads((tmp_path / "o" / "prediction.json").read_text())
    mark = "random weights (seed 0)"
    assert found["meaningless"] == f"the video's features come from networks with {mark}"
    assert found["extractor"]["rgb"]["network"] == "inception-v3-random"
    assert found["extractor"]["rgb"]["projection"] == "fitted on 4 frames of this one video"
    assert found["notes"] == ["The video has no sound: the model is given silence."]
    assert "These labels mean nothing" in (tmp_path / "o" / "timeline.html").read_text()
    assert "THESE LABELS MEAN NOTHING" in capsys.readouterr().out
    record = record_in(tmp_path / "o")
    assert (record.silent, record.mark) == (True, mark)
    # Of four frames a PCA has three directions; what it lacks is 0, whose code is 128.
    assert ((record.rgb != 128).any(axis=0)).sum() == 3


def test_the_record_is_what_data_takes(own_folder, silent, cheap, tmp_path):
    found = run_video(VideoRequest(str(silent), str(own_folder)), tmp_path / "o")
    request = Request(model=str(own_folder), data=str(tmp_path / "o" / "video.tfrecord"))
    run_predict(request, tmp_path / "again")
    (line,) = (tmp_path / "again" / "predictions.jsonl").read_text().splitlines()
    again = json.loads(line)
    assert (again["id"], again["classes"]) == ("silent", found["labels"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.mp4", None, "no such file"),
        ("text.mp4", b"not a video" * 9, "its 99 bytes are no video that FFmpeg opens"),
        ("empty.mp4", b"", "is empty"),
    ],
)
def test_no_video_is_one_line(
    name, content, words, own_folder, cheap, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as ended:
        main(["--video", name, "--model", str(own_folder), "--output", "p/out"])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {name}: {words}")
    assert sorted(tmp_path.iterdir()) == before


def test_an_output_that_is_there(own_folder, silent, cheap, tmp_path):
    request = VideoRequest(str(silent), str(own_folder))
    run_video(request, tmp_path / "out")
    with pytest.raises(InputError, match="out: exists; give another --output, or --overwrite"):
        run_video(request, tmp_path / "out")
    again = VideoRequest(str(silent), str(own_folder), overwrite=True)
    run_video(again, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").touch()
    with pytest.raises(InputError, match=r"mine: has no prediction\.json, so it is no folder of a"):
        run_video(again, tmp_path / "mine")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--video=v", "--data", "x", "--workers=2"], "--data, --workers: of shards, found beside"),
        (["--video=v", "--split", "test"], "--split: of shards, found beside --video"),
        (["--video=v", "--engine", "beam"], "--engine: of shards"),
        (["--video=v", "--skip-damaged", "--batch-size=2"], "--skip-damaged, --batch-size: of sh"),
        (["--video=v", "--", "--runner=Flink"], "--runner=Flink: Beam's options are of shards"),
        (["--weights", "w"], "--weights: of --video, not given"),
        (["--random-weights", "--seed=1"], "--random-weights, --seed: of --video, not given"),
        (["--accept-damaged"], "--accept-damaged: of --video, not given"),
        (["--vidoe", "v"], "did you mean --video?"),
    ],
)
def test_flags_of_the_other_kind_are_refused(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not list(tmp_path.iterdir())
