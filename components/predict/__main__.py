"""`python -m components.predict`: an exported model on shards, or on one video."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trainer.errors import InputError, reported
from trainer.files import local_path
from trainer.flags import FlagParser
from trainer.termination import ended_by_signals

USAGE = """python -m components.predict [--model FOLDER] [--data DATA] [FLAG …] [-- BEAM …]
       python -m components.predict --video FILE [--model FOLDER] [FLAG …]"""
DESCRIPTION = """Scores every record of shards with an exported model and writes predictions.csv
(the challenge's form), predictions.jsonl (to read) and summary.json into a new folder, all or none.
A record that is damaged or of another level ends it with one line and exit code 1. After -- come
Beam's options, such as --runner=FlinkRunner. With --video it decodes one file, makes the features
that the model was trained on, and writes timeline.html, prediction.json and video.tfrecord."""
OF_SHARDS = ("data", "split", "skip_damaged", "batch_size", "engine", "workers")
"""Flags that mean nothing of one video."""
OF_A_VIDEO = ("weights", "random_weights", "seed", "accept_damaged")


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    # TensorFlow's chatter; it looks when it is first imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with reported(), ended_by_signals("predict", "nothing was written"):
        _predict(given)


def _predict(given: list[str]) -> None:
    end = given.index("--") if "--" in given else len(given)
    parser = _parser()
    options = parser.parse(given[:end])
    _check_kinds(parser, options, given[end + 1 :])
    stamp = f"{datetime.datetime.now():%Y%m%d-%H%M%S}"
    output = local_path(options.output or f"predictions/{stamp}")
    model = str(local_path(options.model)) if options.model else ""
    if options.video:
        _predict_video(options, model, output)
        return
    # After the flags, as TensorFlow and Beam take seconds.
    from components.predict.step import Request, run_predict  # noqa: PLC0415

    request = Request(
        model=model,
        data=options.data,
        split=options.split,
        runs=options.runs,
        overwrite=options.overwrite,
        skip_damaged=options.skip_damaged,
        segments=options.segments,
        top_k=options.top_k,
        batch_size=options.batch_size,
        engine=options.engine,
        workers=options.workers,
        beam_arguments=given[end + 1 :],
    )
    run_predict(request, output)


def _predict_video(options: argparse.Namespace, model: str, output: Path) -> None:
    from components.predict.video import VideoRequest, run_video  # noqa: PLC0415

    request = VideoRequest(
        video=options.video,
        model=model,
        runs=options.runs,
        overwrite=options.overwrite,
        top_k=options.top_k,
        segments=options.segments,
        weights=options.weights,
        random_weights=options.random_weights,
        seed=options.seed,
        accept_damaged=options.accept_damaged,
    )
    run_video(request, output)


def _check_kinds(parser: FlagParser, options: argparse.Namespace, beam: Sequence[str]) -> None:
    """Refuse flags that would be passed over.

    Raises:
        InputError: one is of shards and there is a video, or the other way.
    """
    wrong = OF_SHARDS if options.video else OF_A_VIDEO
    found = [name for name in wrong if getattr(options, name) != parser.get_default(name)]
    if found:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in found)
        reason = "of shards, found beside --video" if options.video else "of --video, not given"
        raise InputError(f"{flags}: {reason}")
    if options.video and beam:
        raise InputError(f"{beam[0]}: Beam's options are of shards, found beside --video")


def _parser() -> FlagParser:
    parser = FlagParser(prog="python -m components.predict", usage=USAGE, description=DESCRIPTION)
    parser.add_argument(
        "--model", default="", metavar="FOLDER",
        help="serving_model of a run; default: of the newest run that has one",
    )  # fmt: skip
    parser.add_argument(
        "--data", default="",
        help="a folder of shards, a pattern, a .tfrecord file, or a manifest; default: the "
        "examples of the model's run",
    )  # fmt: skip
    parser.add_argument(
        "--split", default="validate", help="of a manifest [default validate]"
    )  # fmt: skip
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="[default runs]")
    parser.add_argument(
        "--output", default="", metavar="FOLDER", help="to write [default predictions/<time>]"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier prediction")
    parser.add_argument(
        "--skip-damaged", action="store_true",
        help="pass over records that have no answer; they are counted and listed",
    )  # fmt: skip
    parser.add_argument(
        "--segments", action="store_true",
        help="also a timeline: segments.jsonl, and segments.csv in the challenge's form",
    )  # fmt: skip
    parser.add_argument(
        "--top-k", type=int, metavar="N", help="classes of a video and of a segment"
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="videos at once [default 64]"
    )
    parser.add_argument("--engine", default="direct", help="direct or beam [default direct]")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="processes of this machine, of --engine beam [default 1]",
    )  # fmt: skip
    video = parser.add_argument_group("one video")
    video.add_argument("--video", default="", metavar="FILE", help="a path or a gs:// URI")
    video.add_argument(
        "--weights", default="weights", metavar="FOLDER",
        help="with the published files of the networks that make features [default weights]",
    )  # fmt: skip
    video.add_argument(
        "--random-weights", action="store_true",
        help="networks that know nothing, to see how it goes: the labels then mean nothing",
    )  # fmt: skip
    video.add_argument("--seed", type=int, metavar="N", help="of these [default 0]")
    video.add_argument(
        "--accept-damaged", action="store_true", help="take what decodes of a damaged file"
    )
    return parser


if __name__ == "__main__":
    main()
