"""`python -m components.extract_features`: own videos to YouTube-8M records."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from components.extract_features.feature_kinds import FEATURES, RANDOM
from trainer.errors import reported
from trainer.files import local_path
from trainer.flags import FlagParser
from trainer.termination import ended_by_signals
from trainer.vocabulary import read_vocabulary

PARTLY = 3
"""Exit code of an extraction that is done, in which some videos have no features."""
USAGE = "python -m components.extract_features --videos LIST --output FOLDER [FLAG …] [-- BEAM …]"
DESCRIPTION = """Makes YouTube-8M records of videos: a frame a second through Inception-v3 and a
second of sound through VGGish, each through a PCA with whitening, in 8-bit codes. Writes shards,
manifest.json, vocabulary.csv, feature_extractor.npz (which networks and PCA: extract later videos
with it), videos.jsonl, failed.jsonl and summary.json, all or none; started again, it goes on with
what was done. Exit code 3: done, but some videos have no features. After -- come Beam's options."""


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    # TensorFlow's chatter; it looks when it is first imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with reported(), ended_by_signals("extract", "start it again, what was done is kept"):
        failed = _extract(given)
    if failed:
        raise SystemExit(PARTLY)


def _extract(given: list[str]) -> int:
    end = given.index("--") if "--" in given else len(given)
    options = _parser().parse(given[:end])
    # After the flags, as TensorFlow and Beam take seconds.
    from components.extract_features.decoder_process import Limits  # noqa: PLC0415
    from components.extract_features.features import Pace, decoders  # noqa: PLC0415
    from components.extract_features.networks import NetworkSource  # noqa: PLC0415
    from components.extract_features.request import Request  # noqa: PLC0415
    from components.extract_features.step import run_extract  # noqa: PLC0415

    kind = RANDOM if options.random_weights else options.features
    request = Request(
        videos=options.videos,
        source=NetworkSource(kind, options.weights, options.seed) if kind else None,
        weights=options.weights,
        pca=options.pca,
        extractor=options.extractor,
        vocabulary=(
            read_vocabulary(local_path(options.vocabulary)) if options.vocabulary else None
        ),
        validate_share=options.validate_share,
        limits=Limits(
            frames=options.frames, memory_mb=options.memory_mb,
            processor_seconds=options.processor_seconds,
            waiting_seconds=4.0 * options.processor_seconds,
            accept_damaged=options.accept_damaged,
        ),
        pace=Pace(options.batch_size, options.decoders or decoders(max(1, options.workers))),
        shard_videos=options.shard_videos,
        max_failed=options.max_failed,
        work=options.work,
        workers=options.workers,
        beam_arguments=given[end + 1 :],
        overwrite=options.overwrite,
    )  # fmt: skip
    _, summary = run_extract(request, local_path(options.output))
    failed: int = summary["failed"]
    return failed


def _parser() -> FlagParser:
    parser = FlagParser(
        prog="python -m components.extract_features", usage=USAGE, description=DESCRIPTION
    )
    what = parser.add_argument_group("what")
    what.add_argument(
        "--videos", required=True, metavar="LIST",
        help="a CSV file of videos and their labels (video,labels with ; between them, or by a "
        "header video,labels,split,id), a folder, a video, or a gs:// URI of one of them",
    )  # fmt: skip
    what.add_argument("--output", required=True, metavar="FOLDER", help="to write")
    what.add_argument("--overwrite", action="store_true", help="replace an earlier extraction")
    what.add_argument(
        "--vocabulary", default="", metavar="FILE",
        help="vocabulary.csv of the classes; default: beside the extractor, or of the labels",
    )  # fmt: skip
    what.add_argument(
        "--validate-share", type=float, default=0.2, metavar="X",
        help="of the labelled videos without a split, to evaluate on [default 0.2]",
    )  # fmt: skip
    how = parser.add_argument_group("networks")
    how.add_argument(
        "--features", default="",
        help="; ".join(f"{name}: {words}" for name, words in FEATURES.items())
        + " [default: the extractor's, or imagenet]",
    )  # fmt: skip
    how.add_argument(
        "--weights", default="weights", metavar="FOLDER",
        help="with the published files, by their names: docs/features.md [default weights]",
    )  # fmt: skip
    how.add_argument(
        "--extractor", default="", metavar="FILE",
        help="feature_extractor.npz of an earlier extraction or of a model: its PCA is used again",
    )  # fmt: skip
    how.add_argument("--pca", default="", metavar="FOLDER", help="YouTube-8M's PCA of frames")
    how.add_argument(
        "--random-weights", action="store_true",
        help="networks that know nothing, for tests; every record says so",
    )  # fmt: skip
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of these [default 0]")
    limits = parser.add_argument_group("each video")
    limits.add_argument(
        "--frames", type=int, default=300, metavar="N",
        help="looked at, one a second; 360 at most [300, as in YouTube-8M]",
    )  # fmt: skip
    limits.add_argument(
        "--accept-damaged", action="store_true",
        help="take what decodes of videos that are cut off or damaged",
    )  # fmt: skip
    limits.add_argument(
        "--memory-mb", type=int, default=2048, metavar="N", help="of its decoder [2048]"
    )
    limits.add_argument(
        "--processor-seconds", type=int, default=600, metavar="N", help="of its decoder [600]"
    )
    pace = parser.add_argument_group("pace, and what is written")
    pace.add_argument("--batch-size", type=int, default=32, metavar="N", help="frames [32]")
    pace.add_argument(
        "--decoders", type=int, default=0, metavar="N", help="processes [one a core, 8 at most]"
    )
    pace.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes of this machine [1]"
    )
    pace.add_argument("--shard-videos", type=int, default=100, metavar="N", help="a shard [100]")
    pace.add_argument(
        "--max-failed", type=float, default=1.0, metavar="X",
        help="share of the videos that may have no features [1]",
    )  # fmt: skip
    pace.add_argument(
        "--work", default="", metavar="FOLDER",
        help="for what is done so far, kept; default: beside the output, removed at the end",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    main()
