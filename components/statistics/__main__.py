"""`python -m components.statistics`: the pass alone, and the comparison of two."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from components.statistics.diff import diff_statistics
from components.statistics.step import run_statistics
from trainer.config import Config
from trainer.errors import reported
from trainer.files import local_path
from trainer.flags import FlagParser, add_flags, flag_overrides

USAGE = """python -m components.statistics --examples FOLDER --output FOLDER [FLAG …] [-- BEAM …]
       python -m components.statistics diff A B [--report FILE]"""
PASS = """Reads every record of a manifest once and writes what the data looks like, what is wrong
with it, and a page about both: statistics.json and .npz, anomalies.json, bad_records.jsonl,
schema.yaml, stats.tfrecord and schema.pbtxt (TensorFlow Metadata), and OUTPUT.html. Exit code 1 if
an anomaly is of severity error. After -- come Beam's options, such as --runner=FlinkRunner."""


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    with reported():
        if given[:1] == ["diff"]:
            _diff(given[1:])
        else:
            _pass(given)


def _pass(given: list[str]) -> None:
    end = given.index("--") if "--" in given else len(given)
    parser = FlagParser(usage=USAGE, description=PASS)
    parser.add_argument("--examples", required=True, help="folder or file of the manifest")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--report", help="HTML page to write; default: OUTPUT.html")
    add_flags(parser, ("statistics",))
    options = parser.parse(given[:end])
    config = Config().updated(flag_overrides(options))
    output = local_path(options.output)
    report = options.report or str(output.with_name(f"{output.name}.html"))
    run_statistics(
        str(local_path(options.examples)), str(output), report, given[end + 1 :], config.statistics
    )


def _diff(given: list[str]) -> None:
    parser = FlagParser(
        usage=USAGE, description="Compares the statistics of two runs, A with B, and exits with 0."
    )
    parser.add_argument("a", metavar="A", help="folder of a run's statistics")
    parser.add_argument("b", metavar="B", help="of another's")
    parser.add_argument("--report", type=Path, help="HTML page to write")
    options = parser.parse(given)
    print(diff_statistics(options.a, options.b, options.report))


if __name__ == "__main__":
    main()
