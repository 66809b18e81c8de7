"""`python -m trainer.task`: training alone, without the pipeline around it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trainer.config import Config, parse_overrides
from trainer.configuration_file import configured
from trainer.errors import InputError, reported
from trainer.files import local_path, read_json
from trainer.flags import FlagParser, add_flags, flag_overrides
from trainer.manifest import read_manifest
from trainer.progress import say
from trainer.statistics import read_statistics
from trainer.training import class_priors, train

USAGE = """python -m trainer.task --examples FOLDER --statistics FOLDER
       --checkpoints FOLDER --output FOLDER
       [--like FOLDER] [--config FILE] [--overrides JSON]
       [--PARAMETER VALUE ...]"""
CHECKPOINTS, OUTPUT = "AIP_CHECKPOINT_DIR", "AIP_MODEL_DIR"
"""https://cloud.google.com/vertex-ai/docs/training/code-requirements#environment-variables."""
DESCRIPTION = """Training alone, without the pipeline around it. Each parameter has the value of
the last of these that names it: its default, --like, --config, --overrides, its own flag (of one
that stands there twice, the last)."""


def make_parser() -> FlagParser:
    parser = FlagParser(prog="python -m trainer.task", usage=USAGE, description=DESCRIPTION)
    for name, variable, text in (
        ("examples", "", "of manifest.json"),
        ("statistics", "", "of statistics.json"),
        ("checkpoints", CHECKPOINTS, "that outlives the training"),
        ("output", OUTPUT, "of the trained model, to write"),
    ):
        # A custom job of Vertex AI, and each trial of a tuning job, is told its own.
        default = os.environ.get(variable)
        parser.add_argument(
            f"--{name}", required=not default, default=default, metavar="FOLDER",
            help=f"folder {text}" + (f" (default: {variable})" if variable else ""),
        )  # fmt: skip
    parser.add_argument(
        "--like", metavar="FOLDER", help="folder of a trained model: start at its configuration"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML, as in pipeline/configs/ (its folders do not count here)",
    )
    parser.add_argument(
        "--overrides",
        default="{}",
        metavar="JSON",
        help='such as {"training": {"epochs": 3}}, or @FILE of it',
    )
    add_flags(parser)
    return parser


def configuration(options: argparse.Namespace) -> Config:
    """The configuration of a command line: default, --like, --config, --overrides, flags.

    Raises:
        InputError: a file that is not what it should be, or a parameter that can not be.
        OSError: the file of --overrides can not be read.
    """
    text = options.overrides
    if text.startswith("@"):
        text = Path(text[1:]).read_text(encoding="utf-8", errors="replace")
    config = Config()
    if options.like:
        config = _like(options.like)
    if options.config:
        config = configured(config, options.config)
    return config.updated(parse_overrides(text)).updated(flag_overrides(options))


def _like(folder: str) -> Config:
    """The configuration of a trained model."""
    path = Path(folder) / "config.json"
    trained = read_json(path)
    sections = ("data", "model", "training")
    if not isinstance(trained, dict) or not set(sections) <= trained.keys():
        raise InputError(f"{path}: expected the sections {', '.join(sections)}")
    try:
        return Config().updated({section: trained[section] for section in sections})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def main(arguments: Sequence[str] | None = None) -> None:
    with reported():
        options = make_parser().parse(sys.argv[1:] if arguments is None else arguments)
        config = configuration(options)
        manifest = read_manifest(local_path(options.examples))
        statistics = read_statistics(local_path(options.statistics), manifest.fingerprint)
        priors = class_priors(manifest, statistics.arrays)
        output = local_path(options.output)
        train(config, manifest, priors, local_path(options.checkpoints), output)
        if output.is_dir():  # of several workers the first one writes
            say("train", f"trained model written to {options.output}")


if __name__ == "__main__":
    main()
