"""`python -m pipeline.run_videos`: run the DAG for own videos on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.extract_features.__main__ import PARTLY
from components.extract_features.feature_kinds import FEATURES
from pipeline.local_run import Ran, here, run_dag
from pipeline.name_values import named_values
from pipeline.run import end_children
from pipeline.run_folder import STATE, absolute
from pipeline.videos_pipeline import build_videos
from trainer.errors import InputError, reported
from trainer.files import read_json
from trainer.parameter import parameter
from trainer.progress import duration

_SUMMARY = "summary.json"


@dataclasses.dataclass(frozen=True)
class VideosParameters:
    """Parameters of the DAG for own videos; those of the compiled one are the same."""

    videos: str = parameter("", "CSV file of videos and labels, folder, video, or gs:// URI")
    model: str = parameter("", "exported model to score with, whose networks make the features")
    destination: str = parameter("", "folder that outlives the run; empty: below the runs")
    features: str = parameter("imagenet", "networks, without a model", choices=tuple(FEATURES))
    weights: str = parameter("weights", "folder with the networks' published files")
    extractor: str = parameter("", "feature_extractor.npz whose PCA is used again")
    vocabulary: str = parameter("", "vocabulary.csv of the classes")
    validate_share: float = parameter(
        0.2, "of the labelled videos without a split", minimum=0, maximum=0.99
    )
    max_failed: float = parameter(
        0.1, "share of the videos that may have no features", minimum=0, maximum=1
    )
    accept_damaged: bool = parameter(False, "take what decodes of videos that are cut off")
    seed: int = parameter(0, "of random weights", minimum=0)
    split: str = parameter("all", "to be scored", choices=("all", "train", "validate", "test"))
    segments: bool = parameter(True, "timelines, too")
    overrides: str = parameter("{}", "JSON of section statistics")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", default="", help="CSV file, folder, video or gs:// URI")
    parser.add_argument("--model", default="", help="exported model to score with")
    parser.add_argument("--weights", default="weights", help="folder with the published files")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", dest="settings",
        help="; ".join(
            f"{field.name}: {field.metadata['description']}"
            for field in dataclasses.fields(VideosParameters)
        ).replace("%", "%%"),
    )  # fmt: skip
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs")
    parser.add_argument("--no-cache", action="store_true", help="run every step anew")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_children)
    with reported():
        runs = options.runs.resolve()
        parameters = _parameters(options, runs)
        try:
            ran = run_dag(build_videos, parameters, runs, not options.no_cache, here())
        except KeyboardInterrupt:
            print("\ninterrupted: start it again, videos that are done are kept")
            raise SystemExit(130) from None
        failed = _show(ran, parameters)
    if failed:
        raise SystemExit(PARTLY)


def _parameters(options: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """Of the DAG, checked, with whole names of folders, as steps start elsewhere."""
    given = {"videos": options.videos, "model": options.model, "weights": options.weights}
    given = {name: value for name, value in given.items() if value}
    given |= named_values("videos", VideosParameters, options.settings)
    found = dataclasses.asdict(VideosParameters(**given))
    if not found["videos"]:
        raise InputError("VIDEOS is empty, expected a CSV file, a folder, a video or a gs:// URI")
    for name in ("videos", "model", "weights", "extractor", "vocabulary", "destination"):
        found[name] = absolute(found[name])
    return found | {"destination": found["destination"] or str(runs / STATE / "data")}


def _show(ran: Ran, parameters: dict[str, Any]) -> int:
    """Say what came out; how many videos have no features."""
    statistics = ran.results.folder("example_statistics")
    fingerprint = read_json(f"{statistics}/statistics.json")["data_fingerprint"]
    artifacts = {"example_statistics": statistics, "examples": _examples(parameters, fingerprint)}
    if parameters["model"]:
        # Always runs, so no cache knows it.
        (found,) = (ran.folder / "artifacts").glob("*/predict/predictions")
        artifacts["predictions"] = str(found)
    ran.link(artifacts)
    summary = read_json(f"{artifacts['examples']}/{_SUMMARY}")
    folder = Path(os.path.relpath(ran.folder))
    print(f"\n── done in {duration(ran.wall_seconds)} " + "─" * 54)
    print(
        f"{summary['videos']:,} videos, {summary['frames']:,} frames; {summary['failed']:,} failed "
        f"({folder / 'examples' / 'failed.jsonl'})\n"
    )
    print(f"records      {folder / 'examples'}  (make pipeline-run DATA=… trains on them)")
    print(f"statistics   {folder / 'example_statistics'}")
    if parameters["model"]:
        print(f"predictions  {folder / 'predictions' / 'predictions.csv'}")
    print(f"log          {folder / 'pipeline.log'}")
    failed: int = summary["failed"]
    return failed


def _examples(parameters: dict[str, Any], fingerprint: str) -> str:
    """The folder of records with this fingerprint; the step always runs, so no cache knows it."""
    found = [
        summary
        for summary in (Path(parameters["destination"]) / "extracted").glob(f"*/{_SUMMARY}")
        if read_json(summary)["data_fingerprint"] == fingerprint
    ]
    # Of equal records with other dead letters the latest, which this run wrote or found again.
    return str(max(found, key=lambda summary: summary.stat().st_mtime_ns).parent)


if __name__ == "__main__":
    main()
