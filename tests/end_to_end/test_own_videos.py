"""Own videos all the way, with random networks: records, a model that learns them, labels."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.components.extract_features.clips import even, tone, write_clip
from tests.conftest import ROOT
from trainer.manifest import read_manifest

COLOURS = {"red": (210, 40, 40), "green": (40, 210, 40), "blue": (40, 40, 210)}
HERTZ = {"red": 220.0, "green": 880.0, "blue": 3200.0}
VIDEOS = 8
ENVIRONMENT = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}


def run(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
        env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def write_video(path, name, number, seconds=4):
    """Stripes of a class's colour that move, with its pitch; silent for every fourth."""

    def draw(frame, width, height):
        image = np.full((height, width, 3), COLOURS[name], np.uint8)
        stripes = (np.arange(width) + 3 * frame + 7 * number) // 8 % 2 == 0
        image[:, stripes] //= 3
        return image

    sound = (tone(seconds, 16_000, hertz=HERTZ[name]), 16_000, "aac")
    write_clip(
        path, even(5, seconds), draw=draw, size=(96, 64), sound=None if number == 3 else sound
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    rows = ["video,labels\n"]
    for name in COLOURS:
        for number in range(VIDEOS):
            write_video(folder / f"{name}{number}.mp4", name, number, 2 + number % 4)
            rows.append(f"{name}{number}.mp4,{name}\n")
    (folder / "broken.mp4").write_text("no video")
    (folder / "list.csv").write_text("".join(rows))
    return folder


def content(folder):
    files = sorted(
        path for path in folder.rglob("*") if path.suffix in (".tfrecord", ".npz", ".csv")
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
def test_from_files_to_labels(videos, tmp_path):
    # The same bytes by one process and by two, in other batches.
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ("--videos", videos / "list.csv", "--random-weights", "--seed=5")
    run("components.extract_features", *flags, "--output", one)
    run("components.extract_features", *flags, "--output", two, "--workers=2", "--batch-size=7")
    assert content(one) == content(two)
    assert read_manifest(one).features_mark == "random weights (seed 5)"

    # Nothing is trained on them unless it is said.
    runs = (
        "--runs", tmp_path / "runs", "--data", one, "--set", "epochs=40", "batch_size=6",
        "learning_rate=0.003", "model.cluster_size=4", "model.groups=2", "model.hidden_size=32",
        "model.batch_norm_momentum=0.9", "data.max_frames=6",
    )  # fmt: skip
    said = run("pipeline.run", *runs, code=1)
    assert "its features say of themselves: random weights (seed 5)" in said
    run("pipeline.run", *runs, "data.accept_random_features=true", "min_gap=0.8")
    (model,) = (tmp_path / "runs").glob("*/serving_model")
    about = json.loads((model / "export.json").read_text())
    assert about["features_mark"] == "random weights (seed 5)"
    assert (model / "feature_extractor.npz").read_bytes() == content(one)["feature_extractor.npz"]
    assert "random weights (seed 5)" in (model / "model_card.md").read_text()

    # A clip that it never saw, and the page that goes with its labels.
    write_video(tmp_path / "new.mp4", "green", 11, 7)
    run("components.predict", "--model", model, "--video", tmp_path / "new.mp4", "--output",
        tmp_path / "new")  # fmt: skip
    found = json.loads((tmp_path / "new" / "prediction.json").read_text())
    assert found["labels"][0]["name"] == "green"
    assert "random weights" in (tmp_path / "new" / "timeline.html").read_text()

    # The same as a DAG, for all of a folder; the broken one is named.
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(videos / "broken.mp4", folder)
    for video in videos.glob("*[0-3].mp4"):
        shutil.copy(video, folder)
    said = run("pipeline.run_videos", "--videos", folder, "--model", model, "--runs",
               tmp_path / "runs", code=3)  # fmt: skip
    assert f"failed: {folder}/broken.mp4: its 8 bytes are no video" in said
    lines = (tmp_path / "runs").glob("*/predictions/predictions.jsonl")
    answers = [json.loads(line) for line in next(lines).read_text().splitlines()]
    right = sum(one["classes"][0]["name"] == one["id"][:-1] for one in answers)
    assert len(answers) == len(COLOURS) * 4
    assert right >= 0.9 * len(answers)
