"""Seconds of training to a given validation GAP@20, for models that differ by their aggregation.

    python -m benchmarks.time_to_gap sample                   # the built-in sample, minutes
    python -m benchmarks.time_to_gap frames --data FOLDER     # frame-level shards, tens of minutes

Every model trains on the train split with the same budget of epochs and is scored on all of
validate after each one; the clock counts the training, its input and the tracing of its graph
(seconds, once), and not the scoring. The
models train one after the other on the same machine: compare their times with each other. Writes
`time_to_gap-NAME.csv` and `.svg` into --output.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.timing import machine
from components.download.step import run_download
from trainer import records
from trainer.config import Config
from trainer.distribution import connected
from trainer.manifest import Manifest, read_manifest
from trainer.training import make_loop

SHARED: dict[str, Any] = {
    "data": {"max_frames": 60},
    "model": {
        "normalization": "scaled_l2",
        "cluster_size": 16,
        "groups": 4,
        "expansion": 1,
        "batch_norm_momentum": 0.9,
        "classifier_l2": 0.0,
        "dbof_size": 1024,
    },
    "training": {"schedule": "cosine"},
}
RECIPES: dict[str, dict[str, Any]] = {
    "sample": {
        "model": {"hidden_size": 256},
        "training": {"epochs": 8, "batch_size": 32, "learning_rate": 0.002},
    },
    "frames": {
        "model": {"hidden_size": 512},
        "training": {"epochs": 8, "batch_size": 64, "learning_rate": 0.001},
    },
}
MODELS = ("nextvlad", "nextvlad_mixture", "netvlad", "dbof", "mean_pooling")
LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Marks of the table, as shares of the best GAP that any model reached."""


def class_frequencies(manifest: Manifest) -> np.ndarray:
    """float [C]: share of the training videos that have each class."""
    counts, videos = np.zeros(manifest.num_classes), 0
    for shard in manifest.split("train"):
        for video in records.read_videos(shard.path, manifest.level, manifest.num_classes):
            counts[video.labels] += 1
            videos += 1
    return counts / videos


def train(
    config: Config, manifest: Manifest, priors: np.ndarray
) -> tuple[int, list[dict[str, Any]]]:
    """Weights of the model, and its history scored on validate, with the seconds of training."""
    verticals = manifest.read_vocabulary().vertical_indices()
    shards = manifest.split("train"), manifest.split("validate")
    with tempfile.TemporaryDirectory() as folder, connected(config.training) as distribution:
        loop = make_loop(
            config, manifest, priors, verticals, shards, Path(folder), {}, distribution
        )
        trained = loop.run()
    rows = zip(trained.history, trained.timings, strict=True)
    return trained.parameters, [
        row | {"seconds": timing["training_seconds"]} for row, timing in rows
    ]


def draw(histories: dict[str, list[dict[str, Any]]], title: str, path: Path) -> None:
    """The curves as SVG: GAP over seconds of training."""
    with matplotlib.rc_context({"svg.hashsalt": "nextvlad", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for name, rows in histories.items():
            seconds, gaps = zip(*((r["seconds"], r["holdout_gap"]) for r in rows), strict=True)
            # A model has its colour in every picture.
            axes.plot(seconds, gaps, f"C{MODELS.index(name)}o-", markersize=3, label=name)
        axes.set(xlabel="seconds of training", ylabel="GAP@20 on validate", title=title)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(visible=True, linewidth=0.5, which="both", alpha=0.4)
        axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--data", default="", help="folder of frame-level shards")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("build"))
    arguments = parser.parse_args()
    if bool(arguments.data) != (arguments.recipe == "frames"):
        parser.error("frames needs --data, the sample has none")
    recipe = Config().updated(SHARED).updated(RECIPES[arguments.recipe])
    if arguments.epochs:
        recipe = recipe.updated({"training": {"epochs": arguments.epochs}})
    arguments.output.mkdir(parents=True, exist_ok=True)
    state = arguments.output / "time_to_gap_data"
    uri, _ = run_download(arguments.data or "sample", str(state), recipe, "", "")
    manifest = read_manifest(uri)
    priors = class_frequencies(manifest)
    histories, sizes = {}, {}
    print(machine())
    for name in arguments.models:
        model = dataclasses.replace(recipe.model, name=name)
        config = dataclasses.replace(recipe, model=model)
        sizes[name], histories[name] = train(config, manifest, priors)
    best = max(row["holdout_gap"] for rows in histories.values() for row in rows)
    print("\nseconds of training to a GAP@20 of")
    heads = "".join(f"{level * best:9.3f}" for level in LEVELS)
    print(f"{'':18}{heads}     last GAP  parameters")
    for name, rows in histories.items():
        cells = ""
        for level in LEVELS:
            reached = [r["seconds"] for r in rows if r["holdout_gap"] >= level * best]
            cells += f"{reached[0]:9.1f}" if reached else f"{'–':>9}"
        last = rows[-1]["holdout_gap"]
        print(f"{name:18}{cells}{last:13.4f}{sizes[name] / 1e6:10.1f} M")
    stem = arguments.output / f"time_to_gap-{arguments.recipe}"
    with stem.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = ("epoch", "examples", "seconds", "loss", "holdout_gap")
        writer.writerow(["model", *columns[:-1], "gap"])
        for name, rows in histories.items():
            for row in rows:
                writer.writerow([name, *(f"{row[column]:g}" for column in columns)])
    draw(histories, f"{arguments.recipe}: {len(priors):,} classes", stem.with_suffix(".svg"))
    print(f"\nwrote {stem}.csv and {stem}.svg")


if __name__ == "__main__":
    main()
