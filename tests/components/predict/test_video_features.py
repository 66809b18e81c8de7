"""Which networks make the features, of what, and what is refused."""

import os
import shutil

import numpy as np
import pytest

from components.predict import video_features
from components.predict.video import VideoRequest, run_video
from components.predict.video_features import id_of
from tests.components.extract_features.clips import even, write_clip
from tests.components.predict.own_video import (
    NETWORKS,
    change,
    fake_extractor,
    model_of_own_videos,
    other_weights,
    record_in,
)
from trainer.errors import InputError
from trainer.manifest import Manifest


def test_features_are_the_networks_of_the_frames(own_folder, clip, cheap, tmp_path, monkeypatch):
    given, outputs = [], []

    def watched(frames):
        given.append(frames)
        outputs.append(NETWORKS.rgb.__class__.__call__(NETWORKS.rgb, frames))
        return outputs[-1]

    for name in ("name", "digest", "half_pixel_centers"):
        setattr(watched, name, getattr(NETWORKS.rgb, name))
    networks = type(NETWORKS)(watched, NETWORKS.audio)
    monkeypatch.setattr(video_features, "load_networks", lambda _: networks)
    run_video(VideoRequest(str(clip), str(own_folder)), tmp_path / "out")
    assert np.concatenate(given).shape == (11, 299, 299, 3)
    features = np.concatenate(outputs).astype(np.float64) @ fake_extractor().rgb.matrix.T
    codes = np.rint((np.clip(features, -2, 2) + 2) * 255 / 4)
    found = record_in(tmp_path / "out").rgb.astype(np.float64)
    assert (found != codes).mean() < 0.001  # where half a code is rounded, the order of sums counts
    assert np.abs(found - codes).max() <= 1


@pytest.mark.parametrize("is_older", [False, True])
def test_the_sample_s_model_knows_nothing_of_videos(is_older, frame_folder, silent, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(frame_folder, run / "serving_model")
    if is_older:  # its run says what the export does not
        Manifest("sample", "frame", 12, ()).write(run / "examples" / "manifest.json")
    else:
        change(run / "serving_model", data_source="sample")
    with pytest.raises(InputError) as raised:
        run_video(VideoRequest(str(silent), str(run / "serving_model")), tmp_path / "out")
    line = str(raised.value)
    assert line.startswith(f"{run}/serving_model: was trained on the built-in sample, whose feat")
    assert line.endswith("or --random-weights to see how it goes")
    assert not (tmp_path / "out").exists()


def test_other_data_s_model_wants_youtube_8m_s_networks(frame_folder, silent, tmp_path):
    request = VideoRequest(str(silent), str(frame_folder), weights=str(tmp_path / "weights"))
    with pytest.raises(InputError, match="weights/vggish_model"):
        run_video(request, tmp_path / "out")


def test_networks_must_be_the_model_s(frame_folder, own_folder, silent, cheap, tmp_path):
    kept = fake_extractor()
    other = model_of_own_videos(frame_folder, tmp_path / "other", other_weights(kept))

    def refused(folder, words, **more):
        with pytest.raises(InputError, match=words):
            run_video(VideoRequest(str(silent), str(folder), **more), tmp_path / "out")

    refused(other, r"its features of frames are of the network .* weights bbbb.*, found .* ffff")
    change(other, feature_extractor="0" * 32)
    refused(other, r"feature_extractor\.npz: has the digest .*, expected 0000")
    (other / "feature_extractor.npz").unlink()
    refused(other, r"feature_extractor\.npz: no such file")
    refused(own_folder, "seed is 5, expected 3", random_weights=True, seed=5)
    refused(own_folder, "seed is of --random-weights", seed=3)
    assert not (tmp_path / "out").exists()


def test_what_decodes_of_a_damaged_file(own_folder, clip, cheap, tmp_path):
    cut = tmp_path / "cut.mkv"
    write_clip(cut, even(2, 12), gop=4)
    content = cut.read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3])
    request = VideoRequest(str(cut), str(own_folder))
    with pytest.raises(InputError, match=r"cut\.mkv: "):
        run_video(request, tmp_path / "out")
    request = VideoRequest(str(cut), str(own_folder), accept_damaged=True)
    found = run_video(request, tmp_path / "out")
    assert 4 <= found["facts"]["frames"] < 12


def test_limits_are_the_extractor_s_and_said(frame_folder, clip, cheap, tmp_path):
    extractor = fake_extractor(seed=None, seconds=9, frames=9)
    folder = model_of_own_videos(frame_folder, tmp_path / "model", extractor)
    found = run_video(VideoRequest(str(clip), str(folder)), tmp_path / "out")
    assert found["meaningless"] == ""
    assert found["notes"] == [
        "The first 0:09 of 0:10 are looked at.",
        "The labels of the whole video are of its first 0:08: so many frames the model takes.",
    ]
    assert "mean nothing" not in (tmp_path / "out" / "timeline.html").read_text()


def test_of_a_bucket(own_folder, silent, cheap, tmp_path, bucket):
    bucket.blob("v/silent.mkv").upload_from_filename(str(silent))
    found = run_video(VideoRequest("gs://data/v/silent.mkv", str(own_folder)), tmp_path / "out")
    assert (found["video"], record_in(tmp_path / "out").video_id) == ("silent.mkv", "silent")
    with pytest.raises(InputError, match=r"^gs://data/absent: no such object$"):
        run_video(VideoRequest("gs://data/absent", str(own_folder)), tmp_path / "no")


def test_names_that_files_can_have(own_folder, silent, cheap, tmp_path):
    name = os.fsdecode(b"<img src=x onerror=1>\xff.mkv")
    shutil.copy(silent, tmp_path / name)
    found = run_video(VideoRequest(str(tmp_path / name), str(own_folder)), tmp_path / "out")
    assert found["video"] == "<img src=x onerror=1>\\xff.mkv"
    assert record_in(tmp_path / "out").video_id == "<img src=x onerror=1>\\xff"
    assert "<img src=x" not in (tmp_path / "out" / "timeline.html").read_text()
    assert len(id_of("a/" + "ö" * 90 + ".mp4").encode()) <= 64
